#pragma once

#include <kvlane/kvlane.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace context_parallel {

/// Positions [first, end) of a sequence.
struct Positions {
    int64_t first, end;
};

/// Divides the positions of a sequence among ranks: consecutive ranges of n_chunks[rank] whole chunks. The last rank's range
/// ends at max_tokens, or holds nothing if the other ranks' hold all of it.
std::vector<Positions> divide(int64_t max_tokens, std::span<const int64_t> n_chunks);

/// Returns numbers of chunks that differ by at most one: n_chunks of divide.
std::vector<int64_t> even_chunks(int64_t max_tokens, int n_ranks);

/// Returns the geometry of a cache's layers for attention of this geometry.
kvlane::Layer layer_of(const kvlane::Geometry &geometry);

/// Returns the geometry without sink logits. Ranges and merges of a chain use it, because the chain begins with the state of
/// the sink logits, see kvl_merge_partials.
kvlane::Geometry without_sink_logits(kvlane::Geometry geometry);

/// One rank's share of a sequence: the keys and values of its positions, in all layers.
class Shard {
public:
    /// geometry: v_head_dim is set. executor: the threads of attention, may be null; outlives the shard.
    Shard(const kvlane::Geometry &geometry, uint32_t n_layers, Positions positions, uint32_t max_queries,
          const kvl_executor *executor);

    /// Appends to a layer those of the tokens at positions first, first + 1, ... that are this rank's.
    /// Shape:  k [n_tokens, n_kv_heads, head_dim]; v [n_tokens, n_kv_heads, v_head_dim]
    void append(uint32_t layer, int64_t first, std::span<const float> k, std::span<const float> v);

    /// Makes the tokens that were appended to every layer part of the cache.
    void advance();

    /// Computes the partial state of each of this rank's chunks, in order of position, for the last n_queries of a sequence
    /// of len tokens. The next call overwrites the states.
    /// Shape:  q [n_queries, n_query_heads, head_dim]
    std::span<const kvl_partial> attend(uint32_t layer, int64_t len, uint32_t n_queries, const float *q);

private:
    Positions positions_;
    kvlane::Cache cache_;
    kvlane::Attention attention_;
    kvlane::Workspace workspace_;
    const kvl_executor *executor_;
    std::vector<kvlane::Partial> memory_;
    std::vector<kvl_partial> states_;  // in memory_, one for each chunk
};

}  // namespace context_parallel

#include "shard.hpp"

#include <algorithm>

namespace context_parallel {
namespace {

constexpr int64_t chunk = KVL_CHUNK_TOKENS;

int64_t chunks_of(int64_t n_tokens) { return (n_tokens + chunk - 1) / chunk; }

int64_t size_of(Positions positions) { return positions.end - positions.first; }

}  // namespace

std::vector<Positions> divide(int64_t max_tokens, std::span<const int64_t> n_chunks) {
    std::vector<Positions> positions;
    int64_t first = 0;
    for (const int64_t n : n_chunks) {
        positions.push_back({first, first + n * chunk});
        first += n * chunk;
    }
    positions.back().end = std::max(positions.back().first, max_tokens);
    return positions;
}

std::vector<int64_t> even_chunks(int64_t max_tokens, int n_ranks) {
    std::vector<int64_t> n_chunks;
    const int64_t n = chunks_of(max_tokens);
    for (int64_t rank = 0; rank < n_ranks; ++rank) {
        n_chunks.push_back(n * (rank + 1) / n_ranks - n * rank / n_ranks);
    }
    return n_chunks;
}

kvlane::Layer layer_of(const kvlane::Geometry &g) {
    return {.n_kv_heads = g.n_kv_heads,
            .head_dim = g.head_dim,
            .v_head_dim = g.v_head_dim,
            .k_format = g.k_format,
            .v_format = g.v_format,
            .k_rotation = g.k_rotation,
            .v_rotation = g.v_rotation};
}

kvlane::Geometry without_sink_logits(kvlane::Geometry geometry) {
    geometry.sink_logits = {};
    return geometry;
}

Shard::Shard(const kvlane::Geometry &geometry, uint32_t n_layers, Positions positions, uint32_t max_queries,
             const kvl_executor *executor)
    : positions_(positions),
      cache_(n_layers, layer_of(geometry), std::max<int64_t>(1, size_of(positions))),
      attention_(without_sink_logits(geometry)),
      workspace_(attention_.workspace(static_cast<uint32_t>(chunks_of(size_of(positions))), positions.end, max_queries,
                                      kvlane::max_tasks(executor))),
      executor_(executor),
      memory_(static_cast<size_t>(chunks_of(size_of(positions))),
              kvlane::Partial(max_queries, geometry.n_query_heads, geometry.v_head_dim)) {
    for (kvlane::Partial &state : memory_) {
        states_.push_back(state.get());
    }
}

void Shard::append(uint32_t layer, int64_t first, std::span<const float> k, std::span<const float> v) {
    const kvl_layer_info info = cache_.info(layer);
    const int64_t n_tokens = std::ssize(k) / info.k_entry_size;
    const int64_t begin = std::max(first, positions_.first), end = std::min(first + n_tokens, positions_.end);
    if (begin < end) {
        const auto own = [=](std::span<const float> x, size_t entry) {
            return x.subspan(static_cast<size_t>(begin - first) * entry, static_cast<size_t>(end - begin) * entry);
        };
        cache_.append(layer, own(k, info.k_entry_size), own(v, info.v_entry_size));
    }
}

void Shard::advance() {
    const int64_t n_pending = cache_.info(0).len - cache_.len();
    if (n_pending > 0) {
        cache_.advance(n_pending);
    }
}

std::span<const kvl_partial> Shard::attend(uint32_t layer, int64_t len, uint32_t n_queries, const float *q) {
    const kvl_view view = cache_.view(layer);
    const auto n_chunks = static_cast<size_t>(chunks_of(view.len));
    std::vector<kvl_range> ranges(n_chunks);
    std::vector<kvl_sequence> sequences(n_chunks);
    for (size_t i = 0; i < n_chunks; ++i) {
        const int64_t first = positions_.first + static_cast<int64_t>(i) * chunk;
        ranges[i] = kvlane::Range{.view_first = positions_.first,
                                  .first = first,
                                  .end = std::min(first + chunk, positions_.first + view.len),
                                  .out = states_[i]};
        sequences[i] = kvlane::Sequence{.view = &view, .len = len, .n_queries = n_queries, .q = q, .range = &ranges[i]};
    }
    attention_.attend(sequences, workspace_, executor_);
    return std::span(states_).first(n_chunks);
}

}  // namespace context_parallel

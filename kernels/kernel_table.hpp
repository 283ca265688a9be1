#pragma once

// What an isa's translation units offer to the rest: one const table of functions.
// This header is read by units of every isa, so it defines no function with external linkage.

#include <cstddef>
#include <cstdint>

#include "formats.hpp"
#include "tile.hpp"

namespace kvlane {

// The unit of work and of merging. Its bounds depend on position alone, so that the bits of a result do too. 512 tokens
// of llama-3-8b in f16 are 256 KB: long against a task's overhead, short enough to share 2048 tokens among 32 workers.
static constexpr int64_t chunk_tokens = KVL_CHUNK_TOKENS;
static_assert(chunk_tokens % panel::tile_tokens == 0);

// A kvl_partial of some rows over one chunk is here (m, l, o), each row of o with room for partial_stride elements.
static inline int64_t partial_stride(uint32_t v_head_dim) { return panel::round_up(v_head_dim, panel::columns); }

// The compute type of products: f32; f32 of integers, whose scales multiply the results; or integers of 16 bits, or of 8.
enum class Numbers { floats, scaled, words, bytes };

struct Query {
    const float *q;    // [n_query_heads, head_dim]
    int64_t position;  // of its token
};

struct KernelTable;
struct ChunkRows;

// One chunk of one KV head, for the query heads that share it, of the newest tokens' queries: n_queries * group rows.
struct AttendChunk {
    const KernelTable *kernels;
    const kvl_view *view;
    uint32_t kv_head;
    int64_t first;          // first token of the view that is in the chunk
    uint32_t run;           // of the view, that holds the first token,
    int64_t run_first;      // and the run's own first token
    int64_t n_tokens;       // up to the last query's, at most chunk_tokens; 0 where there are none
    const Query *queries;   // [n_queries]
    int64_t first_element;  // of this KV head's in each
    int n_queries;
    int group;
    kvl_partial out;
    bool rotates_q;
    Numbers k_numbers;  // where keys are integers,
    Numbers v_numbers;  // and where values are: scaled both or neither
    float scale;
    float softcap;          // 0: none
    const float *slopes;    // [group], a token; null: none
    int64_t position;       // of the first token
    int64_t window;         // tokens up to a query's own that it sees,
    int64_t n_sink_tokens;  // beside the sequence's first ones
    const kvl_mask *mask;   // of the sequence; null: none
    int64_t first_query;    // among the sequence's
    ChunkRows *scratch;
};

// Some of a chunk's rows at a time, [first, first + block.n_rows), and what they need beside their state.
struct ChunkRows {
    const AttendChunk *chunk;
    int first;
    RowBlock block;
    alignas(64) std::byte queries[query_bytes];
    float query_scales[max_rows];
    int32_t query_starts[max_rows];
    float query_factors[max_rows];
    uint64_t visible[max_rows];
    float slopes[max_rows];
    int64_t distances[max_rows];
    const float *biases[max_rows];
    alignas(64) float rotated_query[KVL_MAX_HEAD_DIM + panel::columns];
};

// The partial states of some rows, with o_stride floats from one row of o to the next.
struct PartialRows {
    float *m;
    float *l;
    float *o;
    int64_t o_stride;
};

using ScoreFn = void (*)(const TileSource &, const Queries &, RowBlock &);
using SoftmaxFn = void (*)(const ScoreRules &, RowBlock &);
using SumFn = void (*)(const TileSource &, RowBlock &);
using SumVisibleFn = void (*)(const TileSource &, const uint64_t *visible, RowBlock &);
using PackFn = void (*)(const PackRows &);

// By format and Numbers.
struct ScoreTable {
    ScoreFn of[format::count][4];
};
struct SumTable {
    SumFn of[format::count][4];
    SumVisibleFn of_visible[format::count];
};

struct KernelTable {
    const char *name;
    bool has_byte_products;
    const ScoreTable *scores;
    SoftmaxFn softmax[4];  // by Numbers of values
    const SumTable *sums;
    PackFn pack[format::count][2];  // f32 rows; values, keys
    PackFn unpack[format::count][2];
    void (*attend_chunk)(const AttendChunk &);
    void (*merge)(const PartialRows &into, const PartialRows &from, int n_rows, uint32_t v_head_dim);
    void (*finish_rows)(const PartialRows &, int n_rows, uint32_t v_head_dim, bool is_rotated, float *lse);
};

}  // namespace kvlane

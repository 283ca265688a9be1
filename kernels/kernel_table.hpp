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
};

// Partials of some queries' rows, merged in order, and what is wanted: the output and its lse, or the partial of them all.
struct Merge {
    const kvl_partial *partials;  // [n_partials],
    int64_t stride;               // elements from one to the next
    int64_t n_partials;           // at least 1
    int64_t n_shared;             // the first of them, that have rows of other sequences too,
    int shared_row;               // and these from shared_row on
    int64_t o_stride;             // elements from one row of o to the next
    int n_queries;
    int group;
    uint32_t v_head_dim;
    int64_t query_stride;  // rows from one query's in what is wanted to the next query's
    float *out;            // null: the partial is wanted
    float *lse;            // may be null
    kvl_partial whole;     // rows of o one behind the other
    bool rotates_out;
    const float *sinks;  // [group], logits that join the sums; null: none
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
    void (*merge)(const Merge &);
};

}  // namespace kvlane

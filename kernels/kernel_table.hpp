#pragma once

// What an isa's translation units offer to the rest: one const table of functions.
// This header is read by units of every isa, so it defines no function with external linkage.

#include <cstddef>
#include <cstdint>

#include "cpu.hpp"
#include "formats.hpp"
#include "kvlane/kvlane.h"

namespace kvlane {

// The unit of work and of merging. Its bounds depend on position alone, so that the bits of a result do too. 512 tokens
// of llama-3-8b in f16 are 256 KB: long against a task's overhead, short enough to share 2048 tokens among 32 workers.
static constexpr int64_t chunk_tokens = KVL_CHUNK_TOKENS;

// Tokens of one softmax update.
static constexpr int tile_tokens = 64;

// Rows, of query heads and queries, worked on together: bounds their scores on the stack to 20 KB.
static constexpr int max_tile_rows = 32;

// A kvl_partial of some rows over one chunk is here (m, l, o) with m in units of log2, l the sum of 2^(score - m) and o the
// sum of values weighted so. o has room for partial_stride elements a row; a vector's worth of elements of every row, then
// the next: where one is, is known to the isa alone.
static inline int64_t partial_stride(uint32_t v_head_dim) { return (int64_t{v_head_dim} + 15) / 16 * 16; }

// Of one KV head's query heads, in units of log2.
struct ScoreRules {
    float softcap;        // 0: none
    const float *slopes;  // [group], a token; null: none
};

// What stored rows are multiplied in: f32; f32 too where they are integers, times their scales; or integers of 16 bits or
// of 8.
enum class Numbers { floats, scaled, words, bytes };

struct KernelTable;
struct DotRows;
struct SumRows;
using DotFn = void (*)(const DotRows &);
using SumFn = void (*)(const SumRows &);

struct Query {
    const float *q;    // [n_query_heads, head_dim]
    int64_t position;  // of its token
};

// One chunk of one KV head, for the query heads that share it, of the newest tokens' queries: n_queries * group rows.
struct DecodeChunk {
    const KernelTable *kernels;
    const kvl_view *view;
    uint32_t kv_head;
    int64_t first;          // first token
    uint32_t run;           // of the view, that holds the first token,
    int64_t run_first;      // and the run's own first token
    int64_t n_tokens;       // up to the last query's, at most chunk_tokens; 0 where there are none
    int64_t n_visible;      // of the sequence, from first on
    const Query *queries;   // [n_queries]
    int64_t first_element;  // of this KV head's in each
    int n_queries;
    int group;
    float scale;  // of the scores, into units of log2
    ReadPlan plan;
    kvl_partial out;
    bool rotates_q;
    Numbers k_numbers;  // where keys are integers,
    Numbers v_numbers;  // and where values are: scaled both or neither
    ScoreRules rules;
    int64_t position;       // of the first token,
    int64_t first_visible;  // and of the one from which on queries see all; behind the last where there is none
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
    int64_t n_shared;             // the first of them, that have shared_rows rows, of other sequences too,
    int shared_rows;              // and these from shared_row on
    int shared_row;
    bool is_plain;  // as in kvlane.h, m in natural log, rows of o one behind the other; else as over a chunk
    int n_queries;
    int group;
    uint32_t v_head_dim;
    int64_t query_stride;  // rows from one query's in what is wanted to the next query's
    float *out;            // null: the partial is wanted
    float *lse;            // may be null
    kvl_partial whole;     // plain
    bool rotates_out;
    const float *sinks;  // [group], logits in units of log2 that join the sums; null: none
};

// Rows of dim elements: f32 in memory of the caller's, stored rows in a plane, their scales, if any, in another.
struct CodecRows {
    float *f32;
    std::byte *stored;
    std::byte *entries;
    int64_t f32_stride_bytes;
    int64_t stored_stride_bytes;
    int64_t entry_stride_bytes;
    int64_t n_rows;
    uint32_t dim;
    bool is_rotated;  // as stored
};

// By format and Numbers.
struct DotTable {
    DotFn of[format::count][4];
};
struct SumTable {
    SumFn of[format::count][4];
};

struct KernelTable {
    const char *name;
    uint32_t bytes_from_group[format::count];  // the least group whose queries meet rows as bytes; 0: none
    const DotTable *dot;
    const SumTable *sum;
    void (*encode[format::count])(const CodecRows &);
    void (*decode[format::count])(const CodecRows &);
    void (*decode_chunk)(const DecodeChunk &);
    void (*merge)(const Merge &);
};

}  // namespace kvlane

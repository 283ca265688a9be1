#pragma once

// What an isa's translation unit offers to the rest: one const table of functions.
// This header is read by units of every isa, so it defines no function with external linkage.

#include <cstddef>
#include <cstdint>

#include "cpu.hpp"
#include "formats.hpp"
#include "kvlane/kvlane.h"

namespace kvlane {

// The unit of work and of merging. Its bounds depend on position alone, so that the bits of a result do too. 512 tokens
// of llama-3-8b in f16 are 256 KB: long against a task's overhead, short enough to share 2048 tokens among 32 workers.
static constexpr int64_t chunk_tokens = 512;

// Tokens of one softmax update.
static constexpr int tile_tokens = 64;

// Rows, of query heads and queries, worked on together: bounds their scores on the stack to 20 KB.
static constexpr int max_tile_rows = 32;

// (m, l, o) of some rows over one chunk: m is what the scores are relative to, near their maximum, in units of log2; l
// the sum of 2^(score - m), o the sum of values weighted so. o has room for partial_stride elements a row; a vector's worth
// of elements of every row, then the next: where one is, is known to the isa alone.
struct Partial {
    float *m;
    float *l;
    float *o;
};

static inline int64_t partial_stride(uint32_t v_head_dim) { return (int64_t{v_head_dim} + 15) / 16 * 16; }

// Of one KV head's query heads, in units of log2.
struct ScoreRules {
    float softcap;        // 0: none
    const float *slopes;  // [group], a token; null: none
};

struct KernelTable;
struct DotRows;
struct SumRows;
using DotFn = void (*)(const DotRows &);
using SumFn = void (*)(const SumRows &);

// One chunk of one KV head, for the query heads that share it, of the newest tokens' queries: n_queries * group rows.
struct DecodeChunk {
    const KernelTable *kernels;
    const kvl_view *view;
    uint32_t kv_head;
    int64_t first;      // first token
    int64_t n_tokens;   // that the last query sees, at most chunk_tokens; 0 where there are none
    int64_t n_visible;  // of the sequence, from first on
    const float *q;     // [n_queries] of [group, head_dim],
    int64_t q_stride;   // floats apart
    int n_queries;
    int group;
    float scale;  // of the scores, into units of log2
    ReadPlan plan;
    Partial out;
    bool rotates_q;
    bool fast_keys;    // integers meet those of 8 bits, else of 16
    bool fast_values;  // and these
    ScoreRules rules;
    int64_t distance;  // position of the first token less that of the last query
};

// One KV head's output for some queries: partials [n_chunks] at a constant distance, merged in order.
struct MergeHead {
    Partial first;
    int64_t chunk_stride;  // floats from one chunk's partial to the next
    int64_t n_chunks;      // at least 1
    int n_queries;
    int group;
    uint32_t v_head_dim;
    float *out;          // [n_queries] of [group, v_head_dim],
    int64_t out_stride;  // floats apart
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

struct KernelTable {
    const char *name;
    bool multiplies_bytes;        // in one instruction: else what is fast is what is exact
    DotFn dot[2][format::count];  // exact, fast
    SumFn sum[2][format::count];
    void (*encode[format::count])(const CodecRows &);
    void (*decode[format::count])(const CodecRows &);
    void (*decode_chunk)(const DecodeChunk &);
    void (*merge)(const MergeHead &);
};

}  // namespace kvlane

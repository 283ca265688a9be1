#pragma once

// The interface of an isa's translation units: one const table of functions.
// This header is included by units of every isa, so it defines no function with external linkage.

#include <cstddef>
#include <cstdint>

#include "formats.hpp"
#include "tile.hpp"

namespace kvlane {

// The unit of work and of merging. Its bounds depend only on positions, and so do the bits of a result. 512 tokens of
// llama-3-8b in f16 are 256 KB per KV head: enough to amortize a task's overhead, yet 2048 tokens still occupy 32 workers.
static constexpr int64_t chunk_tokens = KVL_CHUNK_TOKENS;
static_assert(chunk_tokens % panel::tile_tokens == 0);

// In a partial state of query rows over one chunk, (m, l, o), consecutive rows of o are partial_stride elements apart.
static inline int64_t partial_stride(uint32_t v_head_dim) { return panel::round_up(v_head_dim, panel::columns); }

// The compute type of products: f32; f32 of stored integers, with scales applied to the results; 16-bit or 8-bit integers.
enum class ComputeType { f32, dequantized, i16, i8 };

// A query's rows of one KV head's query heads.
struct Query {
    const std::byte *rows;
    int64_t row_stride_bytes;
    kvl_format format;
    int64_t position;
    int64_t end;  // it sees tokens at positions below
};

struct KernelTable;
struct ChunkRows;

// Attention to one chunk of one KV head by the query heads of its group: n_queries * group query rows.
struct AttendChunk {
    const KernelTable *kernels;
    const kvl_view *view;
    uint32_t kv_head;
    int64_t first;         // first token of the view that is in the chunk
    uint32_t run;          // index in the view of the run with the first token,
    int64_t run_first;     // and that run's first token
    int64_t n_tokens;      // up to the last query's token, at most chunk_tokens; may be 0
    const Query *queries;  // [n_queries]
    int n_queries;
    int group;
    kvl_partial out;
    bool rotates_q;
    ComputeType k_type;  // if keys are q8 or q4,
    ComputeType v_type;  // and if values are; both are `dequantized` or neither is
    float scale;
    float softcap;          // 0: none
    const float *slopes;    // [group], per token; null: none
    int64_t position;       // of the first token
    int64_t window;         // tokens visible from `window` - 1 before the query's position on,
    int64_t n_sink_tokens;  // in addition to the sequence's first n_sink_tokens
    const kvl_mask *mask;   // of the sequence; null: none
    int64_t first_query;    // index among the sequence's queries
    uint32_t first_head;    // of the query heads
    ChunkRows *scratch;
};

static constexpr int max_key_groups = KVL_MAX_HEAD_DIM / format::q4::group;

// The query rows of a chunk that are computed together, [first, first + block.n_rows), with their operands and modifiers.
struct ChunkRows {
    const AttendChunk *chunk;
    int first;
    RowBlock block;
    alignas(64) std::byte queries[query_bytes];
    float query_scales[max_rows];
    int32_t query_initial_sums[max_key_groups * max_rows];
    float query_factors[max_rows];
    float offsets[max_rows];  // of scores, from the view's key offset
    uint64_t visible[max_rows];
    float slopes[max_rows];
    int64_t distances[max_rows];
    const float *biases[max_rows];
    alignas(64) float rotated_query[KVL_MAX_HEAD_DIM + panel::columns];
};

// Partial states of query rows; consecutive rows of o are o_stride floats apart.
struct PartialRows {
    float *m;
    float *l;
    float *o;
    int64_t o_stride;
};

// Where finished rows go, in the caller's memory.
struct OutputRows {
    std::byte *out;
    int64_t out_stride_bytes;
    kvl_format format;
    std::byte *lse;  // f32; may be null
    int64_t lse_stride_bytes;
};

using ScoreFn = void (*)(const TileSource &, const LeftOperand &, RowBlock &);
using SoftmaxFn = void (*)(const ScoreMods &, RowBlock &);
using SumFn = void (*)(const TileSource &, RowBlock &);
using SumVisibleFn = void (*)(const TileSource &, const uint64_t *visible, RowBlock &);
using PackFn = void (*)(const PackRows &);

// The two products of attention to a tile whose keys, or values, are of one format.
struct ProductKernels {
    ScoreFn score[4];          // by ComputeType
    SumFn sum[4];              // null for bytes of q8
    SumVisibleFn sum_visible;  // null: the stored elements are integers
};

struct KernelTable {
    const char *name;
    bool has_byte_products;
    const ProductKernels *products[format::count];
    SoftmaxFn softmax[4];           // by ComputeType of values
    PackFn pack[format::count][2];  // values, keys
    PackFn unpack[format::count][2];
    void (*rotate_row)(float *, int dim);                               // in place
    void (*load_row)(kvl_format, const std::byte *, int dim, float *);  // f32, f16 or bf16 to f32, and up to a vector more
    void (*attend_chunk)(const AttendChunk &);
    void (*merge)(const PartialRows &into, const PartialRows &from, int n_rows, uint32_t v_head_dim);
    void (*finish_rows)(const PartialRows &, int n_rows, uint32_t v_head_dim, bool is_rotated, const OutputRows &);
};

}  // namespace kvlane

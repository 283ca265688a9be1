#pragma once

// Parameters and buffers of the tile kernels.
// This header is included by units of every isa, so it defines no function with external linkage.

#include <cstddef>
#include <cstdint>

#include "formats/panel.hpp"
#include "kvlane/kvlane.h"

namespace kvlane {

static constexpr int max_rows = 32;  // (query, query head) pairs that are computed together

// Buffer size for panels packed during a call: at least one panel of the longest keys.
static constexpr int64_t staging_bytes = panel::columns * KVL_MAX_HEAD_DIM * static_cast<int64_t>(sizeof(float));

// Buffer size for the queries of a block of query rows: 16 of latent attention (head_dim 576) in f32.
static constexpr int query_bytes = 16 * 576 * sizeof(float);

// A row of each token of a tile; of those that no row of queries sees, zeros.
struct TileRows {
    const std::byte *of[panel::tile_tokens];
};

// A tile's rows, and the keys of the view's own tokens in the tile after it.
struct SourceRows {
    TileRows keys, values, next_keys;
};

// The 64 tokens of one KV head that begin at token `first` of a view, a multiple of 64.
struct TileSource {
    const kvl_view *view;
    uint32_t kv_head;
    int64_t first;
    uint32_t run;            // index of the view's run with the first token, or an earlier run,
    int64_t run_first;       // and that run's first token
    uint64_t needed;         // bits of the tokens visible to any query row
    const std::byte *tile;   // the stored tile; null if there are rows
    const SourceRows *rows;  // the rows of its tokens, to be packed; null if it is stored
    panel::TileLayout layout;
};

// Queries or weights as the left operand of a product: [n_rows][ld] elements of the compute type of the right one.
struct LeftOperand {
    const void *elements;
    int ld;
    int group;                    // elements that columns have one multiplier for; all, if they have none
    const float *scales;          // of integer elements
    const int32_t *initial_sums;  // [groups][max_rows], initial accumulators
};

// Weights times the multipliers of one group of the columns of values of q4, as operands.
struct GroupWeights {
    static constexpr int row_bytes = panel::tile_tokens * sizeof(float);
    alignas(64) std::byte elements[max_rows][row_bytes];
    float scales[max_rows];          // of integer elements
    int32_t initial_sums[max_rows];  // initial accumulators
};

// The state of a block of query rows, and buffers for one tile.
struct RowBlock {
    int n_rows;
    int n_tokens;  // of the tile that are computed: whole panels up to the last visible token
    int ldo;       // floats from one row of o to the next
    float *o;      // [n_rows][ldo]
    float m[max_rows];
    alignas(64) float l[max_rows][panel::columns];              // one partial sum per lane
    alignas(64) float scores[max_rows][panel::tile_tokens];     // then f32 weights
    alignas(64) int16_t weights[max_rows][panel::tile_tokens];  // quantized, if values are integers,
    float weight_scales[max_rows];                              // and their scales
    GroupWeights group_weights;
    alignas(64) std::byte room[staging_bytes];
};

// Modification of a tile's raw scores S[r][t], which do not include the key scales yet.
struct ScoreMods {
    float scale;
    const float *query_factors;  // [n_rows], powers of two
    const float *offsets;        // [n_rows], added to scaled scores
    float softcap;               // 0: none
    const float *slopes;         // [n_rows], per token; null: none
    const int64_t *distances;    // [n_rows] from the query to the tile's first token
    const float *const *biases;  // [n_rows], each at the tile's first token; null: none
    const float *key_scales;     // of the tile; null: none
    const float *value_scales;   // of the tile; null: none
    const uint64_t *visible;     // [n_rows], one bit per token
};

// Rows [0, n) of one KV head's keys or values, for tokens [first, first + n) of a tile.
struct PackRows {
    const std::byte *rows;
    kvl_format format;  // of the rows: f32, f16 or bf16; f32 of those that are unpacked to
    int64_t stride_bytes;
    int64_t head_stride_bytes;  // to the next KV head's rows
    int n;
    int first;
    int dim;
    bool is_rotated;      // as stored
    const float *offset;  // [dim], subtracted from rows before anything else, and added after it; null: none
    std::byte *panels;
    int64_t panel_bytes;
    std::byte *scales;
};

}  // namespace kvlane

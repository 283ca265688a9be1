#pragma once

// What the kernels of packed tiles are told, and the room that they work in.
// This header is read by units of every isa, so it defines no function with external linkage.

#include <cstddef>
#include <cstdint>

#include "formats/panel.hpp"
#include "kvlane/kvlane.h"

namespace kvlane {

static constexpr int max_rows = 32;  // (query, query head) pairs that are computed together

// Room for panels that are made for a call: for one of the longest keys, at least.
static constexpr int64_t staging_bytes = panel::columns * KVL_MAX_HEAD_DIM * static_cast<int64_t>(sizeof(float));

// Room for the queries of a block of rows: 16 rows of latent attention.
static constexpr int query_bytes = 16 * 576 * sizeof(float);

// 64 tokens of a view from token `first` on, a multiple of 64, of one KV head.
struct TileSource {
    const kvl_view *view;
    uint32_t kv_head;
    int64_t first;
    uint32_t run;           // of the view, that holds the first token or one before it,
    int64_t run_first;      // and the run's own first token
    uint64_t needed;        // a bit each token that any row sees
    const std::byte *tile;  // as it is stored; null: rows, which are packed in this layout
    panel::TileLayout layout;
};

// Queries as operands: [n_rows][ld] elements of the compute type of keys.
struct Queries {
    const void *elements;
    int ld;
    const float *scales;    // of integers
    const int32_t *starts;  // of their sums
};

// The state of a block of rows, and room for what is computed of a tile.
struct RowBlock {
    int n_rows;
    int n_tokens;  // of the tile that are computed: whole panels up to the last token that a row sees
    int ldo;       // floats from one row of o to the next
    float *o;      // [n_rows][ldo]
    float m[max_rows];
    alignas(64) float l[max_rows][panel::columns];                  // lane by lane
    alignas(64) float scores[max_rows][panel::tile_tokens];         // then weights, if values are multiplied as f32
    alignas(64) uint8_t weights[max_rows][2 * panel::tile_tokens];  // else, as operands
    float weight_scales[max_rows];
    int32_t weight_starts[max_rows];
    alignas(64) std::byte room[staging_bytes];
};

// What becomes of raw scores S[r][t], less the keys' scales, of one tile.
struct ScoreRules {
    float scale;
    const float *query_factors;  // [n_rows], powers of two
    float softcap;               // 0: none
    const float *slopes;         // [n_rows], a token; null: none
    const int64_t *distances;    // [n_rows] from the query to the tile's first token
    const float *const *biases;  // [n_rows], each from the tile's first token on; null: none
    const float *key_scales;     // of the tile; null: none
    const float *value_scales;   // of the tile; null: none
    const uint64_t *visible;     // [n_rows], a bit each token
};

// Rows [0, n) of one KV head's keys or values, for tokens [first, first + n) of a tile.
struct PackRows {
    const std::byte *rows;
    int64_t stride_bytes;
    int n;
    int first;
    int dim;
    bool is_rotated;  // as stored
    std::byte *panels;
    int64_t panel_bytes;
    std::byte *scales;
};

}  // namespace kvlane

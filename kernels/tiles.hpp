#pragma once

// Tokens into packed tiles, whoever owns these: the cache's appends and kvl_tiles_write.

#include "kernel_table.hpp"

namespace kvlane {

// A layer as it is in force: v_head_dim and rotations that are not left to defaults.
kvl_layer_desc without_defaults(kvl_layer_desc layer);

// A view of tiles of this layer, none of which is named: geometry, formats and rotations.
kvl_view tiles_of(const kvl_layer_desc &layer);

// Rows [0, n) of keys or of values of one KV head, and their places from token `first` of a tile on; not the rows' address.
PackRows rows_of_tile(const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile, bool keys, int first, int n);

// Packs f32 rows k and v [n, n_kv_heads, dim] as tokens [first, first + n) of a tile of every KV head. tile: that of head 0,
// the others a k_head_stride_bytes apart.
void pack_tokens(const KernelTable &kernels, const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile,
                 int first, int n, const float *k, const float *v);

// Makes a tile of every KV head zero.
void clear_tiles(const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile);

}  // namespace kvlane

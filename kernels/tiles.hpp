#pragma once

// Packing of tokens into tiles, for both cache appends and kvl_tiles_write.

#include "kernel_table.hpp"
#include "strided_rows.hpp"

namespace kvlane {

// The layer with defaults resolved: v_head_dim and rotations.
kvl_layer_desc without_defaults(kvl_layer_desc layer);

// A view of tiles with this layer's geometry, formats and rotations, but without tokens.
kvl_view tiles_of(const kvl_layer_desc &layer);

// Describes the packing of n rows of one KV head's keys or values to tokens from `first` on of its tile. `rows` is not
// set; format and strides are those of f32 rows [n, n_kv_heads, dim].
PackRows rows_of_tile(const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile, uint32_t kv_head, bool keys,
                      int first, int n);

// Packs n rows of k and v as tokens [first, first + n) of a tile of every KV head. `tile` is head 0's; consecutive heads are
// k_head_stride_bytes apart.
void pack_tokens(const KernelTable &kernels, const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile,
                 int first, int n, StridedRows k, StridedRows v);

// Sets one tile of every KV head to zero.
void clear_tiles(const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile);

}  // namespace kvlane

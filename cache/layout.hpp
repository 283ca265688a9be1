#pragma once

// Where a layer's tiles lie in the reservation: [kv_head][tile], then [kv_head][tile] of those that are kept in
// f16. A token has the same tile in both. Tiles of KV heads with a NUMA node of their own begin on pages.

#include <cstdint>

#include "../kernels/formats/panel.hpp"
#include "memory.hpp"

namespace kvlane {

// Tiles of the same formats.
struct PoolLayout {
    panel::TileLayout tile = {};
    int64_t offset = 0;  // from the reservation's start
    int64_t head_stride_bytes = 0;
};

struct LayerLayout {
    PoolLayout pools[2];  // of the layer's formats, and of f16 beside q8 and q4
    int64_t offset = 0;
    int64_t bytes = 0;
};

inline LayerLayout layer_at(int64_t offset, const kvl_layer_desc &layer, int64_t n_tiles, bool has_f16_window) {
    LayerLayout layout;
    const int64_t alignment = layer.numa_nodes ? page_bytes() : panel::part_alignment;
    layout.offset = panel::round_up(offset, alignment);
    int64_t end = layout.offset;
    const auto on_page = [alignment](int64_t bytes) {
        return panel::round_up(bytes, bytes >= huge_page_bytes ? huge_page_bytes : alignment);
    };
    for (const bool is_f16 : {false, true}) {
        PoolLayout &pool = layout.pools[is_f16];
        const auto stored = [&](kvl_format format) { return is_f16 ? format::in_f16_window(format) : format; };
        pool.tile = panel::tile_layout(stored(layer.k_format), layer.head_dim, stored(layer.v_format), layer.v_head_dim);
        pool.offset = end = layout.offset + on_page(end - layout.offset);  // of huge pages only what is not f16
        pool.head_stride_bytes = on_page((is_f16 && !has_f16_window ? 0 : n_tiles) * pool.tile.bytes);
        end += layer.n_kv_heads * pool.head_stride_bytes;
    }
    // The next layer's tiles start on a huge page where this one's do.
    layout.bytes = on_page(end - layout.offset);
    return layout;
}

}  // namespace kvlane

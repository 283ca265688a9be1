#include "tiles.hpp"

#include <algorithm>
#include <cstring>

#include "attention/overlaps.hpp"
#include "attention/validate.hpp"
#include "error.hpp"
#include "registry.hpp"
#include "unroll.hpp"
#include "view.hpp"

namespace kvlane {

kvl_layer_desc without_defaults(kvl_layer_desc layer) {
    layer.v_head_dim = layer.v_head_dim ? layer.v_head_dim : layer.head_dim;
    layer.k_rotation = format::rotation_of(layer.k_rotation, layer.k_format, true);
    layer.v_rotation = format::rotation_of(layer.v_rotation, layer.v_format, false);
    return layer;
}

kvl_view tiles_of(const kvl_layer_desc &layer) {
    kvl_view view = {};
    view.struct_size = sizeof view;
    view.flags = KVL_VIEW_TILES;
    view.n_kv_heads = layer.n_kv_heads;
    view.head_dim = layer.head_dim;
    view.v_head_dim = layer.v_head_dim;
    view.k_format = layer.k_format;
    view.v_format = layer.v_format;
    view.k_rotation = layer.k_rotation;
    view.v_rotation = layer.v_rotation;
    return view;
}

PackRows rows_of_tile(const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile, bool keys, int first, int n) {
    const uint32_t dim = keys ? shape.head_dim : shape.v_head_dim;
    return {.rows = nullptr,
            .stride_bytes = int64_t{shape.n_kv_heads} * dim * static_cast<int64_t>(sizeof(float)),
            .n = n,
            .first = first,
            .dim = static_cast<int>(dim),
            .is_rotated = (keys ? shape.k_rotation : shape.v_rotation) == KVL_ROTATION_HADAMARD,
            .panels = tile + (keys ? 0 : layout.v_panels),
            .panel_bytes = keys ? layout.k_panel_bytes : layout.v_panel_bytes,
            .scales = tile + (keys ? layout.k_scales : layout.v_scales)};
}

// Prefetches the cache lines that a token occupies in a tile of one KV head; a key's column is spread over its whole panel.
static void prefetch_token(const kvl_view &shape, const panel::TileLayout &layout, const std::byte *tile, int token) {
    prefetch_lines(tile + token / panel::columns * layout.k_panel_bytes, layout.k_panel_bytes);
    for (int64_t at = layout.v_panels + panel::offset(shape.v_format, token, 0); at < layout.v_scales;
         at += layout.v_panel_bytes) {
        prefetch_lines(tile + at, cache_line_bytes);
    }
}

// pack_tokens for tokens whose keys are in one panel.
static void pack_panel(const KernelTable &kernels, const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile,
                       int first, int n, const float *k, const float *v) {
    for (uint32_t head = 0; n == 1 && head < shape.n_kv_heads; ++head) {
        prefetch_token(shape, layout, tile + head * shape.k_head_stride_bytes, first);
    }
    for (const bool keys : {true, false}) {
        const PackFn pack = kernels.pack[keys ? shape.k_format : shape.v_format][keys];
        for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
            PackRows rows = rows_of_tile(shape, layout, tile + head * shape.k_head_stride_bytes, keys, first, n);
            rows.rows =
                reinterpret_cast<const std::byte *>((keys ? k : v) + uint64_t{head} * static_cast<uint64_t>(rows.dim));
            pack(rows);
        }
    }
}

void pack_tokens(const KernelTable &kernels, const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile,
                 int first, int n, const float *k, const float *v) {
    // Packs all heads' rows of a panel before the next tokens, so that rows are read in address order.
    for (int end = first + n, next; first < end; first = next) {
        next = std::min(end, static_cast<int>(panel::round_up(first + 1, panel::columns)));
        pack_panel(kernels, shape, layout, tile, first, next - first, k, v);
        k += int64_t{next - first} * shape.n_kv_heads * shape.head_dim;
        v += int64_t{next - first} * shape.n_kv_heads * shape.v_head_dim;
    }
}

void clear_tiles(const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile) {
    for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
        std::memset(tile + head * shape.k_head_stride_bytes, 0, static_cast<size_t>(layout.bytes));
    }
}

namespace {

panel::TileLayout layout_of(const kvl_view &view) {
    return panel::tile_layout(view.k_format, view.head_dim, view.v_format, view.v_head_dim);
}

kvl_status check_tile_layer(const kvl_layer_desc &layer) {
    KVLANE_TRY(check_layer_shape(layer));
    KVLANE_TRY(check_range(layer.n_first_f16, 0, 0, "n_first_f16, of tiles,"));
    return check_range(layer.n_recent_f16, 0, 0, "n_recent_f16, of tiles,");
}

kvl_status check_block_tokens(uint32_t block_tokens) {
    return block_tokens > 0 && block_tokens % panel::tile_tokens == 0
               ? KVL_OK
               : fail(KVL_ERROR_RANGE, "block_tokens is %u; it must be a multiple of %d, and at least that", block_tokens,
                      panel::tile_tokens);
}

kvl_status check_rows(const kvl_view &view, int64_t n_tokens, const float *k, size_t k_len, const float *v, size_t v_len) {
    KVLANE_TRY(check_not_null(k, "k"));
    KVLANE_TRY(check_not_null(v, "v"));
    KVLANE_TRY(check_len(k_len, n_tokens, view.n_kv_heads, view.head_dim, "k_len"));
    KVLANE_TRY(check_len(v_len, n_tokens, view.n_kv_heads, view.v_head_dim, "v_len"));
    return check_write_overlaps(view, k, k_len, v, v_len);
}

// Writes validated tokens and rows.
void write(const KernelTable &kernels, const kvl_view &view, int64_t first, int64_t n_tokens, const float *k,
           const float *v) {
    const panel::TileLayout layout = layout_of(view);
    uint32_t run = 0;
    int64_t in_run = first, n;
    for (int64_t left = n_tokens; left > 0; left -= n, in_run += n) {
        run = run_of(view, run, in_run);
        const Run at = run_at(view, run);
        const int in_tile = static_cast<int>(in_run % panel::tile_tokens);
        n = std::min<int64_t>(left, panel::tile_tokens - in_tile);
        auto *const tile = const_cast<std::byte *>(tile_of(view, *at.span, 0, in_run, at.block));
        if (in_tile == 0) {
            clear_tiles(view, layout, tile);
        }
        pack_tokens(kernels, view, layout, tile, in_tile, static_cast<int>(n), k, v);
        k += n * view.n_kv_heads * view.head_dim;
        v += n * view.n_kv_heads * view.v_head_dim;
    }
}

}  // namespace
}  // namespace kvlane

using namespace kvlane;

kvl_status kvl_tile_layout(const kvl_layer_desc *layer, uint32_t block_tokens, kvl_view *view) {
    KVLANE_TRY(check_not_null(layer, "layer"));
    KVLANE_TRY_IN(check_tile_layer(*layer), "layer: ");
    KVLANE_TRY(check_block_tokens(block_tokens));
    KVLANE_TRY(check_not_null(view, "view"));
    KVLANE_TRY_IN(check_struct_size(view->struct_size, sizeof *view), "view: ");
    *view = tiles_of(without_defaults(*layer));
    view->block_tokens = block_tokens;
    view->k_token_stride_bytes = layout_of(*view).bytes;
    view->k_head_stride_bytes = block_tokens / panel::tile_tokens * view->k_token_stride_bytes;
    view->k_block_stride_bytes = view->n_kv_heads * view->k_head_stride_bytes;
    return KVL_OK;
}

kvl_status kvl_tiles_write(const kvl_view *view, int64_t first, int64_t n_tokens, const float *k, size_t k_len,
                           const float *v, size_t v_len) {
    KVLANE_TRY(check_not_null(view, "view"));
    KVLANE_TRY_IN(check_writable_tiles(*view), "view: ");
    KVLANE_TRY(check_range(first, 0, own_tokens(*view), "first"));
    KVLANE_TRY(check_range(n_tokens, 0, own_tokens(*view) - first, "n_tokens"));
    if (n_tokens == 0) {
        return KVL_OK;
    }
    KVLANE_TRY(check_rows(*view, n_tokens, k, k_len, v, v_len));
    const KernelTable *kernels;
    KVLANE_TRY(kernels_in_force(kernels));
    write(*kernels, *view, first, n_tokens, k, v);
    return KVL_OK;
}

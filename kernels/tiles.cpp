#include "tiles.hpp"

#include <algorithm>
#include <cstring>

#include "attention/overlaps.hpp"
#include "attention/validate.hpp"
#include "descriptor.hpp"
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
    view.k_offset = layer.k_offset;
    return view;
}

PackRows rows_of_tile(const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile, uint32_t kv_head, bool keys,
                      int first, int n) {
    const uint32_t dim = keys ? shape.head_dim : shape.v_head_dim;
    const StridedRows rows = consecutive_rows(nullptr, dim, shape.n_kv_heads);
    return {.rows = nullptr,
            .format = rows.format,
            .stride_bytes = rows.token_stride,
            .head_stride_bytes = rows.head_stride,
            .n = n,
            .first = first,
            .dim = static_cast<int>(dim),
            .is_rotated = (keys ? shape.k_rotation : shape.v_rotation) == KVL_ROTATION_HADAMARD,
            .offset = keys ? k_offset_of(shape, kv_head) : nullptr,
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
                       int first, int n, const StridedRows &k, const StridedRows &v) {
    for (uint32_t head = 0; n == 1 && head < shape.n_kv_heads; ++head) {
        prefetch_token(shape, layout, tile + head * shape.k_head_stride_bytes, first);
    }
    for (const bool keys : {true, false}) {
        const PackFn pack = kernels.pack[keys ? shape.k_format : shape.v_format][keys];
        const StridedRows &from = keys ? k : v;
        for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
            PackRows rows = rows_of_tile(shape, layout, tile + head * shape.k_head_stride_bytes, head, keys, first, n);
            rows.rows = from.at(0, head);
            rows.format = from.format;
            rows.stride_bytes = from.token_stride;
            rows.head_stride_bytes = from.head_stride;
            pack(rows);
        }
    }
}

void pack_tokens(const KernelTable &kernels, const kvl_view &shape, const panel::TileLayout &layout, std::byte *tile,
                 int first, int n, StridedRows k, StridedRows v) {
    // Packs all heads' rows of a panel before the next tokens, so that rows are read in address order.
    for (int end = first + n, next; first < end; first = next) {
        next = std::min(end, static_cast<int>(panel::round_up(first + 1, panel::columns)));
        pack_panel(kernels, shape, layout, tile, first, next - first, k, v);
        k = k.from(next - first);
        v = v.from(next - first);
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

// Rows of keys and values to be written.
struct Rows {
    int64_t n_tokens;
    StridedRows k, v;
};

// Writes validated rows to tokens of one tile of every KV head; a tile whose first token is written is set to zero first.
void write_in_tile(const KernelTable &kernels, const kvl_view &view, const panel::TileLayout &layout, const Run &run,
                   int64_t in_run, int n, const StridedRows &k, const StridedRows &v) {
    auto *const tile = const_cast<std::byte *>(tile_of(view, *run.span, 0, in_run, run.block));
    const int in_tile = static_cast<int>(in_run % panel::tile_tokens);
    if (in_tile == 0) {
        clear_tiles(view, layout, tile);
    }
    pack_tokens(kernels, view, layout, tile, in_tile, n, k, v);
}

// Writes validated rows to the view's tokens from `first` on.
kvl_status write(const kvl_view &view, int64_t first, const Rows &rows) {
    KVLANE_TRY(check_write_overlaps(view, rows.n_tokens, rows.k, rows.v));
    const KernelTable *kernels;
    KVLANE_TRY(kernels_in_force(kernels));
    const panel::TileLayout layout = layout_of(view);
    uint32_t run = 0;
    int64_t in_run = first;
    for (int64_t token = 0, n; token < rows.n_tokens; token += n, in_run += n) {
        run = run_of(view, run, in_run);
        n = std::min(rows.n_tokens - token, panel::tile_tokens - in_run % panel::tile_tokens);
        write_in_tile(*kernels, view, layout, run_at(view, run), in_run, static_cast<int>(n), rows.k.from(token),
                      rows.v.from(token));
    }
    return KVL_OK;
}

kvl_status check_target(const kvl_view *view, int64_t first, int64_t n_tokens) {
    KVLANE_TRY(check_not_null(view, "view"));
    KVLANE_TRY_IN(check_writable_tiles(*view), "view: ");
    KVLANE_TRY(check_range(first, 0, own_tokens(*view), "first"));
    return check_range(n_tokens, 0, own_tokens(*view) - first, "n_tokens");
}

// The number of tokens from i on whose slots follow each other in one tile.
int64_t tokens_in_tile(const int64_t *slots, int64_t i, int64_t n_tokens) {
    int64_t n = 1;
    while (i + n < n_tokens && slots[i + n] == slots[i] + n && slots[i + n] % panel::tile_tokens != 0) {
        ++n;
    }
    return n;
}

kvl_status check_slots(const kvl_view &pool, const int64_t *slots, int64_t n_tokens) {
    KVLANE_TRY(check_not_null(slots, "slots"));
    const int64_t n_slots = pool.spans->n_tokens / pool.block_tokens * pool.block_tokens;
    for (int64_t i = 0; i < n_tokens; ++i) {
        if (slots[i] >= n_slots) {
            return fail(KVL_ERROR_RANGE,
                        "slots[%" PRId64 "] is %" PRId64 "; it must be less than the pool's %" PRId64
                        " tokens, or negative for a token that is not to be written",
                        i, slots[i], n_slots);
        }
    }
    return KVL_OK;
}

}  // namespace
}  // namespace kvlane

using namespace kvlane;

kvl_status kvl_tile_layout(const kvl_layer_desc *layer, uint32_t block_tokens, kvl_view *view) {
    KVLANE_TRY(check_desc(layer, 0, "layer"));
    const kvl_layer_desc desc = read_desc(*layer);
    KVLANE_TRY_IN(check_tile_layer(desc), "layer: ");
    KVLANE_TRY(check_block_tokens(block_tokens));
    KVLANE_TRY(check_not_null(view, "view"));
    kvl_view tiles = tiles_of(without_defaults(desc));
    tiles.block_tokens = block_tokens;
    tiles.k_token_stride_bytes = layout_of(tiles).bytes;
    tiles.k_head_stride_bytes = block_tokens / panel::tile_tokens * tiles.k_token_stride_bytes;
    tiles.k_block_stride_bytes = tiles.n_kv_heads * tiles.k_head_stride_bytes;
    KVLANE_TRY_IN(write_whole_desc(tiles, view), "view: ");
    return KVL_OK;
}

kvl_status kvl_tiles_write(const kvl_view *view, int64_t first, int64_t n_tokens, const float *k, size_t k_len,
                           const float *v, size_t v_len) {
    KVLANE_TRY(check_target(view, first, n_tokens));
    if (n_tokens == 0) {
        return KVL_OK;
    }
    KVLANE_TRY(check_not_null(k, "k"));
    KVLANE_TRY(check_not_null(v, "v"));
    KVLANE_TRY(check_len(k_len, n_tokens, view->n_kv_heads, view->head_dim, "k_len"));
    KVLANE_TRY(check_len(v_len, n_tokens, view->n_kv_heads, view->v_head_dim, "v_len"));
    return write(*view, first,
                 {n_tokens, consecutive_rows(k, view->head_dim, view->n_kv_heads),
                  consecutive_rows(v, view->v_head_dim, view->n_kv_heads)});
}

kvl_status kvl_tiles_write_rows(const kvl_view *view, int64_t first, const kvl_rows *rows) {
    KVLANE_TRY(check_desc(rows, 0, "rows"));
    const kvl_rows from = read_desc(*rows);
    KVLANE_TRY(check_target(view, first, from.n_tokens));
    if (from.n_tokens == 0) {
        return KVL_OK;
    }
    KVLANE_TRY_IN(check_token_rows(from, view->n_kv_heads, view->head_dim, view->v_head_dim), "rows: ");
    return write(
        *view, first,
        {from.n_tokens, k_rows(from, view->n_kv_heads, view->head_dim), v_rows(from, view->n_kv_heads, view->v_head_dim)});
}

kvl_status kvl_tiles_write_slots(const kvl_view *pool, const int64_t *slots, const kvl_rows *rows) {
    KVLANE_TRY(check_not_null(pool, "pool"));
    KVLANE_TRY_IN(check_tile_pool(*pool), "pool: ");
    KVLANE_TRY(check_desc(rows, 0, "rows"));
    const kvl_rows from = read_desc(*rows);
    KVLANE_TRY_IN(check_range(from.n_tokens, 0, KVL_MAX_TOKENS, "n_tokens"), "rows: ");
    if (from.n_tokens == 0) {
        return KVL_OK;
    }
    KVLANE_TRY(check_slots(*pool, slots, from.n_tokens));
    KVLANE_TRY_IN(check_token_rows(from, pool->n_kv_heads, pool->head_dim, pool->v_head_dim), "rows: ");
    const StridedRows k = k_rows(from, pool->n_kv_heads, pool->head_dim);
    const StridedRows v = v_rows(from, pool->n_kv_heads, pool->v_head_dim);
    KVLANE_TRY(check_slot_overlaps(*pool, slots, from.n_tokens, k, v));
    const KernelTable *kernels;
    KVLANE_TRY(kernels_in_force(kernels));
    const panel::TileLayout layout = layout_of(*pool);
    for (int64_t i = 0, n; i < from.n_tokens; i += n) {
        n = slots[i] < 0 ? 1 : tokens_in_tile(slots, i, from.n_tokens);
        if (slots[i] >= 0) {
            const int64_t block = slots[i] / pool->block_tokens;
            write_in_tile(*kernels, *pool, layout, {pool->spans, block, pool->block_tokens}, slots[i] % pool->block_tokens,
                          static_cast<int>(n), k.from(i), v.from(i));
        }
    }
    return KVL_OK;
}

#pragma once

// The planes of a view: rows of keys and rows of values, or tiles of both. Each has its fields of kvl_view and kvl_span.

#include <algorithm>

#include "formats.hpp"
#include "view.hpp"

namespace kvlane {

struct ViewPlane {
    const char *name;
    const char *first_name;
    const void *kvl_span::*first;
    const std::byte *(*row)(const kvl_view &, const kvl_span &, uint32_t kv_head, int64_t token, int64_t block);
    int64_t kvl_view::*token_stride, kvl_view::*head_stride, kvl_view::*block_stride;
    int64_t (*row_bytes)(const kvl_view &);
    int tokens;           // of a record: a row of one token, or a tile
    const char *record;   // in the words of an error
    uintptr_t alignment;  // of records, and of the strides between them
};

inline constexpr ViewPlane k_plane = {"k",
                                      "k",
                                      &kvl_span::k,
                                      k_row,
                                      &kvl_view::k_token_stride_bytes,
                                      &kvl_view::k_head_stride_bytes,
                                      &kvl_view::k_block_stride_bytes,
                                      [](const kvl_view &view) { return format::row_bytes(view.k_format, view.head_dim); },
                                      1,
                                      "row",
                                      1};
inline constexpr ViewPlane v_plane = {"v",
                                      "v",
                                      &kvl_span::v,
                                      v_row,
                                      &kvl_view::v_token_stride_bytes,
                                      &kvl_view::v_head_stride_bytes,
                                      &kvl_view::v_block_stride_bytes,
                                      [](const kvl_view &view) { return format::row_bytes(view.v_format, view.v_head_dim); },
                                      1,
                                      "row",
                                      1};
inline constexpr ViewPlane tile_plane = {
    "k",
    "k",
    &kvl_span::k,
    tile_of,
    &kvl_view::k_token_stride_bytes,
    &kvl_view::k_head_stride_bytes,
    &kvl_view::k_block_stride_bytes,
    [](const kvl_view &view) {
        return panel::tile_layout(view.k_format, view.head_dim, view.v_format, view.v_head_dim).bytes;
    },
    panel::tile_tokens,
    "tile",
    panel::part_alignment};

// body(plane) for every plane that the view has.
template <class Body>
void for_each_plane(const kvl_view &view, Body &&body) {
    if (has_tiles(view)) {
        return body(tile_plane);
    }
    body(k_plane);
    body(v_plane);
}

// The first failure of check(plane) for every plane that the view has.
template <class Check>
kvl_status check_planes(const kvl_view &view, Check &&check) {
    kvl_status status = KVL_OK;
    for_each_plane(view, [&](const ViewPlane &plane) { status = status == KVL_OK ? check(plane) : status; });
    return status;
}

// Whether n_tokens of two runs are the same memory. Strides between what there is one of are not looked at.
inline bool same_rows(const kvl_view &a, const Run &run_of_a, const ViewPlane &plane_of_a, const kvl_view &b,
                      const Run &run_of_b, const ViewPlane &plane_of_b, int64_t n_tokens) {
    return plane_of_a.row(a, *run_of_a.span, 0, 0, run_of_a.block) ==
               plane_of_b.row(b, *run_of_b.span, 0, 0, run_of_b.block) &&
           (n_tokens <= plane_of_a.tokens || a.*plane_of_a.token_stride == b.*plane_of_b.token_stride) &&
           (a.n_kv_heads <= 1 || a.*plane_of_a.head_stride == b.*plane_of_b.head_stride);
}

// Of a view with blocks: those that hold its own tokens, the least of them and the most.
struct Blocks {
    const int32_t *begin, *end;
    int32_t least, most;
};

inline int64_t n_visible_blocks(const kvl_view &view) {
    return (own_tokens(view) + view.block_tokens - 1) / view.block_tokens;
}

inline Blocks visible_blocks(const kvl_view &view) {
    const int64_t n = n_visible_blocks(view);
    Blocks blocks{view.blocks, view.blocks + n, 0, 0};
    if (n > 0) {
        blocks.least = blocks.most = *view.blocks;
    }
    for (const int32_t *block = blocks.begin; block < blocks.end; ++block) {
        blocks.least = std::min(blocks.least, *block);
        blocks.most = std::max(blocks.most, *block);
    }
    return blocks;
}

}  // namespace kvlane

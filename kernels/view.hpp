#pragma once

// Where a view's rows lie: the only place that multiplies strides.
// A view that has a next one holds the first of the tokens only, the other the rest.

#include <cstddef>
#include <cstdint>

#include "formats/panel.hpp"
#include "kvlane/kvlane.h"

namespace kvlane {

static inline const std::byte *k_row(const kvl_view &view, const kvl_span &span, uint32_t kv_head, int64_t token,
                                     int64_t block = 0) {
    return static_cast<const std::byte *>(span.k) + block * view.k_block_stride_bytes + kv_head * view.k_head_stride_bytes +
           token * view.k_token_stride_bytes;
}

static inline const std::byte *v_row(const kvl_view &view, const kvl_span &span, uint32_t kv_head, int64_t token,
                                     int64_t block = 0) {
    return static_cast<const std::byte *>(span.v) + block * view.v_block_stride_bytes + kv_head * view.v_head_stride_bytes +
           token * view.v_token_stride_bytes;
}

static inline bool has_tiles(const kvl_view &view) { return view.flags & KVL_VIEW_TILES; }

// The tile that holds a token.
static inline const std::byte *tile_of(const kvl_view &view, const kvl_span &span, uint32_t kv_head, int64_t token,
                                       int64_t block = 0) {
    return k_row(view, span, kv_head, token / panel::tile_tokens, block);
}

// A straight run of a view's tokens: a span, or a block of its only one.
struct Run {
    const kvl_span *span;
    int64_t block;
    int64_t n_tokens;
};

static inline Run run_at(const kvl_view &view, uint32_t i) {
    return view.block_tokens > 0 ? Run{view.spans, view.blocks[i], view.block_tokens}
                                 : Run{&view.spans[i], 0, view.spans[i].n_tokens};
}

// The run that holds a token, which counts from the start of run i, and then from that of its own.
static inline uint32_t run_of(const kvl_view &view, uint32_t i, int64_t &token) {
    if (view.block_tokens > 0) {
        const auto n_blocks = token < view.block_tokens ? 0 : static_cast<uint32_t>(token / view.block_tokens);
        token -= int64_t{n_blocks} * view.block_tokens;
        return i + n_blocks;
    }
    while (token >= view.spans[i].n_tokens) {
        token -= view.spans[i++].n_tokens;
    }
    return i;
}

// Visible tokens of this view alone.
static inline int64_t own_tokens(const kvl_view &view) { return view.len - (view.next ? view.next->len : 0); }

}  // namespace kvlane

#pragma once

// Addresses of a view's rows, the only place that multiplies strides; and the tokens that each view of a chain holds: from
// its first token to the next view's first token, and n_overlap more.

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

// The key offset of a KV head, null if there is none. Views of version 0.1 lack the field.
static inline const float *k_offset_of(const kvl_view &view, uint32_t kv_head) {
    if (view.struct_size <= offsetof(kvl_view, k_offset)) {
        return nullptr;
    }
    const float *const k_offset = *const_cast<const float *const volatile *>(&view.k_offset);  // not read before the check
    return k_offset ? k_offset + int64_t{kv_head} * view.head_dim : nullptr;
}

// A run of a view's tokens at a constant stride: a span, or a block of the only span.
struct Run {
    const kvl_span *span;
    int64_t block;
    int64_t n_tokens;
};

static inline Run run_at(const kvl_view &view, uint32_t i) {
    return view.block_tokens > 0 ? Run{view.spans, view.blocks[i], view.block_tokens}
                                 : Run{&view.spans[i], 0, view.spans[i].n_tokens};
}

// Returns the run that holds a token. `token` is relative to the start of run i on entry, and to the returned run's on exit.
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

// Number of tokens before the next view's first token.
static inline int64_t tokens_before_next(const kvl_view &view) { return view.len - (view.next ? view.next->len : 0); }

// Number of visible tokens that this view holds, including those that the next view holds too.
static inline int64_t own_tokens(const kvl_view &view) {
    return tokens_before_next(view) + (view.next ? view.next->n_overlap : 0);
}

// Positions [first, end) that a query reads from a view that begins at view_first; the other positions that the view holds
// are read from the previous or the next view.
struct ReadTokens {
    int64_t first;
    int64_t end;
};

// The first position that a query reads from this view instead of the previous one.
static inline int64_t overlap_cut(const kvl_view &view, int64_t view_first, int64_t query_position) {
    const int64_t whole_tiles = (query_position + 1) / panel::tile_tokens * panel::tile_tokens;
    const int64_t most = view_first + view.n_overlap;
    const int64_t cut = whole_tiles - (view.n_overlap > 0 ? view.n_recent : 0);
    return cut < view_first ? view_first : cut > most ? most : cut;
}

static inline ReadTokens read_tokens(const kvl_view &view, int64_t view_first, int64_t query_position) {
    const int64_t next_first = view_first + tokens_before_next(view);
    return {overlap_cut(view, view_first, query_position),
            view.next ? overlap_cut(*view.next, next_first, query_position) : next_first};
}

}  // namespace kvlane

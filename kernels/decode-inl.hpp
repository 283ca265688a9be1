#pragma once

// One chunk of one KV head: tile by tile, the scores of all its rows, the softmax's update, the weighted sum.
//   out = sum over t of 2^(scale * q k[t] - m) v[t], and the (m, l) to merge it by.
// Traffic: every key and value row once, whatever the number of rows.

#include "formats.hpp"
#include "rows-inl.hpp"
#include "softmax-inl.hpp"
#include "view.hpp"

namespace kvlane {

// A place in a view's list of spans.
struct Cursor {
    uint32_t span;
    int64_t token;  // inside the span
};

// Tokens in one straight run.
struct Run {
    StoredRows k;
    StoredRows v;
};

static KVLANE_INLINE Cursor cursor_at(const kvl_view &view, int64_t token) {
    Cursor at{0, token};
    while (at.token >= view.spans[at.span].n_tokens) {
        at.token -= view.spans[at.span++].n_tokens;
    }
    return at;
}

// The run of at most n tokens that starts at the cursor, which moves behind it.
static KVLANE_INLINE Run take_run(const DecodeChunk &c, Cursor &at, int n) {
    while (at.token == c.view->spans[at.span].n_tokens) {
        at = {at.span + 1, 0};
    }
    const kvl_span &span = c.view->spans[at.span];
    const int64_t left = span.n_tokens - at.token;
    const int taken = left < n ? static_cast<int>(left) : n;
    const Run run{{k_row(*c.view, span, c.kv_head, at.token), c.view->k_token_stride_bytes, taken},
                  {v_row(*c.view, span, c.kv_head, at.token), c.view->v_token_stride_bytes, taken}};
    at.token += taken;
    return run;
}

static KVLANE_INLINE int lines_of(int64_t bytes) { return static_cast<int>((bytes + cache_line_bytes - 1) / cache_line_bytes); }

static KVLANE_INLINE Ahead ahead_of(const StoredRows &rows, int lines) {
    return {rows.first, rows.stride_bytes, rows.n, lines};
}

// One tile for rows [row, row + n_rows). `next` is where the tile after it starts.
template <class Isa>
void decode_tile(const DecodeChunk &c, Cursor at, int n_tokens, int n_next, int row, int n_rows) {
    alignas(64) float scores[max_tile_rows * score_stride];
    float rescale[max_tile_rows];
    const kvl_view &view = *c.view;
    const int k_lines = lines_of(format::row_bytes(view.k_format, view.head_dim));
    const int v_lines = lines_of(format::row_bytes(view.v_format, view.v_head_dim));
    Cursor cursor = at;
    for (int t = 0; t < n_tokens;) {
        const Run run = take_run(c, cursor, n_tokens - t);
        c.dot({c.q + int64_t{row} * view.head_dim, n_rows, static_cast<int>(view.head_dim), run.k, ahead_of(run.v, v_lines),
               scores + t});
        t += run.k.n;
    }
    for (int r = 0; r < n_rows; ++r) {
        rescale[r] = softmax_update<Isa>(scores + r * score_stride, n_tokens, c.scale, c.out.m[row + r], c.out.l[row + r]);
    }
    Ahead next{};
    if (n_next > 0) {
        next = ahead_of(take_run(c, cursor, n_next).k, k_lines);
    }
    for (int t = 0; t < n_tokens;) {
        const Run run = take_run(c, at, n_tokens - t);
        c.sum({scores + t, rescale, n_rows, static_cast<int>(view.v_head_dim), run.v, next,
               c.out.o + row * c.out.o_stride, c.out.o_stride});
        for (int r = 0; r < n_rows; ++r) {
            rescale[r] = 1;
        }
        t += run.v.n;
    }
}

template <class Isa>
void decode_chunk(const DecodeChunk &c) {
    for (int r = 0; r < c.group; ++r) {
        c.out.m[r] = minus_infinity;
        c.out.l[r] = 0;
    }
    for (int64_t i = 0; i < c.group * c.out.o_stride; ++i) {
        c.out.o[i] = 0;
    }
    Cursor at = cursor_at(*c.view, c.first);
    for (int64_t t = 0; t < c.n_tokens; t += tile_tokens) {
        const int64_t left = c.n_tokens - t;
        const int n = static_cast<int>(left < tile_tokens ? left : tile_tokens);
        const int n_next = static_cast<int>(left - n < tile_tokens ? left - n : tile_tokens);
        for (int row = 0; row < c.group; row += max_tile_rows) {
            const int n_rows = c.group - row < max_tile_rows ? c.group - row : max_tile_rows;
            decode_tile<Isa>(c, at, n, row == 0 ? n_next : 0, row, n_rows);
        }
        for (int skipped = 0; skipped < n;) {
            skipped += take_run(c, at, n - skipped).k.n;
        }
    }
}

}  // namespace kvlane

#pragma once

// One chunk of one KV head: tile by tile, the scores of its rows, the softmax's update, the weighted sum.
//   out = sum over t of 2^(scale * q k[t] - m) v[t], and the (m, l) to merge it by.
// Traffic: every key and value row once, whatever the number of rows. The keys of a tile and the values of the tile before
// it are worked on in turn.

#include "formats.hpp"
#include "rows-inl.hpp"
#include "softmax-inl.hpp"
#include "view.hpp"

namespace kvlane {

// Tokens of a turn between keys and values. Where rows are read in order, short turns did best, a page of 128 elements in 16
// bits; but not over longer rows.
template <class Isa>
KVLANE_INLINE int turn_tokens(int n_rows, int64_t row_bytes) {
    constexpr int short_turn = 16;
    return n_rows > Isa::rows_in_order || row_bytes > 256 ? tile_tokens : short_turn;
}

// A place in a head's list of spans.
struct Cursor {
    uint32_t kv_head;
    uint32_t span;
    int64_t token;  // inside the span
};

// Tokens in one straight run.
struct Run {
    StoredRows k;
    StoredRows v;
};

static KVLANE_INLINE Cursor cursor_at(const DecodeChunk &c, int64_t token) {
    Cursor at{c.kv_head, 0, token};
    while (at.token >= c.view->spans[at.span].n_tokens) {
        at.token -= c.view->spans[at.span++].n_tokens;
    }
    return at;
}

static KVLANE_INLINE int lines_of(kvl_format format, uint32_t dim) {
    return static_cast<int>((format::row_bytes(format, dim) + cache_line_bytes - 1) / cache_line_bytes);
}

// The run of at most n tokens that starts at the cursor, which moves behind it; empty behind the last span.
static KVLANE_INLINE Run take_run(const DecodeChunk &c, Cursor &at, int n) {
    while (at.span < c.view->n_spans && at.token == c.view->spans[at.span].n_tokens) {
        at = {at.kv_head, at.span + 1, 0};
    }
    if (at.span == c.view->n_spans) {
        return {};
    }
    const kvl_span &span = c.view->spans[at.span];
    const int64_t left = span.n_tokens - at.token;
    const int taken = left < n ? static_cast<int>(left) : n;
    const kvl_view &view = *c.view;
    const Run run{
        {k_row(view, span, at.kv_head, at.token), view.k_token_stride_bytes, taken, lines_of(view.k_format, view.head_dim)},
        {v_row(view, span, at.kv_head, at.token), view.v_token_stride_bytes, taken,
         lines_of(view.v_format, view.v_head_dim)}};
    at.token += taken;
    return run;
}

static KVLANE_INLINE int tokens_left(int64_t n_tokens, int64_t done, int most) {
    const int64_t left = n_tokens - done;
    return left < 0 ? 0 : left < most ? static_cast<int>(left) : most;
}

// One of a chunk's two streams, keys or values: where it is, and a tile further on, what is to be brought near; behind the
// last token that is the next head, whose chunk mostly comes next.
struct Stream {
    Cursor at;
    Cursor ahead;
    int64_t ahead_left;  // visible tokens from there on
};

static KVLANE_INLINE void skip(const DecodeChunk &c, Cursor &at, int n) {
    for (int taken = 0; n > 0; n -= taken) {
        taken = take_run(c, at, n).k.n;
        if (taken == 0) {
            return;
        }
    }
}

// The next run of at most n tokens, and the rows a tile ahead of it.
static KVLANE_INLINE Run next_run(const DecodeChunk &c, Stream &s, int n, Run &ahead) {
    const Run run = take_run(c, s.at, n);
    if (s.ahead_left <= 0 && s.ahead.kv_head + 1 < c.view->n_kv_heads) {
        s.ahead = {s.ahead.kv_head + 1, 0, 0};
        s.ahead_left = c.first + c.n_visible;
    }
    const int n_ahead = tokens_left(s.ahead_left, 0, run.k.n);
    ahead = {};
    if (n_ahead > 0) {
        Cursor peek = s.ahead;
        ahead = take_run(c, peek, n_ahead);
        skip(c, s.ahead, n_ahead);
        s.ahead_left -= n_ahead;
    }
    return run;
}

// Scores of the next n tokens for rows [row, row + n_rows).
static KVLANE_INLINE void score_block(const DecodeChunk &c, Stream &k, int row, int n_rows, int n, float *scores) {
    for (int t = 0; t < n;) {
        Run ahead;
        const Run run = next_run(c, k, n - t, ahead);
        const auto dim = static_cast<int>(c.view->head_dim);
        c.dot({c.q + int64_t{row} * dim, n_rows, dim, run.k, ahead.k, scores + t});
        t += run.k.n;
    }
}

// The weighted sum of the next n tokens. What was summed before is first rescaled, once.
static KVLANE_INLINE void sum_block(const DecodeChunk &c, Stream &v, int row, int n_rows, int n, const float *weights,
                                    float *rescale) {
    for (int t = 0; t < n;) {
        Run ahead;
        const Run run = next_run(c, v, n - t, ahead);
        c.sum({weights + t, rescale, n_rows, static_cast<int>(c.view->v_head_dim), run.v, ahead.v,
               c.out.o + row * c.out.o_stride, c.out.o_stride});
        for (int r = 0; r < n_rows; ++r) {
            rescale[r] = 1;
        }
        t += run.v.n;
    }
}

// All of a chunk's tokens for rows [row, row + n_rows).
template <class Isa>
void decode_rows(const DecodeChunk &c, int row, int n_rows) {
    alignas(64) float scores[2][max_tile_rows * score_stride];
    float rescale[max_tile_rows];
    const int block_tokens = turn_tokens<Isa>(n_rows, format::row_bytes(c.view->k_format, c.view->head_dim));
    Stream k{cursor_at(c, c.first), cursor_at(c, c.first), c.n_visible - tile_tokens};
    skip(c, k.ahead, tokens_left(c.n_visible, 0, tile_tokens));
    Stream v = k;
    int n_weights = 0;
    for (int64_t tile = 0; tile < c.n_tokens + tile_tokens; tile += tile_tokens) {
        float *const new_scores = scores[tile / tile_tokens % 2];
        float *const weights = scores[1 - tile / tile_tokens % 2];
        const int n_scores = tokens_left(c.n_tokens, tile, tile_tokens);
        for (int t = 0; t < tile_tokens; t += block_tokens) {
            score_block(c, k, row, n_rows, tokens_left(n_scores, t, block_tokens), new_scores + t);
            sum_block(c, v, row, n_rows, tokens_left(n_weights, t, block_tokens), weights + t, rescale);
        }
        if (n_scores > 0) {
            softmax_update<Isa>(new_scores, n_rows, n_scores, c.scale, c.out.m + row, c.out.l + row, rescale);
        }
        n_weights = n_scores;
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
    if (c.n_tokens == 0) {
        return;
    }
    for (int row = 0; row < c.group; row += max_tile_rows) {
        decode_rows<Isa>(c, row, c.group - row < max_tile_rows ? c.group - row : max_tile_rows);
    }
}

}  // namespace kvlane

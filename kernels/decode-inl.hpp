#pragma once

// One chunk of one KV head: tile by tile, the scores of its rows, the softmax's update, the weighted sum.
//   out = sum over t of 2^(scale * q k[t] - m) v[t], and the (m, l) to merge it by.
// Traffic: every key and value row once for every max_tile_rows query heads.

#include <algorithm>

#include "formats.hpp"
#include "rows-inl.hpp"
#include "softmax-inl.hpp"
#include "view.hpp"

namespace kvlane {

// One of a chunk's two streams, keys or values, at the next row to be worked on. Spans are walked one by one; in a span,
// rows are a stride apart.
template <bool Keys>
struct Stream {
    const kvl_view *view;
    uint32_t kv_head;
    uint32_t span;         // the next one
    int64_t behind;        // visible tokens behind this span
    const std::byte *row;  // the next row,
    int64_t straight;      // and how many visible ones follow at that distance
    int64_t stride_bytes;
    int64_t rows_ahead;  // that are asked for while a row is worked on
    Prefetch prefetch;
};

template <bool Keys>
KVLANE_INLINE const std::byte *row_at(const kvl_view &view, const kvl_span &span, uint32_t kv_head, int64_t token) {
    return Keys ? k_row(view, span, kv_head, token) : v_row(view, span, kv_head, token);
}

// Goes on in the next span that holds tokens; there must be one.
template <bool Keys>
static void enter_span(Stream<Keys> &s, int64_t token) {
    while (token >= s.view->spans[s.span].n_tokens) {
        token -= s.view->spans[s.span++].n_tokens;
    }
    const kvl_span &span = s.view->spans[s.span++];
    const int64_t in_span = span.n_tokens - token;
    s.row = row_at<Keys>(*s.view, span, s.kv_head, token);
    s.straight = in_span < s.behind ? in_span : s.behind;
    s.behind -= s.straight;
}

template <bool Keys>
static Stream<Keys> stream_of(const DecodeChunk &c) {
    // A near row still has to come from L2, where the CPU's own prefetchers put it; a far one from memory.
    constexpr int64_t near_bytes = 3072, far_bytes = 16384;
    const int64_t stride = Keys ? c.view->k_token_stride_bytes : c.view->v_token_stride_bytes;
    const int64_t row_bytes = Keys ? format::row_bytes(c.view->k_format, c.view->head_dim)
                                   : format::row_bytes(c.view->v_format, c.view->v_head_dim);
    const int64_t bytes_ahead = c.prefetch == Prefetch::near ? near_bytes : far_bytes;
    const int64_t rows_ahead = (bytes_ahead + row_bytes - 1) / row_bytes;
    Stream<Keys> s{c.view, c.kv_head, 0, c.n_visible, nullptr, 0, stride, rows_ahead, c.prefetch};
    if (c.n_visible > 0) {
        enter_span(s, c.first);
    }
    return s;
}

// The next run of at most n rows; there must be one.
template <bool Keys>
KVLANE_INLINE StoredRows next_run(Stream<Keys> &s, int n) {
    if (s.straight == 0) {
        enter_span(s, 0);
    }
    const StoredRows run{s.row, s.stride_bytes, s.straight < n ? static_cast<int>(s.straight) : n};
    s.row += run.n * s.stride_bytes;
    s.straight -= run.n;
    return run;
}

// Where the stream goes on behind this span: in its next one, or in the next head; or nowhere.
template <bool Keys>
static const std::byte *row_behind(const Stream<Keys> &s) {
    Stream<Keys> next = s;
    if (s.behind == 0) {
        if (s.kv_head + 1 == s.view->n_kv_heads) {
            return nullptr;
        }
        next.kv_head = s.kv_head + 1;
        next.span = 0;
        next.behind = 1;
    }
    enter_span(next, 0);
    return next.row;
}

// What is asked for while a run is worked on that the stream has just gone past.
template <bool Keys>
KVLANE_INLINE Ahead ahead_of(const Stream<Keys> &s, const StoredRows &run) {
    if (s.straight >= s.rows_ahead) {
        return {s.prefetch, run.n, s.rows_ahead * s.stride_bytes, 0};
    }
    const int64_t turn = run.n + s.straight - s.rows_ahead;
    const std::byte *behind = row_behind(s);
    return {s.prefetch, static_cast<int>(turn), s.rows_ahead * s.stride_bytes,
            behind ? behind - (run.first + turn * s.stride_bytes) : 0};
}

// work(t, run, ahead) for every run of the stream's next n tokens.
template <bool Keys, class Work>
KVLANE_INLINE void for_each_run(Stream<Keys> &s, int n, Work &&work) {
    for (int t = 0; t < n;) {
        const StoredRows run = next_run(s, n - t);
        work(t, run, ahead_of(s, run));
        t += run.n;
    }
}

// Tokens of a turn between keys and values. The prefetchers of a CPU that is asked for near rows follow both streams at the
// same time where turns are 2 KB of keys; one alone has to start anew whenever its turn comes. Far rows want long turns,
// which cost less, but short ones where rows of at most 256 bytes are read in order.
template <class Isa>
KVLANE_INLINE int turn_tokens(const DecodeChunk &c, int n_rows) {
    const int64_t row_bytes = format::row_bytes(c.view->k_format, c.view->head_dim);
    const bool in_order = n_rows <= Isa::rows_in_order && row_bytes <= 256;
    const int64_t turn_bytes = c.prefetch == Prefetch::near ? 2048 : in_order ? 4096 : 16384;
    const int at_once = dot_tokens<Isa>(n_rows < Isa::max_rows ? n_rows : Isa::max_rows);
    const auto tokens = static_cast<int>(turn_bytes / row_bytes / at_once * at_once);
    return tokens < at_once ? at_once : tokens < tile_tokens ? tokens : tile_tokens;
}

static KVLANE_INLINE int tokens_left(int64_t n_tokens, int64_t done, int most) {
    const int64_t left = n_tokens - done;
    return left < 0 ? 0 : left < most ? static_cast<int>(left) : most;
}

// All of a chunk's tokens for rows [row, row + n_rows). The keys of a tile are scored before the values of the tile before
// it are summed: what waits for scores then waits for none.
template <class Isa>
void decode_rows(const DecodeChunk &c, int row, int n_rows) {
    alignas(64) float scores[2][max_tile_rows * score_stride];
    RowState<Isa> state[max_tile_rows];
    for (int r = 0; r < n_rows; ++r) {
        state[r] = {minus_infinity, Isa::broadcast(0)};
    }
    const auto head_dim = static_cast<int>(c.view->head_dim);
    const auto v_head_dim = static_cast<int>(c.view->v_head_dim);
    float *const o = c.out.o + row * Isa::lanes;
    const int turn = turn_tokens<Isa>(c, n_rows);
    Stream<true> keys = stream_of<true>(c);
    Stream<false> values = stream_of<false>(c);
    float *new_scores = scores[0], *weights = scores[1];
    int n_weights = 0;
    for (int64_t tile = 0; tile < c.n_tokens + tile_tokens; tile += tile_tokens) {
        const int n_scores = tokens_left(c.n_tokens, tile, tile_tokens);
        for (int r = 0; r < n_rows && n_weights > 0; ++r) {
            softmax_row<Isa>(weights + r * score_stride, n_weights, c.scale, state[r], o + r * Isa::lanes, c.group,
                             v_head_dim);
        }
        for (int t = 0; t < std::max(n_scores, n_weights); t += turn) {
            for_each_run(keys, tokens_left(n_scores, t, turn), [&](int i, const StoredRows &k, const Ahead &ahead) {
                c.dot({c.q + int64_t{row} * head_dim, n_rows, head_dim, k, ahead, new_scores + t + i});
            });
            for_each_run(values, tokens_left(n_weights, t, turn), [&](int i, const StoredRows &v, const Ahead &ahead) {
                c.sum({weights + t + i, n_rows, v_head_dim, v, ahead, o, c.group});
            });
        }
        std::swap(new_scores, weights);
        n_weights = n_scores;
    }
    for (int r = 0; r < n_rows; ++r) {
        c.out.m[row + r] = state[r].m;
        c.out.l[row + r] = Isa::reduce_add(state[r].l);
    }
}

template <class Isa>
void decode_chunk(const DecodeChunk &c) {
    for (int64_t i = 0; i < c.group * partial_stride(c.view->v_head_dim); ++i) {
        c.out.o[i] = 0;
    }
    for (int row = 0; row < c.group; row += max_tile_rows) {
        decode_rows<Isa>(c, row, c.group - row < max_tile_rows ? c.group - row : max_tile_rows);
    }
}

}  // namespace kvlane

#pragma once

// The rows that a chunk works on, plane by plane, in runs that lie a stride apart: which are visible, and what is asked for
// meanwhile.

#include <algorithm>
#include <bit>
#include <cstring>

#include "mask.hpp"
#include "rows-inl.hpp"
#include "view.hpp"

namespace kvlane {

enum class Plane { keys, values, key_scales, value_scales };

// Tokens that are looked at to see which of them are hidden: a chunk's, and those that are asked for meanwhile.
static constexpr int64_t known_tokens = 2 * chunk_tokens;

// Which of the tokens up to a query's own it sees.
struct Unmasked {
    const uint64_t *words;  // of the known ones, and a last one of zeros; null: all tokens from the first one on
    int64_t first;          // of the known ones, where others are counted from

    KVLANE_INLINE int64_t end() const { return words ? first + known_tokens : INT64_MAX; }
    KVLANE_INLINE uint64_t word(int64_t token) const {
        if (!words) {
            return ~uint64_t{0};
        }
        const int64_t word = (token - first) / word_tokens, skipped = (token - first) % word_tokens;
        return words[word] >> skipped | (skipped > 0 ? words[word + 1] << (word_tokens - skipped) : 0);
    }
    // The first token from that one on that is visible, or the first that is not; end where there is none before it.
    KVLANE_INLINE int64_t next(bool visible, int64_t token, int64_t end) const {
        for (; words && token < end; token += word_tokens) {
            if (const uint64_t found = visible ? word(token) : ~word(token)) {
                return std::min(end, token + std::countr_zero(found));
            }
        }
        return words ? end : visible ? token : end;
    }
};

// A place in one plane, at a row. Runs of tokens that masks and windows let be seen are walked one by one; in a run, rows
// are a stride apart.
template <Plane P>
struct Cursor {
    const kvl_view *view;
    Unmasked unmasked;   // of the view's tokens
    int64_t head_first;  // of a head's tokens that are visible,
    int64_t end;         // and behind the last
    uint32_t kv_head;
    uint32_t next;         // run in memory,
    int64_t next_first;    // its first token,
    int64_t token;         // and the one behind the straight ones
    const std::byte *row;  // the next row; null: behind the last one,
    int64_t straight;      // and how many visible ones follow at that distance
    int64_t stride_bytes;
};

// What a chunk reads of one plane, and what is asked for meanwhile.
template <Plane P>
struct Stream {
    Cursor<P> read;
    Cursor<P> asked;
    Prefetch into;
    bool in_halves;
};

template <Plane P>
KVLANE_INLINE const std::byte *row_at(const kvl_view &view, const Run &run, uint32_t kv_head, int64_t token) {
    switch (P) {
        case Plane::keys: return k_row(view, *run.span, kv_head, token, run.block);
        case Plane::values: return v_row(view, *run.span, kv_head, token, run.block);
        case Plane::key_scales: return k_scale(view, *run.span, kv_head, token, run.block);
        case Plane::value_scales: return v_scale(view, *run.span, kv_head, token, run.block);
    }
}

template <Plane P>
KVLANE_INLINE int64_t given_stride(const kvl_view &view) {
    switch (P) {
        case Plane::keys: return view.k_token_stride_bytes;
        case Plane::values: return view.v_token_stride_bytes;
        case Plane::key_scales: return view.k_scale_token_stride_bytes;
        case Plane::value_scales: return view.v_scale_token_stride_bytes;
    }
}

// An ignored stride, of a view whose runs have one token each, is unchecked: 0 keeps address arithmetic from overflowing.
template <Plane P>
KVLANE_INLINE int64_t stride_of(const kvl_view &view) {
    const int64_t stride = given_stride<P>(view);
    return stride >= 0 && stride <= KVL_MAX_EXTENT_BYTES ? stride : 0;
}

template <Plane P>
KVLANE_INLINE int64_t row_bytes_of(const kvl_view &view) {
    switch (P) {
        case Plane::keys: return format::row_bytes(view.k_format, view.head_dim);
        case Plane::values: return format::row_bytes(view.v_format, view.v_head_dim);
        case Plane::key_scales: return format::entry_bytes(view.k_format, view.head_dim);
        case Plane::value_scales: return format::entry_bytes(view.v_format, view.v_head_dim);
    }
}

// Goes on to the next run of tokens, in the order of work: behind a head's last visible token comes the next head's first
// one, where it is known whether it is hidden.
template <Plane P>
static void enter_run(Cursor<P> &c) {
    int64_t token = c.unmasked.next(true, c.token, c.end);
    if (token >= c.end) {
        c.next = 0;
        c.next_first = 0;
        const bool is_known = !c.unmasked.words || c.head_first >= c.unmasked.first;
        token = is_known ? c.unmasked.next(true, c.head_first, c.end) : c.end;
        if (token >= c.end || ++c.kv_head >= c.view->n_kv_heads) {
            c.row = nullptr;
            c.stride_bytes = 0;
            c.straight = INT64_MAX;
            return;
        }
    }
    if (token < c.next_first) {
        c.row += (token - c.token) * c.stride_bytes;
    } else {
        int64_t in_run = token - c.next_first;
        c.next = run_of(*c.view, c.next, in_run);
        const Run run = run_at(*c.view, c.next++);
        c.row = row_at<P>(*c.view, run, c.kv_head, in_run);
        c.next_first = token - in_run + run.n_tokens;
    }
    c.token = c.unmasked.next(false, token, std::min(c.next_first, c.end));
    c.straight = c.token - token;
}

// The next run of at most n rows; there must be one.
template <Plane P>
KVLANE_INLINE StoredRows next_run(Cursor<P> &c, int n) {
    if (c.straight == 0) {
        enter_run(c);
    }
    const StoredRows run{c.row, c.stride_bytes, c.straight < n ? static_cast<int>(c.straight) : n};
    c.row += run.n * c.stride_bytes;
    c.straight -= run.n;
    return run;
}

// ahead: rows from the one that is read to the one that is asked for.
template <Plane P>
static Stream<P> stream_of(const DecodeChunk &c, const Unmasked &unmasked, int64_t ahead, Prefetch into,
                           bool in_halves = false) {
    Cursor<P> start{};
    start.view = c.view;
    const int64_t view_first = c.position - c.first;
    start.unmasked = {unmasked.words, unmasked.first - view_first};
    start.head_first = std::max<int64_t>(0, c.first_visible - view_first);
    start.end = std::min(c.first + c.n_visible, start.unmasked.end());
    start.kv_head = c.kv_head;
    start.token = c.first;
    start.next = c.run;
    start.next_first = c.run_first;
    start.stride_bytes = stride_of<P>(*c.view);
    enter_run(start);
    Stream<P> s{start, start, into, in_halves};
    for (int64_t left = std::min(ahead, 2 * start.end); left > 0;) {  // of short heads no more than the next
        left -= next_run(s.asked, static_cast<int>(left)).n;
    }
    return s;
}

// Of rows, which are asked for as far ahead as the CPU wants it.
template <Plane P>
static Stream<P> stream_of(const DecodeChunk &c, const Unmasked &unmasked) {
    const auto row_bytes = static_cast<int>(row_bytes_of<P>(*c.view));
    const bool apart = !packed({nullptr, stride_of<P>(*c.view), 0}, row_bytes);
    return stream_of<P>(c, unmasked, (c.plan.bytes_ahead + row_bytes - 1) / row_bytes,
                        apart ? c.plan.into_apart : c.plan.into, c.plan.in_halves && stride_of<P>(*c.view) == row_bytes);
}

// What is asked for while a run is worked on: the next of as many rows, of which runs behind the second one are left out.
template <Plane P>
KVLANE_INLINE Ahead next_ahead(Stream<P> &s, const StoredRows &run) {
    StoredRows asked = next_run(s.asked, run.n);
    if (!asked.first) {
        return {};
    }
    // Of whole steps of the kernels, and no less than the page that a CPU's prefetchers stay in.
    constexpr int64_t page_bytes = 4096;
    const bool has_halves = run.n % 8 == 0 && run.n * run.stride_bytes >= 2 * page_bytes;
    Ahead ahead{s.into, asked.n, asked.first - run.first, 0, s.in_halves && has_halves && asked.n == run.n};
    for (int t = asked.n; t < run.n; t += asked.n) {
        asked = next_run(s.asked, run.n - t);
        if (t == ahead.turn && asked.first) {
            ahead.behind_turn = asked.first - (run.first + t * run.stride_bytes);
        }
    }
    return ahead;
}

// work(t, run, ahead) for every run of the stream's next n tokens.
template <Plane P, class Work>
KVLANE_INLINE void for_each_run(Stream<P> &s, int n, Work &&work) {
    for (int t = 0; t < n;) {
        const StoredRows run = next_run(s.read, n - t);
        work(t, run, next_ahead(s, run));
        t += run.n;
    }
}

// Asks for the scales of the next tile.
template <Plane P>
KVLANE_INLINE void ask_for_scales(Stream<P> &s) {
    for (int t = 0; t < tile_tokens;) {
        const StoredRows run = next_run(s.asked, tile_tokens - t);
        const int64_t bytes = run.n * (run.stride_bytes < cache_line_bytes ? run.stride_bytes : 0);
        for (int64_t i = 0; i < bytes; i += cache_line_bytes) {
            prefetch<1>(run.first + i, s.into);
        }
        t += run.n;
    }
}

// Bytes bytes of every row, one behind the other.
template <int Bytes>
KVLANE_INLINE void copy_from_rows(const StoredRows &rows, void *to) {
    if (rows.stride_bytes == Bytes) {
        std::memcpy(to, rows.first, static_cast<size_t>(rows.n) * Bytes);
        return;
    }
    auto *at = static_cast<std::byte *>(to);
    const std::byte *row = rows.first;
    int i = 0;
    if (rows.stride_bytes == 2 * Bytes) {  // as entries of q4 lie up to head_dim 128: compilers make vectors of a constant
        for (; i < rows.n; ++i) {
            std::memcpy(at + i * Bytes, row + i * 2 * Bytes, Bytes);
        }
        return;
    }
    for (; i + 8 <= rows.n; i += 8, row += 8 * rows.stride_bytes, at += 8 * Bytes) {
        unroll<8>([&](auto j)
                      __attribute__((always_inline)) { std::memcpy(at + j * Bytes, row + j * rows.stride_bytes, Bytes); });
    }
    for (; i < rows.n; ++i, row += rows.stride_bytes, at += Bytes) {
        std::memcpy(at, row, Bytes);
    }
}

// The scales of the next n tokens, one behind the other, and zeros up to a whole vector.
template <class Isa, Plane P>
KVLANE_INLINE void next_scales(Stream<P> &s, int n, float *scales) {
    for (int t = 0; t < n;) {
        const StoredRows run = next_run(s.read, n - t);
        copy_from_rows<sizeof(float)>(run, scales + t);
        t += run.n;
    }
    std::fill_n(scales + n, Isa::lanes, 0.0f);
    ask_for_scales(s);
}

}  // namespace kvlane

#pragma once

// What the kernels over stored rows share.

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernel_table.hpp"

#define KVLANE_INLINE inline __attribute__((always_inline))

namespace kvlane {

// A run of stored rows of dim elements.
struct StoredRows {
    const std::byte *first;
    int64_t stride_bytes;
    int n;
};

// Rows that are needed next, brought to L1 while others are worked on: the other stream's memory latency hides behind
// this one's arithmetic.
struct Ahead {
    const std::byte *first;
    int64_t stride_bytes;
    int n;
    int lines;  // cache lines of one row
};

// scores[r][t] = q[r] . k[t]
struct DotRows {
    const float *q;  // [n_rows, head_dim]
    int n_rows;
    int head_dim;
    StoredRows k;
    Ahead ahead;
    float *scores;  // rows score_stride apart
};

// o[r] = rescale[r] * o[r] + sum over t of p[r][t] * v[t]
struct SumRows {
    const float *p;  // rows score_stride apart
    const float *rescale;
    int n_rows;
    int v_head_dim;
    StoredRows v;
    Ahead ahead;
    float *o;
    int64_t o_stride;
};

static constexpr int cache_line_bytes = 64;

// A group of tokens at a tile's end is scored whole: room for what overhangs.
static constexpr int score_stride = tile_tokens + 16;

// body(0), …, body(N - 1), each with its number as a constant, so that arrays it indexes live in registers.
template <int N, class Body>
KVLANE_INLINE void unroll(Body &&body) {
    [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
        (body(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

static constexpr int ceil_power_of_two(int n) { return n <= 1 ? 1 : 2 * ceil_power_of_two((n + 1) / 2); }

// Brings lines [first_line, first_line + n_lines) of row `row` to L1.
static KVLANE_INLINE void prefetch(const Ahead &ahead, int row, int first_line, int n_lines) {
    const std::byte *p = ahead.first + row * ahead.stride_bytes + first_line * cache_line_bytes;
    for (int i = 0; i < n_lines; ++i) {
        __builtin_prefetch(p + i * cache_line_bytes, 0, 3);
    }
}

}  // namespace kvlane

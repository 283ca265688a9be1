#pragma once

// What the kernels over stored rows share.

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernel_table.hpp"

#define KVLANE_INLINE inline __attribute__((always_inline))

namespace kvlane {

// A run of stored rows.
struct StoredRows {
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
    StoredRows ahead;  // to be brought near meanwhile
    float *scores;     // rows score_stride apart
};

// o[r] = rescale[r] * o[r] + sum over t of p[r][t] * v[t]
struct SumRows {
    const float *p;  // rows score_stride apart
    const float *rescale;
    int n_rows;
    int v_head_dim;
    StoredRows v;
    StoredRows ahead;  // to be brought near meanwhile
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
    }
    (std::make_integer_sequence<int, N>{});
}

static constexpr int ceil_power_of_two(int n) { return n <= 1 ? 1 : 2 * ceil_power_of_two((n + 1) / 2); }

// Goes over the lines of rows ahead in order of address, a few at every step of a kernel: even spacing keeps the memory
// busy without holding up the kernel's own loads.
struct Prefetcher {
    const std::byte *line;
    const std::byte *end;
    int per_step;
};

// Into L2: more can be under way there than to L1, and a tile ahead has time to come.
static KVLANE_INLINE void prefetch(const std::byte *line) { __builtin_prefetch(line, 0, 2); }

// Rows with gaps between them are asked for at once: to step over gaps would cost every kernel its registers.
static KVLANE_INLINE Prefetcher prefetcher_of(const StoredRows &ahead, int n_steps) {
    if (n_steps <= 0 || ahead.n == 0) {
        return {};
    }
    if (ahead.stride_bytes > int64_t{ahead.lines} * cache_line_bytes) {
        for (int row = 0; row < ahead.n; ++row) {
            for (int line = 0; line < ahead.lines; ++line) {
                prefetch(ahead.first + row * ahead.stride_bytes + line * cache_line_bytes);
            }
        }
        return {};
    }
    const int64_t bytes = ahead.n * ahead.stride_bytes;
    const int64_t bytes_of_steps = int64_t{n_steps} * cache_line_bytes;
    return {ahead.first, ahead.first + bytes, static_cast<int>((bytes + bytes_of_steps - 1) / bytes_of_steps)};
}

// The last step may go past the end, by less than a step.
static KVLANE_INLINE void prefetch_step(Prefetcher &p) {
    if (p.line < p.end) {
        for (int i = 0; i < p.per_step; ++i) {
            prefetch(p.line);
            p.line += cache_line_bytes;
        }
    }
}

}  // namespace kvlane

#pragma once

// Loops with a constant number of steps, and prefetches. This header is read by units of every isa, so all of it is inlined.

#include <cstddef>
#include <cstdint>
#include <utility>

#define KVLANE_INLINE inline __attribute__((always_inline))

namespace kvlane {

// body(0), …, body(N - 1), each with its number as a constant, so that arrays it indexes live in registers.
template <int N, class Body>
KVLANE_INLINE void unroll(Body &&body) {
    [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
        (body(std::integral_constant<int, I>{}), ...);
    }
    (std::make_integer_sequence<int, N>{});
}

// body(as a constant) for n, where it is at most N.
template <int N, class Body>
KVLANE_INLINE void with_constant(int n, Body &&body) {
    if constexpr (N > 1) {
        if (n < N) {
            return with_constant<N - 1>(n, body);
        }
    }
    body(std::integral_constant<int, N>{});
}

static constexpr int64_t cache_line_bytes = 64;

// Prefetches the lines of memory from `first` on. Without the statement g++ takes functions that do nothing but prefetch for
// ones without effect, and drops calls of them.
KVLANE_INLINE void prefetch_lines(const std::byte *first, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += cache_line_bytes) {
        __builtin_prefetch(first + at);
        asm volatile("");
    }
}

}  // namespace kvlane

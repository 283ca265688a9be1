#pragma once

// Loops with a constant number of steps, and prefetches. This header is included by every isa's units, so all is inlined.

#include <cstddef>
#include <cstdint>
#include <utility>

#define KVLANE_INLINE inline __attribute__((always_inline))

namespace kvlane {

// Calls body(0), …, body(N - 1) with constant arguments, so that arrays indexed by them stay in registers.
template <int N, class Body>
KVLANE_INLINE constexpr void unroll(Body &&body) {
    [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
        (body(std::integral_constant<int, I>{}), ...);
    }
    (std::make_integer_sequence<int, N>{});
}

// Calls body with n as a constant; 1 <= n <= N.
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

// Prefetches the cache lines from `first` on. Without the asm statement, g++ treats functions that only prefetch as having
// no effect and removes calls to them.
KVLANE_INLINE void prefetch_lines(const std::byte *first, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += cache_line_bytes) {
        __builtin_prefetch(first + at);
        asm volatile("");
    }
}

}  // namespace kvlane

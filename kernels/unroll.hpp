#pragma once

// Loops with a constant number of steps, and prefetches. This header is read by units of every isa, so all of it is inlined.

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

// Without the statement g++ takes functions that do nothing but prefetch for ones without effect, and drops calls of them.
KVLANE_INLINE void prefetch_line(const void *line) {
    __builtin_prefetch(line);
    asm volatile("");
}

}  // namespace kvlane

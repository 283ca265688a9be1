#pragma once

// The rotation that spreads a row's outliers over its elements: Walsh-Hadamard matrices whose sizes are powers of two, 128 =
// 128 or 80 = 64 + 16, each divided by the root of its size. It preserves dot products and is its own inverse.
//   S. Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs" (2024)

#include <array>
#include <cmath>

#include "rows-inl.hpp"

namespace kvlane {

// 1 in lanes whose index has bit Step clear, else -1.
template <class Isa, int Step>
static constexpr auto butterfly_signs = [] {
    std::array<float, Isa::lanes> signs{};
    for (int i = 0; i < Isa::lanes; ++i) {
        signs[i] = i & Step ? -1.0f : 1.0f;
    }
    return signs;
}();

// Butterflies within a vector: lanes i, with bit Step clear, and i + Step become their sum and difference.
template <class Isa, int Step = 1>
KVLANE_INLINE typename Isa::Vec butterflies(typename Isa::Vec x) {
    if constexpr (Step < Isa::lanes) {
        const auto signs = Isa::load(butterfly_signs<Isa, Step>.data());
        return butterflies<Isa, 2 * Step>(Isa::fma(x, signs, Isa::template swap_lanes<Step>(x)));
    } else {
        return x;
    }
}

// Butterflies across N vectors in registers, in steps of vectors.
template <class Isa, int N, int Step = 1>
KVLANE_INLINE void butterflies_across(typename Isa::Vec (&x)[N]) {
    if constexpr (Step < N) {
        unroll<N>([&](auto i) __attribute__((always_inline)) {
            if constexpr ((i & Step) == 0) {
                const auto a = x[i], b = x[i + Step];
                x[i] = a + b;
                x[i + Step] = a - b;
            }
        });
        butterflies_across<Isa, N, 2 * Step>(x);
    }
}

// Rotates n elements in independent blocks of N vectors.
template <class Isa, int N>
KVLANE_INLINE void rotate_blocks(float *x, int n, float scale) {
    for (float *end = x + n; x < end; x += N * Isa::lanes) {
        typename Isa::Vec block[N];
        unroll<N>([&](auto i) __attribute__((always_inline)) {
            block[i] = butterflies<Isa>(Isa::load(x + i * Isa::lanes) * Isa::broadcast(scale));
        });
        butterflies_across<Isa>(block);
        unroll<N>([&](auto i) __attribute__((always_inline)) { Isa::store(x + i * Isa::lanes, block[i]); });
    }
}

// Rotates n elements; n is a power of two and at least one vector.
template <class Isa>
KVLANE_INLINE void rotate_vectors(float *x, int n, float scale) {
    constexpr int lanes = Isa::lanes, most = 8;
    switch (n / lanes) {
        case 1: return rotate_blocks<Isa, 1>(x, n, scale);
        case 2: return rotate_blocks<Isa, 2>(x, n, scale);
        case 4: return rotate_blocks<Isa, 4>(x, n, scale);
        default: rotate_blocks<Isa, most>(x, n, scale);
    }
    for (int step = most * lanes; step < n; step *= 2) {
        for (int i = 0; i < n; i += 2 * step) {
            for (int j = i; j < i + step; j += lanes) {
                const auto a = Isa::load(x + j), b = Isa::load(x + j + step);
                Isa::store(x + j, a + b);
                Isa::store(x + j + step, a - b);
            }
        }
    }
}

// Rotates n elements; n is a power of two and less than one vector.
template <class Isa>
KVLANE_INLINE void rotate_few(float *x, int n, float scale) {
    for (int i = 0; i < n; ++i) {
        x[i] *= scale;
    }
    for (int step = 1; step < n; step *= 2) {
        for (int i = 0; i < n; ++i) {
            if ((i & step) == 0) {
                const float a = x[i], b = x[i + step];
                x[i] = a + b;
                x[i + step] = a - b;
            }
        }
    }
}

// Rotates a row in place.
template <class Isa>
static void rotate_row(float *x, int dim) {
    for (int size = KVL_MAX_HEAD_DIM; dim > 0; size /= 2) {
        if (size > dim) {
            continue;
        }
        const float scale = 1 / std::sqrt(static_cast<float>(size));
        if (size >= Isa::lanes) {
            rotate_vectors<Isa>(x, size, scale);
        } else {
            rotate_few<Isa>(x, size, scale);
        }
        x += size;
        dim -= size;
    }
}

}  // namespace kvlane

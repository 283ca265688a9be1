#pragma once

// The rotation that spreads a row's outliers over its elements: Walsh-Hadamard matrices of powers of two, 128 = 128 or
// 80 = 64 + 16, each over the root of its size. It keeps dot products, and is its own inverse.
//   S. Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs" (2024)

#include <array>
#include <cmath>

#include "rows-inl.hpp"

namespace kvlane {

// 1 where a lane's bit of Step is 0, else -1.
template <class Isa, int Step>
static constexpr auto butterfly_signs = [] {
    std::array<float, Isa::lanes> signs{};
    for (int i = 0; i < Isa::lanes; ++i) {
        signs[i] = i & Step ? -1.0f : 1.0f;
    }
    return signs;
}();

// In a vector: every lane i whose bit of Step is 0, and i + Step, become their sum and their difference.
template <class Isa, int Step = 1>
KVLANE_INLINE typename Isa::Vec butterflies(typename Isa::Vec x) {
    if constexpr (Step < Isa::lanes) {
        const auto signs = Isa::load(butterfly_signs<Isa, Step>.data());
        return butterflies<Isa, 2 * Step>(Isa::fma(x, signs, Isa::template swap_lanes<Step>(x)));
    } else {
        return x;
    }
}

// n, a power of two, elements of whole vectors.
template <class Isa>
KVLANE_INLINE void rotate_vectors(float *x, int n, float scale) {
    constexpr int lanes = Isa::lanes;
    for (int i = 0; i < n; i += lanes) {
        Isa::store(x + i, butterflies<Isa>(Isa::load(x + i) * Isa::broadcast(scale)));
    }
    for (int step = lanes; step < n; step *= 2) {
        for (int i = 0; i < n; i += 2 * step) {
            for (int j = i; j < i + step; j += lanes) {
                const auto a = Isa::load(x + j), b = Isa::load(x + j + step);
                Isa::store(x + j, a + b);
                Isa::store(x + j + step, a - b);
            }
        }
    }
}

// n, a power of two, elements: fewer than a vector's.
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

// A row in place.
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

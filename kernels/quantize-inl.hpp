#pragma once

// Quantization of f32 rows to integers with one scale.

#include <algorithm>
#include <cmath>
#include <limits>

#include "rows-inl.hpp"

namespace kvlane {

// Calls take(v) for n f32 elements, vector by vector, padded with zeros.
template <class Isa, class Take>
KVLANE_INLINE void for_each_vector(const std::byte *x, int n, Take &&take) {
    int i = 0;
    for (; i + Isa::lanes <= n; i += Isa::lanes) {
        take(Isa::load(format::f32{}, x + i * sizeof(float)));
    }
    if (i < n) {
        take(Isa::load_partial(format::f32{}, x + i * sizeof(float), n - i));
    }
}

template <class Isa>
KVLANE_INLINE typename Isa::Vec magnitude(typename Isa::Vec x) {
    return Isa::max(x, Isa::broadcast(0) - x);
}

// The largest magnitude of n elements; NaN if any is NaN or infinite.
template <class Isa>
KVLANE_INLINE float largest_of(const std::byte *x, int n) {
    using Vec = typename Isa::Vec;
    const Vec zero = Isa::broadcast(0);
    Vec largest = zero, not_a_number = zero;
    for_each_vector<Isa>(
        x, n, [&](Vec v) __attribute__((always_inline)) {
            largest = Isa::max(largest, magnitude<Isa>(v));
            not_a_number = Isa::fma(v, zero, not_a_number);
        });
    return Isa::reduce_add(not_a_number) == 0 ? Isa::reduce_max(largest) : std::numeric_limits<float>::quiet_NaN();
}

// The scale that maps the integer `most` to the magnitude `largest`; 0 if it would not be a normal number.
static KVLANE_INLINE float scale_for(float largest, float most) {
    const float scale = largest / most;
    return scale < std::numeric_limits<float>::min() ? 0 : scale;
}

static constexpr float most_int8 = 127;

// The largest 16-bit query or weight. Its products with stored integers are summed without rounding.
static constexpr float most_int16 = 32767;

// x[i] = scale * to[i], where the scale is a power of two and the largest to[i] has a magnitude in [1, 2), or less if all x
// are 0 or denormal. Otherwise, sums of products with stored integers could leave f32's range before their scales apply.
template <class Isa>
static float normalize(const float *x, int n, float *to) {
    const float largest = largest_of<Isa>(reinterpret_cast<const std::byte *>(x), n);
    int exponent = 0;
    if (largest > 0) {  // and not NaN
        std::frexp(largest, &exponent);
    }
    exponent = std::max(exponent - 1, std::numeric_limits<float>::min_exponent - 1);
    const float inverse = std::ldexp(1.0f, -exponent);
    for (int i = 0; i < n; ++i) {
        to[i] = x[i] * inverse;
    }
    return std::ldexp(1.0f, exponent);
}

// The number of largest products of a 16-bit query or weight and a stored 8-bit integer whose sum fits into 32 bits.
static constexpr int products_in_32_bits = 512;

// The sum of part * |x[i]| over n elements.
template <class Isa>
KVLANE_INLINE float sum_of_magnitudes(const std::byte *x, int n, float part) {
    const auto factor = Isa::broadcast(part);
    auto sum = Isa::broadcast(0);
    for_each_vector<Isa>(
        x, n, [&](typename Isa::Vec v) __attribute__((always_inline)) { sum = Isa::fma(magnitude<Isa>(v), factor, sum); });
    return Isa::reduce_add(sum);
}

// Quantizes x to int16 or int8: x[i] ~ scale * to[i]; returns the scale. Sums of n_terms products of to[i] and 8-bit
// integers fit into 32 bits. The buffer `to` extends at least one vector beyond its n elements.
template <class Isa, class Integer>
KVLANE_INLINE float quantize(const float *x, int n, int n_terms, Integer *to) {
    constexpr bool is_wide = sizeof(Integer) > 1;
    const auto *from = reinterpret_cast<const std::byte *>(x);
    float largest = largest_of<Isa>(from, n);
    if (is_wide && n_terms > products_in_32_bits) {  // - 1: headroom for rounding
        largest = std::max(largest, sum_of_magnitudes<Isa>(from, n, 1.0f / (products_in_32_bits - 1)));
    }
    const float scale = scale_for(largest, is_wide ? most_int16 : most_int8);
    const auto factor = Isa::broadcast(scale == 0 ? 0 : 1 / scale);
    for (int i = 0; i < n; i += Isa::lanes) {
        const auto v =
            i + Isa::lanes <= n ? Isa::load(x + i) : Isa::load_partial(format::f32{}, from + i * sizeof(float), n - i);
        if constexpr (is_wide) {
            Isa::store_int16s(to + i, v * factor);
        } else {
            Isa::store(format::q8{}, reinterpret_cast<std::byte *>(to + i), v * factor);
        }
    }
    return scale;
}

}  // namespace kvlane

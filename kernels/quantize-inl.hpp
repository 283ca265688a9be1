#pragma once

// f32 rows as integers times one scale.

#include <algorithm>
#include <cmath>
#include <limits>

#include "rows-inl.hpp"

namespace kvlane {

// take(v) for n elements of f32, vector by vector, with zeros behind the last.
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

// The largest magnitude of n elements; NaN where one is NaN or infinite.
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

// What integers up to `most` are to be multiplied by, to reach the largest magnitude; 0 where that would be no normal
// number.
static KVLANE_INLINE float scale_for(float largest, float most) {
    const float scale = largest / most;
    return scale < std::numeric_limits<float>::min() ? 0 : scale;
}

static constexpr float most_int8 = 127;

// Queries and weights that meet stored integers have 16 bits: their products are summed without rounding.
static constexpr float most_int16 = 32767;

// x[i] = scale * to[i], none of which is larger than 2 but where all are denormal; the scale is a power of two. What stored
// integers are summed up to may else not be within f32's range before it is multiplied by their scales.
template <class Isa>
static float normalize(const float *x, int n, float *to) {
    const float largest = largest_of<Isa>(reinterpret_cast<const std::byte *>(x), n);
    int exponent = 0;
    if (largest > 0) {  // and no NaN
        std::frexp(largest, &exponent);
    }
    exponent = std::max(exponent - 1, std::numeric_limits<float>::min_exponent - 1);
    const float inverse = std::ldexp(1.0f, -exponent);
    for (int i = 0; i < n; ++i) {
        to[i] = x[i] * inverse;
    }
    return std::ldexp(1.0f, exponent);
}

// So many of the largest products of a query or weight by a stored integer sum up within 32 bits.
static constexpr int products_in_32_bits = 512;

// The sum of the magnitudes of n elements, of each this part of it.
template <class Isa>
KVLANE_INLINE float sum_of_magnitudes(const std::byte *x, int n, float part) {
    const auto factor = Isa::broadcast(part);
    auto sum = Isa::broadcast(0);
    for_each_vector<Isa>(
        x, n, [&](typename Isa::Vec v) __attribute__((always_inline)) { sum = Isa::fma(magnitude<Isa>(v), factor, sum); });
    return Isa::reduce_add(sum);
}

// x[i] = scale * to[i], so small that sums of n products with 8 bits fit into 32; returns the scale. Room for a whole vector
// follows `to`.
template <class Isa, class Integer>
KVLANE_INLINE float quantize(const float *x, int n, Integer *to) {
    constexpr bool is_wide = sizeof(Integer) > 1;
    const auto *from = reinterpret_cast<const std::byte *>(x);
    float largest = largest_of<Isa>(from, n);
    if (is_wide && n > products_in_32_bits) {  // one less of them makes room for what rounding adds
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

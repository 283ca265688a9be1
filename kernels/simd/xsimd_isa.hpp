#pragma once

// Common code of the isas that use xsimd. Supports xsimd from 8.1 up to the newest version, which renamed some functions.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <xsimd/xsimd.hpp>

#include "../formats.hpp"
#include "../unroll.hpp"

namespace kvlane::isa {

// Self is the isa's own type: it puts the isa's name into every symbol, so that no other isa's unit can link to it.
template <class Self, class Arch>
struct XsimdIsa {
    using Vec = xsimd::batch<float, Arch>;
    static constexpr int lanes = static_cast<int>(Vec::size);

    static Vec broadcast(float x) { return Vec(x); }
    static Vec load(const float *p) { return Vec::load_unaligned(p); }
    static void store(float *p, Vec x) { x.store_unaligned(p); }
    static Vec fma(Vec a, Vec b, Vec c) { return xsimd::fma(a, b, c); }
    static Vec divide(Vec a, Vec b) { return a / b; }
    // On x86, returns the second operand if either is NaN.
    static Vec max(Vec a, Vec b) { return xsimd::max(a, b); }
    static Vec min(Vec a, Vec b) { return xsimd::min(a, b); }
    // Lane i is i.
    static Vec lane_numbers() {
        alignas(64) static constexpr float number[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        static_assert(lanes <= static_cast<int>(std::size(number)));
        return load(number);
    }
    static Vec round(Vec x) { return xsimd::nearbyint(x); }

    // x * 2^n for integer n in [zero_power, 127]; 2^zero_power is treated as 0.
    static constexpr float zero_power = -127;
    static Vec scale_by_power(Vec x, Vec n) { return xsimd::ldexp(x, xsimd::to_int(n)); }

#if XSIMD_VERSION_MAJOR >= 9
    static float reduce_add(Vec x) { return xsimd::reduce_add(x); }
#else
    static float reduce_add(Vec x) { return xsimd::hadd(x); }
#endif

    static Vec load(format::f32, const std::byte *p) { return load(reinterpret_cast<const float *>(p)); }
    static void store(format::f32, std::byte *p, Vec x) { store(reinterpret_cast<float *>(p), x); }

    // Loads the first n < lanes elements, then zeros; reads nothing past them.
    template <class Format>
    static Vec load_partial(Format format, const std::byte *p, int n) {
        std::byte row[lanes * Format::bytes] = {};
        std::memcpy(row, p, static_cast<size_t>(n) * Format::bytes);
        return Self::load(format, row);
    }

    // Stores the first n < lanes elements; writes nothing past them.
    template <class Format>
    static void store_partial(Format format, std::byte *p, Vec x, int n) {
        std::byte row[lanes * Format::bytes];
        Self::store(format, row, x);
        std::memcpy(p, row, static_cast<size_t>(n) * Format::bytes);
    }
};

}  // namespace kvlane::isa

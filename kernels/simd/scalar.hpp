#pragma once

// Plain C++: the portable fallback, and the reference that the other isas are compared with.

#include <cmath>
#include <cstddef>
#include <cstring>

#include "../formats.hpp"
#include "half.hpp"

namespace kvlane::isa {

struct scalar {
    struct Vec {
        float x;
        friend Vec operator+(Vec a, Vec b) { return {a.x + b.x}; }
        friend Vec operator-(Vec a, Vec b) { return {a.x - b.x}; }
        friend Vec operator*(Vec a, Vec b) { return {a.x * b.x}; }
        friend Vec operator/(Vec a, Vec b) { return {a.x / b.x}; }
    };
    static constexpr int lanes = 1;
    static constexpr int dot_accumulators = 4;
    static constexpr int sum_accumulators = 4;
    static constexpr int max_rows = 4;
    static constexpr bool keys_in_order = false;
    static constexpr int max_tokens_abreast = 1;
    static constexpr int multiplied_bits = 0;
    static constexpr int most_queries_as_stored = 0;

    static Vec broadcast(float x) { return {x}; }
    static Vec load(const float *p) { return {*p}; }
    static void store(float *p, Vec a) { *p = a.x; }
    static Vec in_register(Vec a) { return a; }
    static Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
    static Vec divide(Vec a, Vec b) { return a / b; }
    static Vec max(Vec a, Vec b) { return a.x > b.x ? a : b; }
    static bool any_greater(Vec a, float b) { return a.x > b; }
    static Vec lane_numbers() { return {0}; }
    static Vec first_lanes(Vec a, int, float) { return a; }
    static Vec round(Vec a) {
        const float big = 0x1.8p23f;  // |a| < 2^22 here
        return {(a.x + big) - big};
    }
    static constexpr float zero_power = -127;
    static Vec scale_by_power(Vec a, Vec n) {
        const float in_last_place = n.x + (0x1.8p23f + 127);  // the whole number's bits, for NaN too without a conversion
        return {a.x * Half<scalar>::value(Half<scalar>::bits(in_last_place) << 23)};
    }
    static float reduce_add(Vec a) { return a.x; }
    static float reduce_max(Vec a) { return a.x; }
    static Vec sums(const Vec (&a)[lanes]) { return a[0]; }
    static Vec sums(const int64_t (&a)[lanes]) { return to_float(a[0]); }

    static Vec load(format::f32, const std::byte *p) {
        Vec a;
        std::memcpy(&a.x, p, sizeof a.x);
        return a;
    }
    static Vec load(format::f16, const std::byte *p) { return {Half<scalar>::from_f16(load_u16(p))}; }
    static Vec load(format::bf16, const std::byte *p) { return {Half<scalar>::from_bf16(load_u16(p))}; }
    static void store(format::f32, std::byte *p, Vec a) { std::memcpy(p, &a.x, sizeof a.x); }
    static void store(format::f16, std::byte *p, Vec a) { store_u16(p, Half<scalar>::to_f16(a.x)); }
    static void store(format::bf16, std::byte *p, Vec a) { store_u16(p, Half<scalar>::to_bf16(a.x)); }

    static Vec load(format::q8, const std::byte *p) { return {static_cast<float>(int_at(p))}; }
    static void store(format::q8, std::byte *p, Vec a) { *p = static_cast<std::byte>(nearest(a)); }

    struct Int16s {
        int32_t pair[2];
    };
    using Int16Pair = Int16s;  // the same two elements in every lane
    using Int32s = int64_t;    // a row's one lane would overflow 32 bits
    static Int32s zero_int32s() { return 0; }
    static Int32s load_int32s(const int32_t *p) { return *p; }
    static void store_int32s(int32_t *p, Int32s x) { *p = static_cast<int32_t>(x); }
    static Int16s load_int16s(const int16_t *p) { return {{p[0], p[1]}}; }
    static void store_int16s(int16_t *p, Vec a) { *p = static_cast<int16_t>(nearest(a)); }
    static Int16s widen(const std::byte *p) { return widen_pairs(p, p + 1); }
    static Int16s widen_pairs(const std::byte *a, const std::byte *b) { return {{int_at(a), int_at(b)}}; }
    static Int16Pair broadcast_pair(const int16_t *p) { return load_int16s(p); }
    static Int32s multiply_add(Int16s a, Int16s b, Int32s c) { return c + a.pair[0] * b.pair[0] + a.pair[1] * b.pair[1]; }
    static Vec to_float(Int32s x) { return {static_cast<float>(x)}; }

    // A group of 32 elements of 4 bits, the first half of it in the lower ones: 8 less than an element, times the
    // multiplier.
    static constexpr int nibble_groups = 1;
    static void unpack_groups(const std::byte *p, const std::byte *multipliers, int, std::byte *to) {
        const int multiplier = static_cast<int>(*multipliers);
        for (int i = 0; i < 16; ++i) {
            to[i] = static_cast<std::byte>((static_cast<int>(p[i] & std::byte{15}) - 8) * multiplier);
            to[i + 16] = static_cast<std::byte>((static_cast<int>(p[i] >> 4) - 8) * multiplier);
        }
    }

    // A vector of one lane has no part.
    template <class Format>
    static Vec load_partial(Format, const std::byte *, int) {
        return {0};
    }
    template <class Format>
    static void store_partial(Format, std::byte *, Vec, int) {}

private:
    static int int_at(const std::byte *p) { return static_cast<int8_t>(*p); }
    static int nearest(Vec a) { return a.x == a.x ? static_cast<int>(round(a).x) : 0; }
    static uint16_t load_u16(const std::byte *p) {
        uint16_t h;
        std::memcpy(&h, p, sizeof h);
        return h;
    }
    static void store_u16(std::byte *p, uint16_t h) { std::memcpy(p, &h, sizeof h); }
};

}  // namespace kvlane::isa

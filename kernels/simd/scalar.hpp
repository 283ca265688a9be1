#pragma once

// Plain C++: the portable fallback, and the reference for the other isas.

#include <cmath>
#include <cstddef>
#include <cstring>

#include "../formats.hpp"
#include "../q4_levels.hpp"
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

    static constexpr int gemm_rows = 2;
    static constexpr int gemm_accumulators = 64;
    static constexpr int max_panels = 1;
    static constexpr bool has_byte_products = false;

    // The levels of the codes of q4 in the columns whose granules begin at p: of the lower halves of its bytes, and of the
    // upper.
    static void unpack_codes(const std::byte *p, std::byte *lower, std::byte *upper) {
        q4::unpack_codes<scalar>(p, 4 * lanes, lower, upper);
    }

    // Transposes: lane i of vector j becomes lane j of vector i.
    static void transpose(Vec (&)[lanes]) {}
    // Stores the low 16 bits of every lane, and the high 16 bits.
    static void store_halves(std::byte *lower, std::byte *upper, Vec x) {
        const uint32_t word = Half<scalar>::bits(x.x);
        store_u16(lower, static_cast<uint16_t>(word));
        store_u16(upper, static_cast<uint16_t>(word >> 16));
    }
    // Element E of a granule.
    template <int E, class Format>
    static Vec granule_element(Format format, const std::byte *p) {
        return load(format, p + E * Format::bytes);
    }

    struct Sums {
        int32_t x;
    };
    struct WordPair {
        int32_t a, b;
    };
    static Sums broadcast_sum(int32_t x) { return {x}; }
    static Vec to_float(Sums x) { return {static_cast<float>(x.x)}; }
    template <int E>
    static WordPair word_pairs(const std::byte *p) {
        return {int_at(p + E), int_at(p + E + 2)};
    }
    static WordPair broadcast_words(const int16_t *a) { return {a[0], a[1]}; }
    // to[i] = a[i] * b[i] / 2^15, rounded, for 2 * lanes elements; not of a[i] = b[i] = -2^15.
    static void multiply_words(int16_t *to, const int16_t *a, const int16_t *b) {
        for (int i = 0; i < 2 * lanes; ++i) {
            to[i] = static_cast<int16_t>((a[i] * b[i] + (1 << 14)) >> 15);
        }
    }
    static Sums add_word_products(WordPair a, WordPair b, Sums c) { return {c.x + a.a * b.a + a.b * b.b}; }
    static Vec broadcast(float x) { return {x}; }
    static Vec load(const float *p) { return {*p}; }
    static void store(float *p, Vec a) { *p = a.x; }
    static Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
    static Vec divide(Vec a, Vec b) { return a / b; }
    static Vec max(Vec a, Vec b) { return a.x > b.x ? a : b; }
    static Vec min(Vec a, Vec b) { return a.x < b.x ? a : b; }
    static Vec lane_numbers() { return {0}; }
    static Vec round(Vec a) {
        const float big = 0x1.8p23f;  // |a| < 2^22 here
        return {(a.x + big) - big};
    }
    static constexpr float zero_power = -127;
    static Vec scale_by_power(Vec a, Vec n) {
        const float in_last_place = n.x + (0x1.8p23f + 127);  // the integer in the low bits; NaN needs no conversion
        return {a.x * Half<scalar>::value(Half<scalar>::bits(in_last_place) << 23)};
    }
    static float reduce_add(Vec a) { return a.x; }
    static float reduce_max(Vec a) { return a.x; }

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

    static void store_int16s(int16_t *p, Vec a) { *p = static_cast<int16_t>(nearest(a)); }

    // A vector of one lane is never partial.
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

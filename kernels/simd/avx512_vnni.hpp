#pragma once

#include "avx512.hpp"

namespace kvlane::isa {

// Sums of products in one instruction. One after the other: g++ would load everything first, for which there are not the
// registers.
struct avx512_vnni : Avx512<avx512_vnni> {
    static Int32s multiply_add(Int16s a, Int16s b, Int32s c) { return in_turn(_mm512_dpwssd_epi32(c, a, b)); }

    static constexpr int key_bias = 128;
    static constexpr int value_bias = 0;
    static constexpr int multiplied_bits = 8;
    static constexpr float most_weight = 255;
    using Int8s = __m512i;
    static Int8s load_int8s(const void *p) { return _mm512_loadu_si512(p); }
    static void store_int8s(std::byte *p, Int8s x) { _mm512_storeu_si512(p, x); }
    static Int8s load_int8s_partial(const void *p, int n) { return _mm512_maskz_loadu_epi8((uint64_t{1} << n) - 1, p); }
    static Int8s biased(Int8s x, int bias) { return _mm512_xor_si512(x, _mm512_set1_epi8(static_cast<char>(bias))); }
    using Avx512<avx512_vnni>::unpack_groups;
    // The bytes of four i of every key, side by side, of 4 bits each: those in the lower ones, and in the upper ones, times
    // byte N of their keys' multipliers, biased.
    template <int N>
    static void unpack_biased(Int8s fours, Int8s multipliers, Int8s &lower, Int8s &upper) {
        const Int8s multiplier =
            _mm512_shuffle_epi8(multipliers, _mm512_set4_epi32(0x0c0c0c0c + 0x01010101 * N, 0x08080808 + 0x01010101 * N,
                                                               0x04040404 + 0x01010101 * N, 0x01010101 * N));
        const Int8s less = biased(_mm512_slli_epi16(multiplier, 3), key_bias);
        lower = nibble_products(lower_nibbles(fours), multiplier, less);
        upper = nibble_products(upper_nibbles(fours), multiplier, less);
    }
    static Int32s add_key_products(Int8s biased, Int8s query, Int32s c) {
        return in_turn(_mm512_dpbusd_epi32(c, biased, query));
    }
    static Int32s add_value_products(Int8s weight, Int8s value, Int32s c) {
        return in_turn(_mm512_dpbusd_epi32(c, weight, value));
    }
    static Int32s broadcast_int32(int32_t x) { return _mm512_set1_epi32(x); }
    static void store_bytes(uint8_t *p, Vec x) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(x)));
    }
    // Four i of every row, side by side, are vector i.
    static void transpose_fours(Int8s (&row)[lanes]) {
        Int8s of_four[4][4];  // [j][rows 4 i to 4 i + 3]: quarter q has their fours 4 q + j
        for (int i = 0; i < 4; ++i) {
            const __m512i *r = row + 4 * i;
            const __m512i lower01 = _mm512_unpacklo_epi32(r[0], r[1]), upper01 = _mm512_unpackhi_epi32(r[0], r[1]);
            const __m512i lower23 = _mm512_unpacklo_epi32(r[2], r[3]), upper23 = _mm512_unpackhi_epi32(r[2], r[3]);
            of_four[0][i] = _mm512_unpacklo_epi64(lower01, lower23);
            of_four[1][i] = _mm512_unpackhi_epi64(lower01, lower23);
            of_four[2][i] = _mm512_unpacklo_epi64(upper01, upper23);
            of_four[3][i] = _mm512_unpackhi_epi64(upper01, upper23);
        }
        for (int j = 0; j < 4; ++j) {
            Int8s four[4];
            gather_quarters(of_four[j], four);
            row[j] = four[0], row[4 + j] = four[1], row[8 + j] = four[2], row[12 + j] = four[3];
        }
    }
    // Element by element side by side: the four of every 16 that begin with element 4 i stand in vector i.
    static void interleave(Int8s (&row)[4]) {
        const __m512i lower01 = _mm512_unpacklo_epi8(row[0], row[1]), upper01 = _mm512_unpackhi_epi8(row[0], row[1]);
        const __m512i lower23 = _mm512_unpacklo_epi8(row[2], row[3]), upper23 = _mm512_unpackhi_epi8(row[2], row[3]);
        row[0] = _mm512_unpacklo_epi16(lower01, lower23);
        row[1] = _mm512_unpackhi_epi16(lower01, lower23);
        row[2] = _mm512_unpacklo_epi16(upper01, upper23);
        row[3] = _mm512_unpackhi_epi16(upper01, upper23);
    }
    // Sums of four vectors of these, in the elements' order.
    static void in_order(Int32s (&sum)[4]) { gather_quarters({sum[0], sum[1], sum[2], sum[3]}, sum); }

private:
    // Quarter i of every row, one after the other, is part i.
    static void gather_quarters(const __m512i (&row)[4], __m512i (&part)[4]) {
        const __m512i lower01 = _mm512_shuffle_i32x4(row[0], row[1], 0x44),
                      upper01 = _mm512_shuffle_i32x4(row[0], row[1], 0xee);
        const __m512i lower23 = _mm512_shuffle_i32x4(row[2], row[3], 0x44),
                      upper23 = _mm512_shuffle_i32x4(row[2], row[3], 0xee);
        part[0] = _mm512_shuffle_i32x4(lower01, lower23, 0x88);
        part[1] = _mm512_shuffle_i32x4(lower01, lower23, 0xdd);
        part[2] = _mm512_shuffle_i32x4(upper01, upper23, 0x88);
        part[3] = _mm512_shuffle_i32x4(upper01, upper23, 0xdd);
    }
    static Int32s in_turn(Int32s x) {
        __asm__ volatile("" : "+v"(x));
        return x;
    }
};

}  // namespace kvlane::isa

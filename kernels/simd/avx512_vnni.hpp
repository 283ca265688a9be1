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
    using Int8s = __m512i;
    static Int8s load_int8s(const void *p) { return _mm512_loadu_si512(p); }
    static void store_int8s(std::byte *p, Int8s x) { _mm512_storeu_si512(p, x); }
    static Int8s load_int8s_partial(const void *p, int n) { return _mm512_maskz_loadu_epi8((uint64_t{1} << n) - 1, p); }
    static Int8s biased(Int8s x, int bias) { return _mm512_xor_si512(x, _mm512_set1_epi8(static_cast<char>(bias))); }
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

    static constexpr int most_queries_as_stored = 4;
    using NibbleExcess = int32_t;
    // What nibbles' products with a query's halves are too large by, negated.
    static Int8s nibble_excess(const int8_t *lower, const int8_t *upper) {
        const Int8s eight = _mm512_set1_epi8(8), zero = _mm512_setzero_si512();
        return _mm512_sub_epi32(
            zero, _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, eight, load_int8s(lower)), eight, load_int8s(upper)));
    }
    struct Nibbles {
        Int8s lower, upper;
    };
    static Nibbles nibbles_of(Int8s both) { return {lower_nibbles(both), upper_nibbles(both)}; }
    // Keys whose products are in one sum: in each quarter, the lower half the first one's.
    static constexpr int nibble_keys = 2;
    static Int16s multipliers_of(const std::byte *const (&keys)[nibble_keys]) {
        int first, second;
        std::memcpy(&first, keys[0], sizeof first);
        std::memcpy(&second, keys[1], sizeof second);
        const __m512i both = _mm512_broadcastq_epi64(_mm_insert_epi32(_mm_cvtsi32_si128(first), second, 1));
        // The first one's byte q in the words of quarter q's lower half, the second one's in those of the upper one.
        constexpr auto words_of = [](uint64_t byte) {
            return static_cast<int64_t>(0x8000800080008000 + byte * 0x0001000100010001);
        };
        return _mm512_shuffle_epi8(both, _mm512_set_epi64(words_of(7), words_of(3), words_of(6), words_of(2), words_of(5),
                                                          words_of(1), words_of(4), words_of(0)));
    }
    // The sums of eight products and their excess, 8 * 8 * 128 at most, have 16 bits.
    static Int32s add_nibble_products(const Nibbles (&k)[nibble_keys], Int16s multipliers, const int8_t *lower,
                                      const int8_t *upper, const int32_t *excess, Int32s c) {
        const auto products = [&](const Nibbles &key) {
            return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(load_int32s(excess), key.lower, load_int8s(lower)), key.upper,
                                       load_int8s(upper));
        };
        return in_turn(_mm512_dpwssd_epi32(c, _mm512_packs_epi32(products(k[0]), products(k[1])), multipliers));
    }
    // Lanes 2 i and 2 i + 1 are the sums of the lower and the upper halves of a[i]'s quarters.
    static Vec nibble_sums(const Int32s (&a)[lanes / nibble_keys]) {
        Int32s halves[4];
        for (int i = 0; i < 4; ++i) {
            const Vec first = _mm512_castsi512_ps(a[2 * i]), second = _mm512_castsi512_ps(a[2 * i + 1]);
            halves[i] = add_integers(_mm512_castps_si512(_mm512_shuffle_ps(first, second, 0x88)),
                                     _mm512_castps_si512(_mm512_shuffle_ps(first, second, 0xdd)));
        }
        return to_float(sums_of_quarters(halves, add_integers));
    }

    static Int32s int32_alone(int32_t x) { return _mm512_zextsi128_si512(_mm_cvtsi32_si128(x)); }
    static Int32s broadcast_int32(int32_t x) { return _mm512_set1_epi32(x); }
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
    // Of 4 bits, 16 times what is 8 less than they are.
    static constexpr int value_step = 16;
    static constexpr int nibble_accumulators = 16;
    static void nibbles_apart(Int8s both, Int8s &lower, Int8s &upper) {
        constexpr int flipped_and_cut = (0xf0 ^ 0xcc) & 0xaa;
        const Int8s most = _mm512_set1_epi8(static_cast<char>(0xf0)), sign = _mm512_set1_epi8(static_cast<char>(0x80));
        lower = _mm512_ternarylogic_epi32(_mm512_slli_epi16(both, 4), sign, most, flipped_and_cut);
        upper = _mm512_ternarylogic_epi32(both, sign, most, flipped_and_cut);
    }
    // Into each quarter's lanes, its J-th four bytes.
    template <int J>
    static Int8s repeat_fours(const void *p) {
        return _mm512_shuffle_epi32(_mm512_loadu_si512(p), static_cast<_MM_PERM_ENUM>(J * 0x55));
    }
    // Of each quarter the bytes of four vectors, one after the other.
    static void store_bytes_of_four(uint8_t *p, const Vec (&x)[4]) {
        const __m512i words01 = _mm512_packus_epi32(_mm512_cvtps_epi32(x[0]), _mm512_cvtps_epi32(x[1]));
        const __m512i words23 = _mm512_packus_epi32(_mm512_cvtps_epi32(x[2]), _mm512_cvtps_epi32(x[3]));
        _mm512_storeu_si512(p, _mm512_packus_epi16(words01, words23));
    }
    // Lane 4 i + j is byte i of the four of row j.
    static Vec multipliers_of_four(const std::byte *p) {
        const __m128i groups = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)),
                                                _mm_set_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400));
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(groups));
    }
    static Vec repeat_four(const float *p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
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

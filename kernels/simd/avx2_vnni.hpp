#pragma once

#include "avx2.hpp"

namespace kvlane::isa {

// Sums of products in one instruction.
struct avx2_vnni : Avx2<avx2_vnni> {
    static constexpr int multiplied_bits = 8;
    static constexpr int key_bias = 128;
    // Of 4 bits, 16 times what is 8 less than they are.
    static constexpr int value_step = 16;
    static void nibbles_apart(Int8s both, Int8s &lower, Int8s &upper) {
        const Int8s less = biased(both, 0x88), most = _mm256_set1_epi8(static_cast<char>(0xf0));
        lower = _mm256_and_si256(_mm256_slli_epi16(less, 4), most);
        upper = _mm256_and_si256(less, most);
    }
    static Int32s multiply_add(Int16s a, Int16s b, Int32s c) { return in_turn(_mm256_dpwssd_avx_epi32(c, a, b)); }
    // The bytes of four i of every key, side by side, of 4 bits each: those in the lower ones, and in the upper ones, times
    // byte N of their keys' multipliers, biased.
    template <int N>
    static void unpack_biased(Int8s fours, Int8s multipliers, Int8s &lower, Int8s &upper) {
        constexpr int64_t two = 0x0404040400000000 + 0x0101010101010101 * N, next_two = two + 0x0808080808080808;
        const Int8s multiplier = _mm256_shuffle_epi8(multipliers, _mm256_set_epi64x(next_two, two, next_two, two));
        const Int8s less = biased(_mm256_slli_epi16(multiplier, 3), key_bias);
        lower = nibble_products(lower_nibbles(fours), multiplier, less);
        upper = nibble_products(upper_nibbles(fours), multiplier, less);
    }
    static Int32s add_key_products(Int8s biased, Int8s query, Int32s c) {
        return in_turn(_mm256_dpbusd_avx_epi32(c, biased, query));
    }
    static Int32s add_value_products(Int8s weight, Int8s value, Int32s c) {
        return in_turn(_mm256_dpbusd_avx_epi32(c, weight, value));
    }
    static Int32s broadcast_int32(int32_t x) { return _mm256_set1_epi32(x); }
    // Four i of every row, side by side, are vector i.
    static void transpose_fours(Int8s (&row)[lanes]) {
        Int8s of_four[4][2];  // [j][rows 4 i to 4 i + 3]: half h has their fours 4 h + j
        for (int i = 0; i < 2; ++i) {
            const __m256i *r = row + 4 * i;
            const __m256i lower01 = _mm256_unpacklo_epi32(r[0], r[1]), upper01 = _mm256_unpackhi_epi32(r[0], r[1]);
            const __m256i lower23 = _mm256_unpacklo_epi32(r[2], r[3]), upper23 = _mm256_unpackhi_epi32(r[2], r[3]);
            of_four[0][i] = _mm256_unpacklo_epi64(lower01, lower23);
            of_four[1][i] = _mm256_unpackhi_epi64(lower01, lower23);
            of_four[2][i] = _mm256_unpacklo_epi64(upper01, upper23);
            of_four[3][i] = _mm256_unpackhi_epi64(upper01, upper23);
        }
        for (int j = 0; j < 4; ++j) {
            row[j] = _mm256_permute2x128_si256(of_four[j][0], of_four[j][1], 0x20);
            row[4 + j] = _mm256_permute2x128_si256(of_four[j][0], of_four[j][1], 0x31);
        }
    }
};

}  // namespace kvlane::isa

#pragma once

#include "avx2.hpp"

namespace kvlane::isa {

// Multiplies and sums bytes, or 16-bit integers, in one instruction.
struct avx2_vnni : Avx2<avx2_vnni> {
    using Avx = Avx2<avx2_vnni>;
    static constexpr bool has_byte_products = true;
    static constexpr int panel_offset = 128;  // the instruction multiplies unsigned by signed bytes
    static __m256i byte_fours(const std::byte *p) { return _mm256_xor_si256(Avx::granules(p), _mm256_set1_epi8(-128)); }
    static int32_t sum_of(const int8_t *x, int n) {  // n: a multiple of 16
        __m128i sums = _mm_setzero_si128();
        for (int i = 0; i < n; i += 16) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x + i));
            sums = _mm_dpbusd_avx_epi32(sums, _mm_set1_epi8(1), bytes);
        }
        sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xb1)));
    }
    static __m256i broadcast_bytes(const int8_t *a) {
        int four;
        std::memcpy(&four, a, sizeof four);
        return _mm256_set1_epi32(four);
    }
    static Sums add_word_products(__m256i a, __m256i b, Sums c) { return _mm256_dpwssd_avx_epi32(c, a, b); }
    static __m256i add_byte_products(__m256i a, __m256i b, __m256i c) { return _mm256_dpbusd_avx_epi32(c, b, a); }
};

}  // namespace kvlane::isa

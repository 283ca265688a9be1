#pragma once

#include "avx512.hpp"

namespace kvlane::isa {

// Multiplies and sums bytes, or 16-bit integers, in one instruction.
struct avx512_vnni : Avx512<avx512_vnni> {
    using Avx = Avx512<avx512_vnni>;
    static constexpr bool has_byte_products = true;
    static constexpr int panel_offset = 128;  // the instruction multiplies unsigned by signed bytes
    static __m512i byte_fours(const std::byte *p) { return _mm512_xor_si512(Avx::granules(p), _mm512_set1_epi8(-128)); }
    static int32_t sum_of(const int8_t *x, int n) {  // n: a multiple of 16
        __m512i sums = _mm512_setzero_si512();
        for (int i = 0; i < n; i += 64) {
            const __mmask64 left = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
            sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), _mm512_maskz_loadu_epi8(left, x + i));
        }
        return _mm512_reduce_add_epi32(sums);
    }
    static __m512i broadcast_bytes(const int8_t *a) {
        int four;
        std::memcpy(&four, a, sizeof four);
        return _mm512_set1_epi32(four);
    }
    static Sums add_word_products(__m512i a, __m512i b, Sums c) { return _mm512_dpwssd_epi32(c, a, b); }
    static __m512i add_byte_products(__m512i a, __m512i b, __m512i c) { return _mm512_dpbusd_epi32(c, b, a); }
};

}  // namespace kvlane::isa

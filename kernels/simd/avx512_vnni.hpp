#pragma once

#include "avx512.hpp"

namespace kvlane::isa {

// Multiplies and sums bytes in one instruction.
struct avx512_vnni : Avx512<avx512_vnni> {
    using Avx = Avx512<avx512_vnni>;
    static constexpr bool has_byte_products = true;
    // The instruction multiplies unsigned by signed bytes: keys are offset by 128, and the initial accumulators subtract 128
    // times the sum of the query's elements.
    static constexpr int key_bias_of_sums = -128;
    static constexpr int value_bias_of_sums = 0;
    template <bool Keys>
    static __m512i byte_fours(const std::byte *p) {
        return Keys ? _mm512_xor_si512(Avx::granules(p), _mm512_set1_epi8(-128)) : Avx::granules(p);
    }
    static __m512i broadcast_bytes(const uint8_t *a) {
        int four;
        std::memcpy(&four, a, sizeof four);
        return _mm512_set1_epi32(four);
    }
    template <bool Keys>
    static __m512i add_byte_products(__m512i a, __m512i b, __m512i c) {
        return Keys ? _mm512_dpbusd_epi32(c, b, a) : _mm512_dpbusd_epi32(c, a, b);
    }
};

}  // namespace kvlane::isa

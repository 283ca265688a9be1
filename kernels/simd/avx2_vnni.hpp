#pragma once

#include "avx2.hpp"

namespace kvlane::isa {

// Multiplies and sums bytes in one instruction.
struct avx2_vnni : Avx2<avx2_vnni> {
    using Avx = Avx2<avx2_vnni>;
    static constexpr bool has_byte_products = true;
    // The instruction multiplies unsigned by signed bytes: keys are offset by 128, and the initial accumulators subtract 128
    // times the sum of the query's elements.
    static constexpr int key_bias_of_sums = -128;
    static constexpr int value_bias_of_sums = 0;
    template <bool Keys>
    static __m256i byte_fours(const std::byte *p) {
        return Keys ? _mm256_xor_si256(Avx::granules(p), _mm256_set1_epi8(-128)) : Avx::granules(p);
    }
    static __m256i broadcast_bytes(const uint8_t *a) {
        int four;
        std::memcpy(&four, a, sizeof four);
        return _mm256_set1_epi32(four);
    }
    template <bool Keys>
    static __m256i add_byte_products(__m256i a, __m256i b, __m256i c) {
        return Keys ? _mm256_dpbusd_avx_epi32(c, b, a) : _mm256_dpbusd_avx_epi32(c, a, b);
    }
};

}  // namespace kvlane::isa

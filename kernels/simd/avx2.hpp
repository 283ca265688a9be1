#pragma once

#include "xsimd_isa.hpp"

namespace kvlane::isa {

struct avx2 : XsimdIsa<avx2, xsimd::fma3<xsimd::avx2>> {
    using Base = XsimdIsa<avx2, xsimd::fma3<xsimd::avx2>>;
    // 2 FMA ports x 4 cycles need 8 accumulators; with the keys and a query they leave 16 registers unspilled.
    static constexpr int dot_accumulators = 8;
    static constexpr int sum_accumulators = 8;
    static constexpr int max_rows = 4;
    static constexpr int rows_in_order = 0;

    using Base::load;
    using Base::store;

    static Vec in_register(Vec x) {
        __m256 r = x;
        __asm__("" : "+x"(r));
        return r;
    }
    static float reduce_max(Vec x) {
        const __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
        return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
    }

    // Lane i is the sum of a[i]'s lanes.
    static Vec sums(const Vec (&a)[lanes]) {
        const __m256 abcd = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
        const __m256 efgh = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
        return _mm256_add_ps(_mm256_permute2f128_ps(abcd, efgh, 0x20), _mm256_permute2f128_ps(abcd, efgh, 0x31));
    }

    static Vec load(format::f16, const std::byte *p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    }

    static Vec load(format::bf16, const std::byte *p) {
        const __m256i h = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
        return _mm256_castsi256_ps(_mm256_slli_epi32(h, 16));
    }

    static void store(format::f16, std::byte *p, Vec x) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }

    static void store(format::bf16, std::byte *p, Vec x) {
        const __m256i u = _mm256_castps_si256(x);
        const __m256i upper = _mm256_srli_epi32(u, 16);
        const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
        const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
        const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
        const __m256i h = _mm256_blendv_epi8(rounded, quiet, is_nan);
        _mm_storeu_si128(reinterpret_cast<__m128i *>(p),
                         _mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
    }
};

}  // namespace kvlane::isa

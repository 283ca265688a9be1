#pragma once

#include <limits>

#include "../q4_levels.hpp"
#include "xsimd_isa.hpp"

namespace kvlane::isa {

template <class Self>
struct Avx2 : XsimdIsa<Self, xsimd::fma3<xsimd::avx2>> {
    using Base = XsimdIsa<Self, xsimd::fma3<xsimd::avx2>>;
    using Base::lanes;
    using typename Base::Vec;

    static constexpr int gemm_rows = 6;
    static constexpr int gemm_accumulators = 12;
    static constexpr int max_panels = 4;
    static constexpr bool has_byte_products = false;

    // The levels of the codes of q4 in the columns whose granules begin at p: of the lower halves of its bytes, and of the
    // upper.
    static void unpack_codes(const std::byte *p, std::byte *lower, std::byte *upper) {
        const __m256i codes = granules(p), low = _mm256_set1_epi8(15);
        const __m256i levels = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(q4::levels)));
        const auto store_levels = [&](std::byte *to, __m256i of) {
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), _mm256_shuffle_epi8(levels, _mm256_and_si256(of, low)));
        };
        store_levels(lower, codes);
        store_levels(upper, _mm256_srli_epi16(codes, 4));
    }

    // Transposes: lane i of vector j becomes lane j of vector i.
    static void transpose(Vec (&x)[lanes]) {
        __m256 four[8];  // four[2 i + j]: in each half, lanes 2 j and 2 j + 1 of vectors 4 i to 4 i + 3, in pairs of lanes
        unroll<4>([&](auto i) __attribute__((always_inline)) {
            four[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
            four[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
        });
        unroll<4>([&](auto i) __attribute__((always_inline)) {
            constexpr int pair = i / 2;
            const auto both = [&](int k) __attribute__((always_inline)) {
                return _mm256_shuffle_ps(four[4 * k + pair], four[4 * k + 2 + pair], i % 2 == 0 ? 0x44 : 0xee);
            };
            const __m256 first = both(0), last = both(1);
            x[i] = _mm256_permute2f128_ps(first, last, 0x20);
            x[i + 4] = _mm256_permute2f128_ps(first, last, 0x31);
        });
    }
    // Stores the low 16 bits of every lane, and the high 16 bits.
    static void store_halves(std::byte *lower, std::byte *upper, Vec x) {
        const __m256i sorted = _mm256_shuffle_epi8(
            _mm256_castps_si256(x),
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15)));
        const __m256i halves = _mm256_permute4x64_epi64(sorted, 0xd8);
        _mm_storeu_si128(reinterpret_cast<__m128i *>(lower), _mm256_castsi256_si128(halves));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(upper), _mm256_extracti128_si256(halves, 1));
    }
    // Element E of a granule.
    template <int E, class Format>
    static Vec granule_element(Format format, const std::byte *p) {
        return load(format, p);
    }
    template <int E>
    static Vec granule_element(format::bf16, const std::byte *p) {
        const __m256i both = granules(p);
        return _mm256_castsi256_ps(E == 0 ? _mm256_slli_epi32(both, 16) : _mm256_and_si256(both, _mm256_set1_epi32(-65536)));
    }
    template <int E>
    static Vec granule_element(format::q8, const std::byte *p) {
        return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(granules(p), 24 - 8 * E), 24));
    }
    static __m256i granules(const std::byte *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }

    using Sums = __m256i;
    static Sums broadcast_sum(int32_t x) { return _mm256_set1_epi32(x); }
    template <int E>
    static __m256i word_pairs(const std::byte *p) {
        return _mm256_srai_epi16(E == 0 ? _mm256_slli_epi16(granules(p), 8) : granules(p), 8);
    }
    static __m256i broadcast_words(const int16_t *a) {
        int two;
        std::memcpy(&two, a, sizeof two);
        return _mm256_set1_epi32(two);
    }
    // to[i] = a[i] * b[i] / 2^15, rounded, for 2 * lanes elements; not of a[i] = b[i] = -2^15.
    static void multiply_words(int16_t *to, const int16_t *a, const int16_t *b) {
        const __m256i product = _mm256_mulhrs_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(a)),
                                                    _mm256_loadu_si256(reinterpret_cast<const __m256i *>(b)));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), product);
    }
    static Sums add_word_products(__m256i a, __m256i b, Sums c) {
        c = _mm256_add_epi32(c, _mm256_madd_epi16(a, b));
        asm("" : "+v"(c));  // keeps the order: g++ 12 would sum several products first, and spill them
        return c;
    }
    using Base::load;
    using Base::store;

    static float reduce_max(Vec x) {
        const __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
        return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
    }

    // Lane i is x's lane i ^ Step.
    template <int Step>
    static Vec swap_lanes(Vec x) {
        return Step == 4 ? _mm256_permute2f128_ps(x, x, 0x01) : _mm256_permute_ps(x, Step == 1 ? 0xb1 : 0x4e);
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

    static Vec load(format::q8, const std::byte *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_8(p))); }
    static void store(format::q8, std::byte *p, Vec x) {
        const __m128i words = int16s_of(x);
        _mm_storel_epi64(reinterpret_cast<__m128i *>(p), _mm_packs_epi16(words, words));
    }

    static void store_int16s(int16_t *p, Vec x) { _mm_storeu_si128(reinterpret_cast<__m128i *>(p), int16s_of(x)); }
    static Vec to_float(Sums x) { return _mm256_cvtepi32_ps(x); }

protected:
    static __m128i int16s_of(Vec x) {
        const __m256i words = _mm256_cvtps_epi32(x);
        return _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    }

private:
    static __m128i load_8(const std::byte *p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)); }
};

struct avx2 : Avx2<avx2> {};

}  // namespace kvlane::isa

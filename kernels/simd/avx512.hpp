#pragma once

#include "../q4_levels.hpp"
#include "xsimd_isa.hpp"

namespace kvlane::isa {

template <class Self>
struct Avx512 : XsimdIsa<Self, xsimd::avx512bw> {
    using Base = XsimdIsa<Self, xsimd::avx512bw>;
    using Base::lanes;
    using typename Base::Vec;

    static constexpr int gemm_rows = 8;
    static constexpr int gemm_accumulators = 16;
    static constexpr int max_panels = 8;
    static constexpr bool has_byte_products = false;

    // The levels of the codes of q4 in the columns whose granules begin at p: of the lower halves of its bytes, and of the
    // upper.
    static void unpack_codes(const std::byte *p, std::byte *lower, std::byte *upper) {
        const __m512i codes = granules(p), low = _mm512_set1_epi8(15);
        const __m512i levels = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(q4::levels)));
        _mm512_storeu_si512(lower, _mm512_shuffle_epi8(levels, _mm512_and_si512(codes, low)));
        _mm512_storeu_si512(upper, _mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16(codes, 4), low)));
    }

    // Transposes: lane i of vector j becomes lane j of vector i.
    static void transpose(Vec (&x)[lanes]) {
        __m512 pairs[16], fours[16];
        unroll<8>([&](auto i) __attribute__((always_inline)) {
            pairs[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
        });
        // fours[4 i + j]: in each quarter, its lane j of vectors 4 i to 4 i + 3.
        unroll<16>([&](auto k) __attribute__((always_inline)) {
            constexpr int i = k / 4, j = k % 4;
            fours[k] = _mm512_shuffle_ps(pairs[4 * i + j / 2], pairs[4 * i + 2 + j / 2], j % 2 == 0 ? 0x44 : 0xee);
        });
        unroll<4>([&](auto j) __attribute__((always_inline)) {
            const __m512 even01 = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0x88);
            const __m512 odd01 = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0xdd);
            const __m512 even23 = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0x88);
            const __m512 odd23 = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0xdd);
            x[j] = _mm512_shuffle_f32x4(even01, even23, 0x88);
            x[j + 4] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
            x[j + 8] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
            x[j + 12] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
        });
    }
    // Stores the low 16 bits of every lane, and the high 16 bits.
    static void store_halves(std::byte *lower, std::byte *upper, Vec x) {
        const __m512i words = _mm512_castps_si512(x);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(lower), _mm512_cvtepi32_epi16(words));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(upper), _mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)));
    }
    // Element E of a granule.
    template <int E, class Format>
    static Vec granule_element(Format format, const std::byte *p) {
        return load(format, p);
    }
    template <int E>
    static Vec granule_element(format::bf16, const std::byte *p) {
        const __m512i both = granules(p);
        return _mm512_castsi512_ps(E == 0 ? _mm512_slli_epi32(both, 16) : _mm512_and_si512(both, _mm512_set1_epi32(-65536)));
    }
    template <int E>
    static Vec granule_element(format::q8, const std::byte *p) {
        return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(granules(p), 24 - 8 * E), 24));
    }
    static __m512i granules(const std::byte *p) { return _mm512_loadu_si512(p); }

    using Sums = __m512i;
    static Sums broadcast_sum(int32_t x) { return _mm512_set1_epi32(x); }
    template <int E>
    static __m512i word_pairs(const std::byte *p) {
        return _mm512_srai_epi16(E == 0 ? _mm512_slli_epi16(granules(p), 8) : granules(p), 8);
    }
    static __m512i broadcast_words(const int16_t *a) {
        int two;
        std::memcpy(&two, a, sizeof two);
        return _mm512_set1_epi32(two);
    }
    // to[i] = a[i] * b[i] / 2^15, rounded, for 2 * lanes elements; not of a[i] = b[i] = -2^15.
    static void multiply_words(int16_t *to, const int16_t *a, const int16_t *b) {
        _mm512_storeu_si512(to, _mm512_mulhrs_epi16(_mm512_loadu_si512(a), _mm512_loadu_si512(b)));
    }
    static Sums add_word_products(__m512i a, __m512i b, Sums c) {
        c = _mm512_add_epi32(c, _mm512_madd_epi16(a, b));
        asm("" : "+v"(c));  // keeps the order: g++ 12 would sum several products first, and spill them
        return c;
    }

    using Base::load;
    using Base::store;

    // xsimd before version 11 uses a separate multiply and add.
    static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
    static Vec round(Vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    // Lanes that would underflow are masked out: the instruction takes a hundred cycles for them on Intel CPUs.
    static Vec scale_by_power(Vec x, Vec n) {
        return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, _mm512_set1_ps(Base::zero_power), _CMP_NLE_UQ), x, n);
    }
    static float reduce_max(Vec x) { return _mm512_reduce_max_ps(x); }

    // Lane i is x's lane i ^ Step.
    template <int Step>
    static Vec swap_lanes(Vec x) {
        return Step >= 4 ? _mm512_shuffle_f32x4(x, x, Step == 4 ? 0xb1 : 0x4e)
                         : _mm512_permute_ps(x, Step == 1 ? 0xb1 : 0x4e);
    }

    static Vec load(format::f16, const std::byte *p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
    }

    static Vec load(format::bf16, const std::byte *p) {
        return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
    }

    static void store(format::f16, std::byte *p, Vec x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }

    static void store(format::bf16, std::byte *p, Vec x) {
        const __m512i u = _mm512_castps_si512(x);
        const __m512i upper = _mm512_srli_epi32(u, 16);
        const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
        const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        const __m512i h = _mm512_mask_or_epi32(rounded, is_nan, upper, _mm512_set1_epi32(0x40));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtepi32_epi16(h));
    }

    static Vec load_partial(format::f32, const std::byte *p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
    static Vec load_partial(format::f16, const std::byte *p, int n) {
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
    }
    static Vec load_partial(format::bf16, const std::byte *p, int n) {
        return widen_bf16(_mm256_maskz_loadu_epi16(first(n), p));
    }

    static Vec load_partial(format::q8, const std::byte *p, int n) { return widen_q8(_mm_maskz_loadu_epi8(first(n), p)); }

    static Vec load(format::q8, const std::byte *p) { return widen_q8(load_16(p)); }
    static void store(format::q8, std::byte *p, Vec x) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
    }

    static void store_int16s(int16_t *p, Vec x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
    }
    static Vec to_float(Sums x) { return _mm512_cvtepi32_ps(x); }

protected:
private:
    static __m128i load_16(const std::byte *p) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); }
    static Vec widen_q8(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

    static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }

    static Vec widen_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
};

struct avx512 : Avx512<avx512> {};

}  // namespace kvlane::isa

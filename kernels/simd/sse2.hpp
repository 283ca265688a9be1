#pragma once

#include "../q4_levels.hpp"
#include "half.hpp"
#include "xsimd_isa.hpp"

namespace kvlane::isa {

struct sse2 : XsimdIsa<sse2, xsimd::sse2> {
    using Base = XsimdIsa<sse2, xsimd::sse2>;

    static constexpr int gemm_rows = 2;
    static constexpr int gemm_accumulators = 8;
    static constexpr int max_panels = 2;
    static constexpr bool has_byte_products = false;

    // The levels of the codes of q4 in the columns whose granules begin at p: of the lower halves of its bytes, and of the
    // upper.
    static void unpack_codes(const std::byte *p, std::byte *lower, std::byte *upper) {
        q4::unpack_codes<sse2>(p, 4 * lanes, lower, upper);
    }

    // Transposes: lane i of vector j becomes lane j of vector i.
    static void transpose(Vec (&x)[lanes]) {
        const __m128 lower01 = _mm_unpacklo_ps(x[0], x[1]), upper01 = _mm_unpackhi_ps(x[0], x[1]);
        const __m128 lower23 = _mm_unpacklo_ps(x[2], x[3]), upper23 = _mm_unpackhi_ps(x[2], x[3]);
        x[0] = _mm_movelh_ps(lower01, lower23);
        x[1] = _mm_movehl_ps(lower23, lower01);
        x[2] = _mm_movelh_ps(upper01, upper23);
        x[3] = _mm_movehl_ps(upper23, upper01);
    }
    // Stores the low 16 bits of every lane, and the high 16 bits.
    static void store_halves(std::byte *lower, std::byte *upper, Vec x) {
        const __m128i sorted = _mm_shufflehi_epi16(_mm_shufflelo_epi16(_mm_castps_si128(x), 0xd8), 0xd8);
        const __m128i halves = _mm_shuffle_epi32(sorted, 0xd8);
        _mm_storel_epi64(reinterpret_cast<__m128i *>(lower), halves);
        _mm_storel_epi64(reinterpret_cast<__m128i *>(upper), _mm_unpackhi_epi64(halves, halves));
    }
    // Element E of a granule.
    template <int E, class Format>
    static Vec granule_element(Format format, const std::byte *p) {
        return load(format, p);
    }
    template <int E>
    static Vec granule_element(format::bf16, const std::byte *p) {
        const __m128i both = load_16(p);
        return _mm_castsi128_ps(E == 0 ? _mm_slli_epi32(both, 16) : _mm_and_si128(both, _mm_set1_epi32(-65536)));
    }
    template <int E>
    static Vec granule_element(format::q8, const std::byte *p) {
        return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_slli_epi32(load_16(p), 24 - 8 * E), 24));
    }

    using Sums = __m128i;
    static Sums broadcast_sum(int32_t x) { return _mm_set1_epi32(x); }
    template <int E>
    static __m128i word_pairs(const std::byte *p) {
        const __m128i bytes = load_16(p);
        return _mm_srai_epi16(E == 0 ? _mm_slli_epi16(bytes, 8) : bytes, 8);
    }
    static __m128i broadcast_words(const int16_t *a) {
        int two;
        std::memcpy(&two, a, sizeof two);
        return _mm_set1_epi32(two);
    }
    // to[i] = a[i] * b[i] / 2^15, rounded, for 2 * lanes elements; not of a[i] = b[i] = -2^15.
    static void multiply_words(int16_t *to, const int16_t *a, const int16_t *b) {
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i *>(a));
        const __m128i y = _mm_loadu_si128(reinterpret_cast<const __m128i *>(b));
        const __m128i low = _mm_mullo_epi16(x, y), one = _mm_set1_epi16(1);
        const __m128i twice_high = _mm_slli_epi16(_mm_mulhi_epi16(x, y), 1);
        const __m128i below = _mm_add_epi16(_mm_srli_epi16(low, 15), _mm_and_si128(_mm_srli_epi16(low, 14), one));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm_add_epi16(twice_high, below));
    }
    static Sums add_word_products(__m128i a, __m128i b, Sums c) {
        c = _mm_add_epi32(c, _mm_madd_epi16(a, b));
        asm("" : "+v"(c));  // keeps the order: g++ 12 would sum several products first, and spill them
        return c;
    }
    static __m128i load_16(const std::byte *p) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); }
    using Base::load;
    using Base::store;

    static float reduce_max(Vec x) {
        const __m128 a = _mm_max_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
    }

    // Lane i is x's lane i ^ Step.
    template <int Step>
    static Vec swap_lanes(Vec x) {
        return _mm_shuffle_ps(x, x, Step == 1 ? 0xb1 : 0x4e);
    }

    static Vec load(format::f16, const std::byte *p) {
        const __m128i h = _mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)), _mm_setzero_si128());
        const __m128i magnitude = _mm_and_si128(h, _mm_set1_epi32(0x7fff));
        const __m128i sign = _mm_slli_epi32(_mm_xor_si128(h, magnitude), 16);
        // A denormal is an integer multiple of 2^-24: converting it as an integer avoids f32 denormals in any CPU mode.
        const __m128 small = _mm_mul_ps(_mm_cvtepi32_ps(magnitude), _mm_set1_ps(0x1p-24f));
        const __m128i is_small = _mm_cmplt_epi32(magnitude, _mm_set1_epi32(0x400));
        const __m128i is_infinite = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff));
        const __m128i is_nan = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7c00));
        const __m128i rebias =
            _mm_add_epi32(_mm_set1_epi32(112 << 23), _mm_and_si128(is_infinite, _mm_set1_epi32(112 << 23)));
        const __m128i quiet = _mm_and_si128(is_nan, _mm_set1_epi32(0x400000));
        const __m128i large = _mm_or_si128(_mm_add_epi32(_mm_slli_epi32(magnitude, 13), rebias), quiet);
        const __m128i either =
            _mm_or_si128(_mm_and_si128(is_small, _mm_castps_si128(small)), _mm_andnot_si128(is_small, large));
        return _mm_castsi128_ps(_mm_or_si128(sign, either));
    }

    static Vec load(format::bf16, const std::byte *p) {
        const __m128i h = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p));
        return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), h));
    }

    static void store(format::f16, std::byte *p, Vec x) { store_each(p, x, Half<sse2>::to_f16); }
    static void store(format::bf16, std::byte *p, Vec x) { store_each(p, x, Half<sse2>::to_bf16); }

    static Vec load(format::q8, const std::byte *p) {
        const __m128i bytes = load_4(p);
        const __m128i words = _mm_unpacklo_epi8(bytes, bytes);
        return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(words, words), 24));
    }
    static void store(format::q8, std::byte *p, Vec x) {
        const __m128i words = int16s_of(x);
        const int bytes = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
        std::memcpy(p, &bytes, sizeof bytes);
    }

    static void store_int16s(int16_t *p, Vec x) { _mm_storel_epi64(reinterpret_cast<__m128i *>(p), int16s_of(x)); }
    static Vec to_float(Sums x) { return _mm_cvtepi32_ps(x); }

private:
    static __m128i load_4(const std::byte *p) {
        int bytes;
        std::memcpy(&bytes, p, sizeof bytes);
        return _mm_cvtsi32_si128(bytes);
    }
    static __m128i int16s_of(Vec x) {
        const __m128i words = _mm_cvtps_epi32(x);
        return _mm_packs_epi32(words, words);
    }

    static void store_each(std::byte *p, Vec x, uint16_t (*encode)(float)) {
        float lane[lanes];
        uint16_t h[lanes];
        store(lane, x);
        for (int i = 0; i < lanes; ++i) {
            h[i] = encode(lane[i]);
        }
        std::memcpy(p, h, sizeof h);
    }
};

}  // namespace kvlane::isa

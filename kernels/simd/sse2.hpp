#pragma once

#include "half.hpp"
#include "xsimd_isa.hpp"

namespace kvlane::isa {

struct sse2 : XsimdIsa<sse2, xsimd::sse2> {
    using Base = XsimdIsa<sse2, xsimd::sse2>;
    // 8 accumulators, 4 keys and a query: 13 of 16 registers.
    static constexpr int dot_accumulators = 8;
    static constexpr int sum_accumulators = 8;
    static constexpr int max_rows = 4;

    using Base::load;
    using Base::store;

    static float reduce_max(Vec x) {
        const __m128 a = _mm_max_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
    }

    // Lane i is the sum of a[i]'s lanes.
    static Vec sums(const Vec (&a)[lanes]) {
        const __m128 ab = _mm_add_ps(_mm_unpacklo_ps(a[0], a[1]), _mm_unpackhi_ps(a[0], a[1]));
        const __m128 cd = _mm_add_ps(_mm_unpacklo_ps(a[2], a[3]), _mm_unpackhi_ps(a[2], a[3]));
        return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
    }
    static Vec sums(const __m128i (&a)[lanes]) {
        const __m128i ab = _mm_add_epi32(_mm_unpacklo_epi32(a[0], a[1]), _mm_unpackhi_epi32(a[0], a[1]));
        const __m128i cd = _mm_add_epi32(_mm_unpacklo_epi32(a[2], a[3]), _mm_unpackhi_epi32(a[2], a[3]));
        return to_float(_mm_add_epi32(_mm_unpacklo_epi64(ab, cd), _mm_unpackhi_epi64(ab, cd)));
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
        // A denormal is a multiple of 2^-24, taken as an integer: no f32 denormal arises, whatever the mode of the CPU.
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

    using Int16s = __m128i;
    using Int16Pair = Int16s;  // the same two elements in every lane
    using Int32s = __m128i;
    static Int32s zero_int32s() { return _mm_setzero_si128(); }
    static Int32s load_int32s(const int32_t *p) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); }
    static void store_int32s(int32_t *p, Int32s x) { _mm_storeu_si128(reinterpret_cast<__m128i *>(p), x); }
    static Int16s load_int16s(const int16_t *p) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); }
    static void store_int16s(int16_t *p, Vec x) { _mm_storel_epi64(reinterpret_cast<__m128i *>(p), int16s_of(x)); }
    static Int16s widen(const std::byte *p) { return widen(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))); }
    static Int16s widen_pairs(const std::byte *a, const std::byte *b) {
        return widen(_mm_unpacklo_epi8(load_4(a), load_4(b)));
    }
    static Int16Pair broadcast_pair(const int16_t *p) {
        int pair;
        std::memcpy(&pair, p, sizeof pair);
        return _mm_set1_epi32(pair);
    }
    static Int32s multiply_add(Int16s a, Int16s b, Int32s c) { return _mm_add_epi32(c, _mm_madd_epi16(a, b)); }
    static Vec to_float(Int32s x) { return _mm_cvtepi32_ps(x); }

    // n <= nibble_groups groups of 32 elements of 4 bits, the first half of each in the lower ones: 8 less than an element,
    // times its group's multiplier. A product of less than 16 by less than 16 stays in its byte, so that two are had by one
    // of 16 bits.
    static constexpr int nibble_groups = 1;
    static void unpack_groups(const std::byte *p, const std::byte *multipliers, int, std::byte *to) {
        const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
        const __m128i low_bits = _mm_set1_epi8(15);
        const __m128i words = _mm_set1_epi16(static_cast<uint8_t>(*multipliers));
        const __m128i eight = _mm_set1_epi8(static_cast<char>(8 * static_cast<uint8_t>(*multipliers)));
        const auto store_products = [&](__m128i nibbles, std::byte *at) {
            _mm_storeu_si128(reinterpret_cast<__m128i *>(at), _mm_sub_epi8(_mm_mullo_epi16(nibbles, words), eight));
        };
        store_products(_mm_and_si128(both, low_bits), to);
        store_products(_mm_and_si128(_mm_srli_epi16(both, 4), low_bits), to + 16);
    }

private:
    static __m128i load_4(const std::byte *p) {
        int bytes;
        std::memcpy(&bytes, p, sizeof bytes);
        return _mm_cvtsi32_si128(bytes);
    }
    static __m128i widen(__m128i bytes) { return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8); }
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

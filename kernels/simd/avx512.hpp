#pragma once

#include "xsimd_isa.hpp"

namespace kvlane::isa {

template <class Self>
struct Avx512 : XsimdIsa<Self, xsimd::avx512bw> {
    using Base = XsimdIsa<Self, xsimd::avx512bw>;
    using Base::lanes;
    using typename Base::Vec;
    // As many as one tree of sums() takes; with 4 keys and a query, 21 of 32 registers.
    static constexpr int dot_accumulators = 16;
    static constexpr int sum_accumulators = 24;
    static constexpr int max_rows = 8;
    static constexpr bool keys_in_order = true;
    // The tree waits for the last multiply-adds, and what comes next waits for the tree. Where a vector of keys has a
    // quarter of each of four tokens, less than half of the tree is left; instead keys are shuffled, which waits for memory
    // alone.
    static constexpr int max_tokens_abreast = 4;

    using Base::load;
    using Base::store;

    static Vec in_register(Vec x) {
        __m512 r = x;
        __asm__("" : "+v"(r));
        return r;
    }
    // xsimd before 11 multiplies and adds.
    static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
    static Vec round(Vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    // What would underflow is masked out: the instruction alone takes a hundred cycles for it on Intel's CPUs.
    static Vec scale_by_power(Vec x, Vec n) {
        return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, _mm512_set1_ps(Base::zero_power), _CMP_NLE_UQ), x, n);
    }
    static bool any_greater(Vec a, float b) { return _mm512_cmp_ps_mask(a, _mm512_set1_ps(b), _CMP_GT_OQ) != 0; }
    static float reduce_max(Vec x) { return _mm512_reduce_max_ps(x); }

    // Lane i is the sum of a[i]'s lanes.
    static Vec sums(const Vec (&a)[lanes]) { return _mm512_castsi512_ps(tree(a, add_floats)); }
    static Vec sums(const __m512i (&a)[lanes]) { return to_float(tree(a, add_integers)); }
    // Lane 4 i + j is the sum of a[i]'s quarter j.
    static Vec sums(const __m512i (&a)[4]) {
        return to_float(_mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                                 sums_in_quarters(a[0], a[1], a[2], a[3], add_integers)));
    }

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

    using Int16s = __m512i;
    using Int16Pair = Int16s;  // the same two elements in every lane
    using Int32s = __m512i;
    static Int32s zero_int32s() { return _mm512_setzero_si512(); }
    static Int32s load_int32s(const int32_t *p) { return _mm512_loadu_si512(p); }
    static void store_int32s(int32_t *p, Int32s x) { _mm512_storeu_si512(p, x); }
    static Int16s load_int16s(const int16_t *p) {
        __m512i r = _mm512_loadu_si512(p);
        __asm__("" : "+v"(r));
        return r;
    }
    static void store_int16s(int16_t *p, Vec x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
    }
    static Int16s widen(const std::byte *p) {
        return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
    }
    // Of a row, as many elements as are brought together with those of three others: quarter i of each, one after the other,
    // is part i.
    using Bytes = __m256i;
    static Bytes row(const std::byte *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
    static Bytes row_partial(const std::byte *p, int n) { return _mm256_maskz_loadu_epi8((1u << n) - 1, p); }
    static Int16s widen(Bytes part) { return _mm512_cvtepi8_epi16(part); }
    static void transpose_quarters(const __m256i (&row)[4], __m256i (&part)[4]) {
        const __m256i even01 = _mm256_unpacklo_epi64(row[0], row[1]), odd01 = _mm256_unpackhi_epi64(row[0], row[1]);
        const __m256i even23 = _mm256_unpacklo_epi64(row[2], row[3]), odd23 = _mm256_unpackhi_epi64(row[2], row[3]);
        part[0] = _mm256_permute2x128_si256(even01, even23, 0x20);
        part[1] = _mm256_permute2x128_si256(odd01, odd23, 0x20);
        part[2] = _mm256_permute2x128_si256(even01, even23, 0x31);
        part[3] = _mm256_permute2x128_si256(odd01, odd23, 0x31);
    }
    static Int16s widen_pairs(const std::byte *a, const std::byte *b) {
        const __m128i rows[2] = {load_16(a), load_16(b)};
        return _mm512_cvtepi8_epi16(
            _mm256_set_m128i(_mm_unpackhi_epi8(rows[0], rows[1]), _mm_unpacklo_epi8(rows[0], rows[1])));
    }
    static Int16Pair broadcast_pair(const int16_t *p) { return broadcast_four(p); }
    // Of bytes, into every lane.
    static __m512i broadcast_four(const void *p) {
        int four;
        std::memcpy(&four, p, sizeof four);
        return _mm512_set1_epi32(four);
    }
    static Int32s multiply_add(Int16s a, Int16s b, Int32s c) { return _mm512_add_epi32(c, _mm512_madd_epi16(a, b)); }
    static Vec to_float(Int32s x) { return _mm512_cvtepi32_ps(x); }

    // n <= nibble_groups groups of 32 elements of 4 bits, the first half of each in the lower ones: 8 less than an element,
    // times its group's multiplier.
    static constexpr int nibble_groups = 4;
    static void unpack_groups(const std::byte *p, const std::byte *multipliers, int n, std::byte *to) {
        int four;
        std::memcpy(&four, multipliers, sizeof four);
        const __m512i nth =
            _mm512_set_epi32(0x03030303, 0x03030303, 0x03030303, 0x03030303, 0x02020202, 0x02020202, 0x02020202, 0x02020202,
                             0x01010101, 0x01010101, 0x01010101, 0x01010101, 0, 0, 0, 0);
        const __m512i multiplier = _mm512_shuffle_epi8(_mm512_set1_epi32(four), nth);
        const __m512i both = n == nibble_groups ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi64((1u << 2 * n) - 1, p);
        const __m512i eight_times = _mm512_slli_epi16(multiplier, 3);
        const __m512i lower = nibble_products(lower_nibbles(both), multiplier, eight_times);
        const __m512i upper = nibble_products(upper_nibbles(both), multiplier, eight_times);
        _mm512_storeu_si512(to, _mm512_permutex2var_epi64(lower, _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), upper));
        if (n > 2) {
            _mm512_storeu_si512(to + 64,
                                _mm512_permutex2var_epi64(lower, _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4), upper));
        }
    }

protected:
    static __m512i lower_nibbles(__m512i x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
    static __m512i upper_nibbles(__m512i x) { return lower_nibbles(_mm512_srli_epi16(x, 4)); }
    // A product of less than 16 by less than 16 stays in its byte, so that two are had by one of 16 bits.
    static __m512i nibble_products(__m512i nibbles, __m512i multiplier, __m512i less) {
        const __m512i words = _mm512_and_si512(multiplier, _mm512_set1_epi16(0xff));
        return _mm512_sub_epi8(_mm512_mullo_epi16(nibbles, words), less);
    }

    static constexpr auto add_integers = [](__m512i a, __m512i b) { return _mm512_add_epi32(a, b); };
    // Quarter i of the result is the sum of s[i]'s quarters.
    template <class Add>
    static __m512i sums_of_quarters(const __m512i (&s)[4], Add add) {
        const __m512i s01 = add(_mm512_shuffle_i32x4(s[0], s[1], 0x44), _mm512_shuffle_i32x4(s[0], s[1], 0xee));
        const __m512i s23 = add(_mm512_shuffle_i32x4(s[2], s[3], 0x44), _mm512_shuffle_i32x4(s[2], s[3], 0xee));
        return add(_mm512_shuffle_i32x4(s01, s23, 0x88), _mm512_shuffle_i32x4(s01, s23, 0xdd));
    }

private:
    static __m128i load_16(const std::byte *p) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); }
    static Vec widen_q8(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

    static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }

    static Vec widen_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }

    static constexpr auto add_floats = [](__m512i a, __m512i b) {
        return _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
    };
    static __m512i bits(Vec x) { return _mm512_castps_si512(x); }
    static __m512i bits(__m512i x) { return x; }

    template <class V, class Add>
    static __m512i tree(const V (&a)[lanes], Add add) {
        const auto four = [&](int i) __attribute__((always_inline)) {
            return sums_in_quarters(bits(a[i]), bits(a[i + 1]), bits(a[i + 2]), bits(a[i + 3]), add);
        };
        return sums_of_quarters({four(0), four(4), four(8), four(12)}, add);
    }

    // Quarter j of the result holds the sums of a, b, c and d over their quarter j.
    template <class Add>
    static __m512i sums_in_quarters(__m512i a, __m512i b, __m512i c, __m512i d, Add add) {
        const __m512i ab = add(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        const __m512i cd = add(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        return add(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    }
};

struct avx512 : Avx512<avx512> {};

}  // namespace kvlane::isa

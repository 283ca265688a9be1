#pragma once

#include <limits>

#include "xsimd_isa.hpp"

namespace kvlane::isa {

template <class Self>
struct Avx2 : XsimdIsa<Self, xsimd::fma3<xsimd::avx2>> {
    using Base = XsimdIsa<Self, xsimd::fma3<xsimd::avx2>>;
    using Base::lanes;
    using typename Base::Vec;
    // 2 FMA ports x 4 cycles need 8 accumulators; with the keys and a query they leave 16 registers unspilled.
    static constexpr int dot_accumulators = 8;
    static constexpr int sum_accumulators = 8;
    static constexpr int max_rows = 4;

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

    static Vec sums(const __m256i (&a)[lanes]) {
        const __m256i abcd = _mm256_hadd_epi32(_mm256_hadd_epi32(a[0], a[1]), _mm256_hadd_epi32(a[2], a[3]));
        const __m256i efgh = _mm256_hadd_epi32(_mm256_hadd_epi32(a[4], a[5]), _mm256_hadd_epi32(a[6], a[7]));
        return to_float(
            _mm256_add_epi32(_mm256_permute2x128_si256(abcd, efgh, 0x20), _mm256_permute2x128_si256(abcd, efgh, 0x31)));
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

    using Int16s = __m256i;
    using Int16Pair = Int16s;  // the same two elements in every lane
    using Int32s = __m256i;
    static Int32s zero_int32s() { return _mm256_setzero_si256(); }
    static Int32s load_int32s(const int32_t *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
    static void store_int32s(int32_t *p, Int32s x) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), x); }
    static Int16s load_int16s(const int16_t *p) {
        __m256i r = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
        __asm__("" : "+x"(r));
        return r;
    }
    static void store_int16s(int16_t *p, Vec x) { _mm_storeu_si128(reinterpret_cast<__m128i *>(p), int16s_of(x)); }
    static Int16s widen(const std::byte *p) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    }
    static Int16s widen_pairs(const std::byte *a, const std::byte *b) {
        return _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(load_8(a), load_8(b)));
    }
    static Int16Pair broadcast_pair(const int16_t *p) { return broadcast_four(p); }
    // Of bytes, into every lane.
    static __m256i broadcast_four(const void *p) {
        int four;
        std::memcpy(&four, p, sizeof four);
        return _mm256_set1_epi32(four);
    }
    static Int32s multiply_add(Int16s a, Int16s b, Int32s c) {
        return in_turn(_mm256_add_epi32(c, _mm256_madd_epi16(a, b)));
    }
    static Vec to_float(Int32s x) { return _mm256_cvtepi32_ps(x); }

    // n <= nibble_groups groups of 32 elements of 4 bits, the first half of each in the lower ones: 8 less than an element,
    // times its group's multiplier.
    static constexpr int nibble_groups = 2;
    static void unpack_groups(const std::byte *p, const std::byte *multipliers, int n, std::byte *to) {
        int16_t two;
        std::memcpy(&two, multipliers, sizeof two);
        const __m256i multiplier =
            _mm256_shuffle_epi8(_mm256_set1_epi16(two), _mm256_set_epi64x(0x0101010101010101, 0x0101010101010101, 0, 0));
        const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
        const __m256i both =
            _mm256_set_m128i(n > 1 ? _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + 16)) : first, first);
        const __m256i eight_times = _mm256_slli_epi16(multiplier, 3);
        const __m256i lower = nibble_products(lower_nibbles(both), multiplier, eight_times);
        const __m256i upper = nibble_products(upper_nibbles(both), multiplier, eight_times);
        auto *const groups = reinterpret_cast<__m256i *>(to);
        _mm256_storeu_si256(groups, _mm256_permute2x128_si256(lower, upper, 0x20));
        if (n > 1) {
            _mm256_storeu_si256(groups + 1, _mm256_permute2x128_si256(lower, upper, 0x31));
        }
    }

    static constexpr int value_bias = 0;
    static constexpr int nibble_accumulators = 8;
    using Int8s = __m256i;
    static Int8s load_int8s(const void *p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }
    // A group's half, or a part of several; see XsimdIsa.
    static Int8s load_int8s_partial(const void *p, int n) {
        return n == 16 ? _mm256_zextsi128_si256(_mm_loadu_si128(static_cast<const __m128i *>(p)))
                       : Base::load_int8s_partial(p, n);
    }
    static void store_int8s(std::byte *p, Int8s x) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), x); }
    static Int8s biased(Int8s x, int bias) { return _mm256_xor_si256(x, _mm256_set1_epi8(static_cast<char>(bias))); }
    // Element by element side by side: the four of every 16 that begin with element 4 i stand in vector i.
    static void interleave(Int8s (&row)[4]) {
        const __m256i lower01 = _mm256_unpacklo_epi8(row[0], row[1]), upper01 = _mm256_unpackhi_epi8(row[0], row[1]);
        const __m256i lower23 = _mm256_unpacklo_epi8(row[2], row[3]), upper23 = _mm256_unpackhi_epi8(row[2], row[3]);
        row[0] = _mm256_unpacklo_epi16(lower01, lower23);
        row[1] = _mm256_unpackhi_epi16(lower01, lower23);
        row[2] = _mm256_unpacklo_epi16(upper01, upper23);
        row[3] = _mm256_unpackhi_epi16(upper01, upper23);
    }
    // Into each half's lanes, its J-th four bytes.
    template <int J>
    static Int8s repeat_fours(const void *p) {
        return _mm256_shuffle_epi32(load_int8s(p), J * 0x55);
    }
    // Of each half the bytes of four vectors, one after the other.
    static void store_bytes_of_four(uint8_t *p, const Vec (&x)[4]) {
        const __m256i words01 = _mm256_packs_epi32(_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1]));
        const __m256i words23 = _mm256_packs_epi32(_mm256_cvtps_epi32(x[2]), _mm256_cvtps_epi32(x[3]));
        store_int8s(reinterpret_cast<std::byte *>(p), _mm256_packus_epi16(words01, words23));
    }
    // Lane 4 i + j is byte i of the two of row j.
    static Vec multipliers_of_four(const std::byte *p) {
        const __m128i rows = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p));
        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_shuffle_epi8(rows, _mm_set_epi64x(-1, 0x0705030106040200))));
    }
    static Vec repeat_four(const float *p) { return _mm256_broadcast_ps(reinterpret_cast<const __m128 *>(p)); }
    // Sums of four vectors of these, in the elements' order.
    static void in_order(Int32s (&sum)[4]) {
        const __m256i first[4] = {sum[0], sum[1], sum[2], sum[3]};
        sum[0] = _mm256_permute2x128_si256(first[0], first[1], 0x20);
        sum[1] = _mm256_permute2x128_si256(first[2], first[3], 0x20);
        sum[2] = _mm256_permute2x128_si256(first[0], first[1], 0x31);
        sum[3] = _mm256_permute2x128_si256(first[2], first[3], 0x31);
    }

protected:
    // One product after the other: g++ would make all of them first, or load everything, for which there are not the
    // registers.
    static Int32s in_turn(Int32s x) {
        __asm__ volatile("" : "+x"(x));
        return x;
    }
    static __m256i lower_nibbles(__m256i x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
    static __m256i upper_nibbles(__m256i x) { return lower_nibbles(_mm256_srli_epi16(x, 4)); }
    // A product of less than 16 by less than 16 stays in its byte, so that two are had by one of 16 bits.
    static __m256i nibble_products(__m256i nibbles, __m256i multiplier, __m256i less) {
        const __m256i words = _mm256_and_si256(multiplier, _mm256_set1_epi16(0xff));
        return _mm256_sub_epi8(_mm256_mullo_epi16(nibbles, words), less);
    }
    static __m128i int16s_of(Vec x) {
        const __m256i words = _mm256_cvtps_epi32(x);
        return _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    }

private:
    static __m128i load_8(const std::byte *p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)); }
};

// Pairs of products of bytes are summed in 16 bits first, where those of 4 bits have room.
struct avx2 : Avx2<avx2> {
    static constexpr int multiplied_bits = 4;
    // Of 4 bits, what is 8 less than they are.
    static constexpr int value_step = 1;
    static void nibbles_apart(Int8s both, Int8s &lower, Int8s &upper) {
        const Int8s bias = _mm256_set1_epi8(8);
        lower = _mm256_sub_epi8(lower_nibbles(both), bias);
        upper = _mm256_sub_epi8(upper_nibbles(both), bias);
    }
    static Int32s add_value_products(Int8s weight, Int8s value, Int32s c) {
        return in_turn(_mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(weight, value), _mm256_set1_epi16(1))));
    }

    static constexpr int most_queries_as_stored = std::numeric_limits<int>::max();
    using NibbleExcess = int16_t;
    // What nibbles' products with a query's halves are too large by, negated.
    static Int8s nibble_excess(const int8_t *lower, const int8_t *upper) {
        const __m256i eight = _mm256_set1_epi8(8);
        const __m256i products =
            _mm256_add_epi16(_mm256_maddubs_epi16(eight, load_int8s(lower)), _mm256_maddubs_epi16(eight, load_int8s(upper)));
        return _mm256_sub_epi16(_mm256_setzero_si256(), products);
    }
    struct Nibbles {
        Int8s lower, upper;
    };
    static Nibbles nibbles_of(Int8s both) { return {lower_nibbles(both), upper_nibbles(both)}; }
    // Keys whose products are in one sum.
    static constexpr int nibble_keys = 1;
    static Int16s multipliers_of(const std::byte *const (&keys)[nibble_keys]) {
        int16_t two;
        std::memcpy(&two, keys[0], sizeof two);
        constexpr int64_t first = static_cast<int64_t>(0xff00ff00ff00ff00),
                          second = static_cast<int64_t>(0xff01ff01ff01ff01);
        return _mm256_shuffle_epi8(_mm256_set1_epi16(two), _mm256_set_epi64x(second, second, first, first));
    }
    static Int32s add_nibble_products(const Nibbles (&k)[nibble_keys], Int16s multipliers, const int8_t *lower,
                                      const int8_t *upper, const int16_t *excess, Int32s c) {
        const __m256i products = _mm256_add_epi16(_mm256_maddubs_epi16(k[0].lower, load_int8s(lower)),
                                                  _mm256_maddubs_epi16(k[0].upper, load_int8s(upper)));
        const __m256i of_groups = _mm256_add_epi16(products, load_int8s(excess));
        return in_turn(_mm256_add_epi32(c, _mm256_madd_epi16(of_groups, multipliers)));
    }
    static Vec nibble_sums(const Int32s (&a)[lanes / nibble_keys]) { return sums(a); }
};

}  // namespace kvlane::isa

#pragma once

#include "../q4_levels.hpp"
#include "xsimd_isa.hpp"

namespace kvlane::isa {

template <class Self>
struct Neon : XsimdIsa<Self, xsimd::neon64> {
    using Base = XsimdIsa<Self, xsimd::neon64>;
    using Base::lanes;
    using typename Base::Vec;

    static constexpr int gemm_rows = 4;
    static constexpr int gemm_accumulators = 16;
    static constexpr int max_panels = 4;
    static constexpr bool has_byte_products = false;

    // The levels of the codes of q4 in the columns whose granules begin at p: of the lower halves of its bytes, and of the
    // upper.
    static void unpack_codes(const std::byte *p, std::byte *lower, std::byte *upper) {
        const uint8x16_t codes = vreinterpretq_u8_s8(granules(p));
        const int8x16_t levels = vld1q_s8(q4::levels);
        vst1q_s8(reinterpret_cast<int8_t *>(lower), vqtbl1q_s8(levels, vandq_u8(codes, vdupq_n_u8(15))));
        vst1q_s8(reinterpret_cast<int8_t *>(upper), vqtbl1q_s8(levels, vshrq_n_u8(codes, 4)));
    }

    // Transposes: lane i of vector j becomes lane j of vector i.
    static void transpose(Vec (&x)[lanes]) {
        const auto pairs = [](float32x4_t a) { return vreinterpretq_f64_f32(a); };
        const float64x2_t even01 = pairs(vtrn1q_f32(x[0], x[1])), odd01 = pairs(vtrn2q_f32(x[0], x[1]));
        const float64x2_t even23 = pairs(vtrn1q_f32(x[2], x[3])), odd23 = pairs(vtrn2q_f32(x[2], x[3]));
        x[0] = vreinterpretq_f32_f64(vtrn1q_f64(even01, even23));
        x[1] = vreinterpretq_f32_f64(vtrn1q_f64(odd01, odd23));
        x[2] = vreinterpretq_f32_f64(vtrn2q_f64(even01, even23));
        x[3] = vreinterpretq_f32_f64(vtrn2q_f64(odd01, odd23));
    }
    // Stores the low 16 bits of every lane, and the high 16 bits.
    static void store_halves(std::byte *lower, std::byte *upper, Vec x) {
        const uint32x4_t words = vreinterpretq_u32_f32(x);
        vst1_u16(reinterpret_cast<uint16_t *>(lower), vmovn_u32(words));
        vst1_u16(reinterpret_cast<uint16_t *>(upper), vshrn_n_u32(words, 16));
    }
    // Element E of a granule.
    template <int E, class Format>
    static Vec granule_element(Format format, const std::byte *p) {
        return load(format, p);
    }
    template <int E>
    static Vec granule_element(format::bf16, const std::byte *p) {
        const uint32x4_t both = vreinterpretq_u32_s8(granules(p));
        return vreinterpretq_f32_u32(E == 0 ? vshlq_n_u32(both, 16) : vandq_u32(both, vdupq_n_u32(0xffff0000)));
    }
    template <int E>
    static Vec granule_element(format::q8, const std::byte *p) {
        return vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(vreinterpretq_s32_s8(granules(p)), 24 - 8 * E), 24));
    }
    static int8x16_t granules(const std::byte *p) { return vld1q_s8(reinterpret_cast<const int8_t *>(p)); }

    using Sums = int32x4_t;
    static Sums broadcast_sum(int32_t x) { return vdupq_n_s32(x); }
    template <int E>
    static int16x8_t word_pairs(const std::byte *p) {
        const int16x8_t bytes = vreinterpretq_s16_s8(granules(p));
        return vshrq_n_s16(E == 0 ? vshlq_n_s16(bytes, 8) : bytes, 8);
    }
    static int16x8_t broadcast_words(const int16_t *a) {
        int32_t two;
        std::memcpy(&two, a, sizeof two);
        return vreinterpretq_s16_s32(vdupq_n_s32(two));
    }
    // to[i] = a[i] * b[i] / 2^15, rounded, for 2 * lanes elements; not of a[i] = b[i] = -2^15.
    static void multiply_words(int16_t *to, const int16_t *a, const int16_t *b) {
        vst1q_s16(to, vqrdmulhq_s16(vld1q_s16(a), vld1q_s16(b)));
    }
    static Sums add_word_products(int16x8_t a, int16x8_t b, Sums c) {
        return vaddq_s32(c, vpaddq_s32(vmull_s16(vget_low_s16(b), vget_low_s16(a)), vmull_high_s16(b, a)));
    }
    using Base::load;
    using Base::store;

    // xsimd's version is an approximation.
    static Vec divide(Vec a, Vec b) { return vdivq_f32(a, b); }

    static float reduce_max(Vec x) { return vmaxvq_f32(x); }

    // xsimd's version calls functions that are shared between the units of all isas.
    static Vec scale_by_power(Vec x, Vec n) {
        return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23)));
    }

    // Lane i is x's lane i ^ Step.
    template <int Step>
    static Vec swap_lanes(Vec x) {
        return Step == 1 ? vrev64q_f32(x) : vextq_f32(x, x, 2);
    }

    static Vec load(format::f16, const std::byte *p) { return vcvt_f32_f16(vreinterpret_f16_u16(load_u16(p))); }
    static Vec load(format::bf16, const std::byte *p) { return vreinterpretq_f32_u32(vshll_n_u16(load_u16(p), 16)); }

    static void store(format::f16, std::byte *p, Vec x) { store_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }
    static void store(format::bf16, std::byte *p, Vec x) {
        const uint32x4_t u = vreinterpretq_u32_f32(x);
        const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
        const uint32x4_t rounded = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        const uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
        const uint32x4_t is_number = vceqq_f32(x, x);
        store_u16(p, vshrn_n_u32(vbslq_u32(is_number, rounded, quiet), 16));
    }

    static Vec load(format::q8, const std::byte *p) { return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(load_4(p))))); }
    static void store(format::q8, std::byte *p, Vec x) {
        const int16x4_t words = vqmovn_s32(vcvtnq_s32_f32(x));
        const int32_t bytes = vget_lane_s32(vreinterpret_s32_s8(vqmovn_s16(vcombine_s16(words, words))), 0);
        std::memcpy(p, &bytes, sizeof bytes);
    }

    static void store_int16s(int16_t *p, Vec x) { vst1_s16(p, vqmovn_s32(vcvtnq_s32_f32(x))); }
    static Vec to_float(Sums x) { return vcvtq_f32_s32(x); }

private:
    static int8x8_t load_4(const std::byte *p) {
        int32_t bytes;
        std::memcpy(&bytes, p, sizeof bytes);
        return vreinterpret_s8_s32(vdup_n_s32(bytes));
    }
    static uint16x4_t load_u16(const std::byte *p) {
        return vreinterpret_u16_u8(vld1_u8(reinterpret_cast<const uint8_t *>(p)));
    }
    static void store_u16(std::byte *p, uint16x4_t h) { vst1_u8(reinterpret_cast<uint8_t *>(p), vreinterpret_u8_u16(h)); }
};

struct neon : Neon<neon> {};

}  // namespace kvlane::isa

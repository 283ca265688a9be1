#pragma once

#include "xsimd_isa.hpp"

namespace kvlane::isa {

template <class Self>
struct Neon : XsimdIsa<Self, xsimd::neon64> {
    using Base = XsimdIsa<Self, xsimd::neon64>;
    using Base::lanes;
    using typename Base::Vec;
    // 16 accumulators, 4 keys or values and a query: 21 of 32 registers.
    static constexpr int dot_accumulators = 16;
    static constexpr int sum_accumulators = 16;
    static constexpr int max_rows = 8;

    using Base::load;
    using Base::store;

    // xsimd's own is an approximation.
    static Vec divide(Vec a, Vec b) { return vdivq_f32(a, b); }

    static float reduce_max(Vec x) { return vmaxvq_f32(x); }

    // xsimd's own goes through functions that are shared by every isa's unit.
    static Vec scale_by_power(Vec x, Vec n) {
        return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23)));
    }

    // Lane i is the sum of a[i]'s lanes.
    static Vec sums(const Vec (&a)[lanes]) { return vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])); }
    static Vec sums(const int32x4_t (&a)[lanes]) {
        return to_float(vpaddq_s32(vpaddq_s32(a[0], a[1]), vpaddq_s32(a[2], a[3])));
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

    using Int16s = int16x8_t;
    struct Int16Pair {
        int16x4_t elements;  // the first two
    };
    using Int32s = int32x4_t;
    static Int32s zero_int32s() { return vdupq_n_s32(0); }
    static Int32s load_int32s(const int32_t *p) { return vld1q_s32(p); }
    static void store_int32s(int32_t *p, Int32s x) { vst1q_s32(p, x); }
    static Int16s load_int16s(const int16_t *p) { return vld1q_s16(p); }
    static void store_int16s(int16_t *p, Vec x) { vst1_s16(p, vqmovn_s32(vcvtnq_s32_f32(x))); }
    static Int16s widen(const std::byte *p) { return vmovl_s8(vld1_s8(reinterpret_cast<const int8_t *>(p))); }
    // A lane's pair stands in the two halves, which are multiplied one after the other.
    static Int16s widen_pairs(const std::byte *a, const std::byte *b) {
        return vmovl_s8(vreinterpret_s8_s32(vzip1_s32(vreinterpret_s32_s8(load_4(a)), vreinterpret_s32_s8(load_4(b)))));
    }
    static Int16Pair broadcast_pair(const int16_t *p) {
        int32_t pair;
        std::memcpy(&pair, p, sizeof pair);
        return {vreinterpret_s16_s32(vdup_n_s32(pair))};
    }
    static Int32s multiply_add(Int16s a, Int16s b, Int32s c) {
        return in_turn(vmlal_high_s16(vmlal_s16(c, vget_low_s16(a), vget_low_s16(b)), a, b));
    }
    static Int32s multiply_add(Int16Pair a, Int16s b, Int32s c) {
        return in_turn(vmlal_high_lane_s16(vmlal_lane_s16(c, vget_low_s16(b), a.elements, 0), b, a.elements, 1));
    }
    static Vec to_float(Int32s x) { return vcvtq_f32_s32(x); }

    // A group of 32 elements of 4 bits, the first half of it in the lower ones: 8 less than an element, times the
    // multiplier.
    static constexpr int nibble_groups = 1;
    static void unpack_groups(const std::byte *p, const std::byte *multipliers, int, std::byte *to) {
        int8x16_t lower, upper;
        multiply_nibbles(vld1q_u8(reinterpret_cast<const uint8_t *>(p)), vdupq_n_u8(static_cast<uint8_t>(*multipliers)),
                         lower, upper);
        vst1q_s8(reinterpret_cast<int8_t *>(to), lower);
        vst1q_s8(reinterpret_cast<int8_t *>(to) + 16, upper);
    }

protected:
    // 8 less than what stands in the lower bits, and in the upper ones, times the multiplier.
    static void multiply_nibbles(uint8x16_t both, uint8x16_t multiplier, int8x16_t &lower, int8x16_t &upper) {
        const uint8x16_t eight_times = vshlq_n_u8(multiplier, 3);
        lower = vreinterpretq_s8_u8(vsubq_u8(vmulq_u8(vandq_u8(both, vdupq_n_u8(15)), multiplier), eight_times));
        upper = vreinterpretq_s8_u8(vsubq_u8(vmulq_u8(vshrq_n_u8(both, 4), multiplier), eight_times));
    }
    // One after the other: g++ would load everything first, for which there are not the registers.
    static Int32s in_turn(Int32s x) {
        __asm__ volatile("" : "+w"(x));
        return x;
    }

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

#pragma once

#include "xsimd_isa.hpp"

namespace kvlane::isa {

struct neon : XsimdIsa<neon, xsimd::neon64> {
    using Base = XsimdIsa<neon, xsimd::neon64>;
    // 16 accumulators, 4 keys or values and a query: 21 of 32 registers.
    static constexpr int dot_accumulators = 16;
    static constexpr int sum_accumulators = 16;
    static constexpr int max_rows = 8;
    static constexpr int rows_in_order = 0;

    using Base::load;
    using Base::store;

    static float reduce_max(Vec x) { return vmaxvq_f32(x); }

    // xsimd's own goes through functions that are shared by every isa's unit.
    static Vec scale_by_power(Vec x, Vec n) {
        return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23)));
    }

    // Lane i is the sum of a[i]'s lanes.
    static Vec sums(const Vec (&a)[lanes]) { return vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])); }

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

private:
    static uint16x4_t load_u16(const std::byte *p) {
        return vreinterpret_u16_u8(vld1_u8(reinterpret_cast<const uint8_t *>(p)));
    }
    static void store_u16(std::byte *p, uint16x4_t h) { vst1_u8(reinterpret_cast<uint8_t *>(p), vreinterpret_u8_u16(h)); }
};

}  // namespace kvlane::isa

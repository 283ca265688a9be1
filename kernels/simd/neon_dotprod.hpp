#pragma once

#include "neon.hpp"

namespace kvlane::isa {

// Sums of four products of bytes in one instruction, both operands signed or both unsigned. Keys and queries are signed;
// weights, for their 8th bit, are not: values are biased.
template <class Self>
struct NeonDotprod : Neon<Self> {
    using Base = Neon<Self>;
    using Base::lanes;
    using typename Base::Int32s;
    using typename Base::Vec;

    static constexpr int key_bias = 0;
    static constexpr int value_bias = 128;
    static constexpr int multiplied_bits = 8;
    using Int8s = int8x16_t;
    static Int8s load_int8s(const void *p) { return vld1q_s8(static_cast<const int8_t *>(p)); }
    static void store_int8s(std::byte *p, Int8s x) { vst1q_s8(reinterpret_cast<int8_t *>(p), x); }
    static Int8s biased(Int8s x, int bias) { return veorq_s8(x, vdupq_n_s8(static_cast<int8_t>(bias))); }
    // The bytes of four i of every key, side by side, of 4 bits each: those in the lower ones, and in the upper ones, times
    // byte N of their keys' multipliers.
    template <int N>
    static void unpack_biased(Int8s fours, Int8s multipliers, Int8s &lower, Int8s &upper) {
        const uint8x16_t nth = vreinterpretq_u8_u32(uint32x4_t{0, 0x04040404, 0x08080808, 0x0c0c0c0c} + 0x01010101u * N);
        Base::multiply_nibbles(vreinterpretq_u8_s8(fours), vqtbl1q_u8(vreinterpretq_u8_s8(multipliers), nth), lower, upper);
    }
    static Int32s add_key_products(Int8s key, Int8s query, Int32s c) { return Base::in_turn(vdotq_s32(c, key, query)); }
    static Int32s add_value_products(Int8s weight, Int8s biased, Int32s c) {
        return Base::in_turn(vreinterpretq_s32_u32(
            vdotq_u32(vreinterpretq_u32_s32(c), vreinterpretq_u8_s8(weight), vreinterpretq_u8_s8(biased))));
    }
    static Int32s add(Int32s a, Int32s b) { return vaddq_s32(a, b); }
    static Int32s broadcast_int32(int32_t x) { return vdupq_n_s32(x); }
    static Int8s broadcast_four(const void *p) {
        int32_t four;
        std::memcpy(&four, p, sizeof four);
        return vreinterpretq_s8_s32(vdupq_n_s32(four));
    }
    // Four i of every row, side by side, are vector i.
    static void transpose_fours(Int8s (&row)[lanes]) {
        int64x2_t lower[2], upper[2];  // fours 0 and 1, 2 and 3 of two rows
        for (int i = 0; i < 2; ++i) {
            const int32x4_t a = vreinterpretq_s32_s8(row[2 * i]), b = vreinterpretq_s32_s8(row[2 * i + 1]);
            lower[i] = vreinterpretq_s64_s32(vzip1q_s32(a, b));
            upper[i] = vreinterpretq_s64_s32(vzip2q_s32(a, b));
        }
        row[0] = vreinterpretq_s8_s64(vzip1q_s64(lower[0], lower[1]));
        row[1] = vreinterpretq_s8_s64(vzip2q_s64(lower[0], lower[1]));
        row[2] = vreinterpretq_s8_s64(vzip1q_s64(upper[0], upper[1]));
        row[3] = vreinterpretq_s8_s64(vzip2q_s64(upper[0], upper[1]));
    }
    // Element by element side by side: the four that begin with element 4 i stand in vector i.
    static void interleave(Int8s (&row)[4]) {
        const int16x8_t lower01 = zip_lower(row[0], row[1]), upper01 = zip_upper(row[0], row[1]);
        const int16x8_t lower23 = zip_lower(row[2], row[3]), upper23 = zip_upper(row[2], row[3]);
        row[0] = vreinterpretq_s8_s16(vzip1q_s16(lower01, lower23));
        row[1] = vreinterpretq_s8_s16(vzip2q_s16(lower01, lower23));
        row[2] = vreinterpretq_s8_s16(vzip1q_s16(upper01, upper23));
        row[3] = vreinterpretq_s8_s16(vzip2q_s16(upper01, upper23));
    }
    // Of 4 bits, 16 times what is 8 less than they are.
    static constexpr int value_step = 16;
    static constexpr int nibble_accumulators = 16;
    static void nibbles_apart(Int8s both, Int8s &lower, Int8s &upper) {
        const Int8s less = biased(both, 0x88);
        lower = vshlq_n_s8(less, 4);
        upper = vandq_s8(less, vdupq_n_s8(static_cast<int8_t>(0xf0)));
    }
    // Into all lanes, the J-th four bytes.
    template <int J>
    static Int8s repeat_fours(const void *p) {
        return vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(load_int8s(p)), J));
    }
    // The bytes of four vectors, one after the other.
    static void store_bytes_of_four(uint8_t *p, const Vec (&x)[4]) {
        const auto words = [](Vec a, Vec b) {
            return vcombine_u16(vqmovun_s32(vcvtnq_s32_f32(a)), vqmovun_s32(vcvtnq_s32_f32(b)));
        };
        vst1q_u8(p, vcombine_u8(vqmovn_u16(words(x[0], x[1])), vqmovn_u16(words(x[2], x[3]))));
    }
    // Lane j is byte j.
    static Vec multipliers_of_four(const std::byte *p) { return Base::load(format::q8{}, p); }
    static Vec repeat_four(const float *p) { return vld1q_f32(p); }
    // Sums of four vectors of these are in the elements' order.
    static void in_order(Int32s (&)[4]) {}

private:
    static int16x8_t zip_lower(Int8s a, Int8s b) { return vreinterpretq_s16_s8(vzip1q_s8(a, b)); }
    static int16x8_t zip_upper(Int8s a, Int8s b) { return vreinterpretq_s16_s8(vzip2q_s8(a, b)); }
};

struct neon_dotprod : NeonDotprod<neon_dotprod> {};

}  // namespace kvlane::isa

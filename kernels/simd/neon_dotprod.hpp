#pragma once

#include "neon.hpp"

namespace kvlane::isa {

// Sums four products of bytes in one instruction, with both operands signed or both unsigned. Keys and queries are signed;
// weights are unsigned, to use their 8th bit, so values are offset to be unsigned too.
template <class Self>
struct NeonDotprod : Neon<Self> {
    using Base = Neon<Self>;
    using Base::lanes;
    using typename Base::Vec;

    static constexpr bool has_byte_products = true;
    // The operands are both signed or both unsigned: values are offset by 128, and the initial accumulators subtract 128
    // times the sum of the weights.
    static constexpr int key_bias_of_sums = 0;
    static constexpr int value_bias_of_sums = -128;
    template <bool Keys>
    static int8x16_t byte_fours(const std::byte *p) {
        return Keys ? Base::granules(p) : veorq_s8(Base::granules(p), vdupq_n_s8(-128));
    }
    static int8x16_t broadcast_bytes(const uint8_t *a) {
        int32_t four;
        std::memcpy(&four, a, sizeof four);
        return vreinterpretq_s8_s32(vdupq_n_s32(four));
    }
    template <bool Keys>
    static int32x4_t add_byte_products(int8x16_t a, int8x16_t b, int32x4_t c) {
        return Keys ? vdotq_s32(c, b, a)
                    : vreinterpretq_s32_u32(
                          vdotq_u32(vreinterpretq_u32_s32(c), vreinterpretq_u8_s8(b), vreinterpretq_u8_s8(a)));
    }
};

struct neon_dotprod : NeonDotprod<neon_dotprod> {};

}  // namespace kvlane::isa

#pragma once

#include "neon_dotprod.hpp"

namespace kvlane::isa {

// Also multiplies unsigned by signed bytes: weights and values need no offset.
struct neon_i8mm : NeonDotprod<neon_i8mm> {
    static constexpr int value_bias_of_sums = 0;
    template <bool Keys>
    static int8x16_t byte_fours(const std::byte *p) {
        return granules(p);
    }
    template <bool Keys>
    static int32x4_t add_byte_products(int8x16_t a, int8x16_t b, int32x4_t c) {
        return Keys ? vdotq_s32(c, b, a) : vusdotq_s32(c, vreinterpretq_u8_s8(a), b);
    }
};

}  // namespace kvlane::isa

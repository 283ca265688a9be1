#pragma once

#include "neon_dotprod.hpp"

namespace kvlane::isa {

// Products of unsigned by signed bytes too, for weights and values as they are.
struct neon_i8mm : NeonDotprod<neon_i8mm> {
    static constexpr int value_bias = 0;
    static Int32s add_value_products(Int8s weight, Int8s value, Int32s c) {
        return in_turn(vusdotq_s32(c, vreinterpretq_u8_s8(weight), value));
    }
};

}  // namespace kvlane::isa

#pragma once

#include "neon.hpp"

namespace kvlane::isa {

// Multiplies and sums bytes in one instruction.
struct neon_dotprod : Neon<neon_dotprod> {
    static constexpr bool has_byte_products = true;
    static constexpr int panel_offset = 0;
    static int8x16_t byte_fours(const std::byte *p) { return granules(p); }
    static int8x16_t broadcast_bytes(const int8_t *a) {
        int32_t four;
        std::memcpy(&four, a, sizeof four);
        return vreinterpretq_s8_s32(vdupq_n_s32(four));
    }
    static int32x4_t add_byte_products(int8x16_t a, int8x16_t b, int32x4_t c) { return vdotq_s32(c, b, a); }
};

}  // namespace kvlane::isa

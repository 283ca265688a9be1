#pragma once

#include "avx2.hpp"

namespace kvlane::isa {

// Sums of products in one instruction.
struct avx2_vnni : Avx2<avx2_vnni> {
    static constexpr int most_query = 127;
    static constexpr float most_weight = 255;
    static Int32s multiply_add(Int16s a, Int16s b, Int32s c) { return in_turn(_mm256_dpwssd_avx_epi32(c, a, b)); }
    static Int32s add_key_products(Int8s biased, Int8s query, Int32s c) {
        return in_turn(_mm256_dpbusd_avx_epi32(c, biased, query));
    }
    static Int32s add_value_products(Int8s weight, Int8s value, Int32s c) {
        return in_turn(_mm256_dpbusd_avx_epi32(c, weight, value));
    }
};

}  // namespace kvlane::isa

#pragma once

#include "avx2.hpp"

namespace kvlane::isa {

// Pairs of products and their sum in one instruction.
struct avx2_vnni : Avx2<avx2_vnni> {
    // One after the other: g++ would load everything first, for which there are not the registers.
    static Int32s multiply_add(Int16s a, Int16s b, Int32s c) {
        __m256i sum = _mm256_dpwssd_avx_epi32(c, a, b);
        __asm__ volatile("" : "+x"(sum));
        return sum;
    }
};

}  // namespace kvlane::isa

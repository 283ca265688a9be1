#pragma once

#include "avx512.hpp"

namespace kvlane::isa {

// Pairs of products and their sum in one instruction.
struct avx512_vnni : Avx512<avx512_vnni> {
    // One after the other: g++ would load everything first, for which there are not the registers.
    static Int32s multiply_add(Int16s a, Int16s b, Int32s c) {
        __m512i sum = _mm512_dpwssd_epi32(c, a, b);
        __asm__ volatile("" : "+v"(sum));
        return sum;
    }
};

}  // namespace kvlane::isa

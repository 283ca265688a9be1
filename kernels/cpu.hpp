#pragma once

#include <cstdint>

namespace kvlane {

// CPU features that an isa may require. The operating system must support them too: save the registers at context switches.
enum : uint32_t {
    cpu_base = 0,  // the architecture's own baseline
    cpu_avx2 = 1,
    cpu_fma = 2,
    cpu_f16c = 4,
    cpu_avx512 = 8,  // F, BW, CD, DQ and VL
    cpu_avx_vnni = 16,
    cpu_avx512_vnni = 32,
    cpu_dotprod = 64,  // FEAT_DotProd: SDOT
};

// The features of the running CPU, or'ed.
uint32_t cpu_features();

}  // namespace kvlane

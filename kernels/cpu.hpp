#pragma once

#include <cstdint>

namespace kvlane {

// What an isa may need of the CPU, its operating system included: the registers must be saved at a switch of threads.
enum : uint32_t {
    cpu_base = 0,  // the architecture's own baseline
    cpu_avx2 = 1,
    cpu_fma = 2,
    cpu_f16c = 4,
    cpu_avx512 = 8,  // F, BW, CD, DQ and VL
    cpu_avx_vnni = 16,
    cpu_avx512_vnni = 32,
};

// The features of the CPU that runs this, or'ed.
uint32_t cpu_features();

// How a CPU wants rows to be asked for before they are worked on.
enum class Prefetch : uint8_t {
    none,
    near,  // into L1, a short way ahead: its own prefetchers take that for the order of reading, and run on from there
    far,   // into L2, many rows ahead: its own prefetchers do not see it
};

// What suits the CPU that runs this.
Prefetch cpu_prefetch();

}  // namespace kvlane

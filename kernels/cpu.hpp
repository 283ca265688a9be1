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
    cpu_dotprod = 64,  // FEAT_DotProd: SDOT and UDOT
    cpu_i8mm = 128,    // FEAT_I8MM: USDOT among others
};

// The features of the CPU that runs this, or'ed.
uint32_t cpu_features();

// Which of a core's caches rows are asked into before they are worked on.
enum class Prefetch : uint8_t { none, l1, l2 };

// How a CPU wants rows to be asked for, and worked on.
struct ReadPlan {
    Prefetch into;
    Prefetch into_apart;  // where rows do not follow each other
    int bytes_ahead;
    int turn_bytes;  // of keys, before as many values have their turn; at most a tile
    bool in_halves;  // whether a turn's worth of rows is asked for in two halves side by side, or in order
};

namespace plan {

// A short way ahead: a CPU's own prefetchers take that for the order of reading, and run on from there. They follow keys and
// values at the same time where turns are short; one of them alone has to start anew whenever its turn comes.
static constexpr ReadPlan standard = {Prefetch::l1, Prefetch::l1, 3072, 2048, false};

// Many rows ahead, unseen by the CPU's own prefetchers, on Zen 3 in two places at once. Turns cost, and are long. Zen 4
// wants few rows of queries, whose keys these do follow, to ask for no multiple of a turn.
static constexpr ReadPlan zen_3 = {Prefetch::l2, Prefetch::l2, 16384, 16384, true};
static constexpr ReadPlan zen_4 = {Prefetch::l2, Prefetch::l2, 16384, 16384, false};
static constexpr ReadPlan zen_4_few = {Prefetch::l2, Prefetch::l2, 16384 + 512, 16384, false};

// Into an L1 that holds three tiles of 16 bits, and tile by tile: one ahead, or half of one where a single row of queries
// waits for memory alone. Rows that lie apart by a power of two would fall into few of its sets, and drive each other out.
static constexpr ReadPlan zen_5 = {Prefetch::l1, Prefetch::l2, 16384, 65536, false};
static constexpr ReadPlan zen_5_single = {Prefetch::l1, Prefetch::l2, 8192, 65536, false};

static constexpr ReadPlan all[] = {standard, zen_3, zen_4, zen_4_few, zen_5, zen_5_single};

}  // namespace plan

// What suits the CPU that runs this, for so many query heads a KV head.
ReadPlan cpu_read_plan(uint32_t group);

}  // namespace kvlane

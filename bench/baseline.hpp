#pragma once

// What kvlane is measured against, compiled for the isa in force: the machine's limits, and attention as runtimes without
// such a library do it.

#include <cstddef>
#include <cstdint>

#include "kvlane/kvlane.h"

namespace bench {

// Ways to read memory: 1, 2 or 4 streams, without and with prefetch. Which one is the fastest differs by machine.
inline constexpr int n_read_variants = 6;

// One query head as runtimes without such a library do it: the scores of its whole row, softmax, then the values. The view
// is of one span of rows; scores has room for len floats.
using Naive = void(const kvl_view &view, int64_t len, uint32_t kv_head, const float *q, float scale, float *scores,
                   float *out);

struct Baseline {
    const char *name;

    // Reads bytes, a multiple of 256, in one of the ways. The value returned keeps the reads alive.
    float (*read)(const std::byte *data, size_t bytes, int variant);

    // Does about n independent multiply-adds of f32, and says how many.
    int64_t (*multiply_add)(int64_t n, float *sink);

    Naive *naive;
};

// Returns the baseline of the isa in force.
const Baseline &baseline();

// Returns plain C++'s, the reference that results are checked against.
const Baseline &scalar_baseline();

}  // namespace bench

#pragma once

// q4: 16 levels of 8 bits, times a multiplier per group of 32 elements, times a scale per row:
//
//   x = scale * multiplier / 128 * levels[code]
//
// Levels are spaced by 14 near 0, and by one more for each level beyond the third, so that they suit normally distributed
// elements, as in most rotated rows, and also rotated rows with few large channels. Each group's multiplier, an 8-bit
// integer, is chosen for a small error and may be negative, because levels reach farther on one side. This header is
// included by units of every isa, so it defines no function with external linkage.

#include <cstdint>

namespace kvlane::q4 {

static constexpr int multiplier_bits = 7;  // a multiplier stands for as many bits after the binary point
static constexpr int max_multiplier = 127;

static constexpr int n_levels = 16;
static constexpr int8_t levels[n_levels] = {-127, -108, -90, -73, -57, -42, -28, -14, 0, 14, 28, 42, 57, 73, 90, 108};

}  // namespace kvlane::q4

#pragma once

// q4: 16 levels of 8 bits, times a multiplier per group of 32 elements, times a scale per row:
//
//   x = scale * ((levels[code] * multiplier + 64) >> 7)
//
// Levels are spaced by 14 near 0, and by one more for each level beyond the third, so that they suit normally distributed
// elements, as in most rotated rows, and also rotated rows with few large channels. Each group's multiplier is chosen for a
// small error and may be negative, because levels reach farther on one side. Before the row scale, dequantized elements are
// 8-bit integers, as in q8. This header is included by units of every isa, so it defines no function with external linkage.

#include <cstdint>

namespace kvlane::q4 {

static constexpr int max_multiplier = 127;

static constexpr int n_levels = 16;
static constexpr int8_t levels[n_levels] = {-127, -108, -90, -73, -57, -42, -28, -14, 0, 14, 28, 42, 57, 73, 90, 108};

static constexpr int dequantized(int code, int multiplier) { return (levels[code] * multiplier + 64) >> 7; }

}  // namespace kvlane::q4

#pragma once

// q4: 16 levels of 8 bits, times a multiplier of each group of 32 elements, times a scale of each row:
//
//   x = scale * ((levels[code] * multiplier + 64) >> 7)
//
// The levels are halfway between those of least squared error for normally distributed elements, which rotated rows nearly
// have, and evenly spaced ones, which suit rotated rows with few large channels. Each group has the multiplier of least
// error, of either sign: levels reach farther on one side. Dequantized but for the scale, elements are integers of 8 bits,
// as q8's are. This header is read by units of every isa, so it defines no function with external linkage.

#include <cstdint>

namespace kvlane::q4 {

static constexpr int max_multiplier = 127;

static constexpr int n_levels = 16;
static constexpr int8_t levels[n_levels] = {-127, -105, -87, -71, -56, -42, -28, -14, 0, 14, 28, 42, 57, 73, 90, 109};

static constexpr int dequantized(int code, int multiplier) { return (levels[code] * multiplier + 64) >> 7; }

}  // namespace kvlane::q4

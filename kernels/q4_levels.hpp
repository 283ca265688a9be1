#pragma once

// q4: 16 levels of 8 bits, times a multiplier per group of 32 elements, times a scale per row:
//
//   x = scale * multiplier / 128 * levels[code]
//
// Levels are spaced by 14 near 0, and by one more for each level beyond the third, so that they suit normally distributed
// elements, as in most rotated rows, and also rotated rows with few large channels. Each group's multiplier, an 8-bit
// integer, is chosen for a small error and may be negative, because levels reach farther on one side. Units of every
// isa include this header, so what it defines is internal or templated on the isa.

#include <cstddef>
#include <cstdint>

namespace kvlane::q4 {

static constexpr int one = 128;  // the multiplier of 1
static constexpr int max_multiplier = 127;

static constexpr int n_levels = 16;
static constexpr int8_t levels[n_levels] = {-127, -108, -90, -73, -57, -42, -28, -14, 0, 14, 28, 42, 57, 73, 90, 108};

// The levels of n bytes of codes, without vectors; templated on the isa so that each has its own symbols.
template <class Isa>
void unpack_codes(const std::byte *codes, int n, std::byte *lower, std::byte *upper) {
    for (int i = 0; i < n; ++i) {
        lower[i] = static_cast<std::byte>(levels[std::to_integer<int>(codes[i] & std::byte{15})]);
        upper[i] = static_cast<std::byte>(levels[std::to_integer<int>(codes[i] >> 4)]);
    }
}

}  // namespace kvlane::q4

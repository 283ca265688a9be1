#pragma once

// The panels of a tile of q4 as panels of q8: the levels of their codes, less the multipliers of groups and the rows'
// scales.

#include "formats/panel.hpp"

namespace kvlane {

// Unpacks a panel of `bytes` to twice as many. In a line, elements 0 to 3 of each column's granule are the lower halves of
// its bytes, and 4 to 7 the upper ones; they become two lines.
template <class Isa>
static void unpack_panel(const std::byte *panel, int64_t bytes, std::byte *to) {
    const int line_bytes = panel::line_bytes(format::index_q4);
    constexpr int column_bytes = 4;
    for (const std::byte *line = panel; line < panel + bytes; line += line_bytes, to += 2 * line_bytes) {
        for (int column = 0; column < panel::columns; column += Isa::lanes) {
            Isa::unpack_codes(line + column_bytes * column, to + column_bytes * column,
                              to + line_bytes + column_bytes * column);
        }
    }
}

}  // namespace kvlane

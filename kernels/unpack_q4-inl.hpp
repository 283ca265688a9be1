#pragma once

// The panels of a tile of q4 as panels of q8: integers of 8 bits, less the rows' scales.

#include "formats/panel.hpp"
#include "q4-inl.hpp"

namespace kvlane {

// codes: of one line, elements 0 to 3 of each column's granule in the lower halves of its bytes, 4 to 7 in the upper ones;
// they become two lines.
template <class Isa, class Multipliers>
KVLANE_INLINE void unpack_line(const std::byte *codes, const Multipliers &lower, const Multipliers &upper, std::byte *to) {
    constexpr int lane_bytes = 4;
    for (int column = 0; column < panel::columns; column += Isa::lanes) {
        const std::byte *at = codes + lane_bytes * column;
        Isa::store_dequantized(to + lane_bytes * column, Isa::lower_codes(at), lower.at(column));
        Isa::store_dequantized(to + lane_bytes * (panel::columns + column), Isa::upper_codes(at), upper.at(column));
    }
}

// One of each column's own, and so the same for all of a group's lines.
template <class Isa>
struct ColumnMultipliers {
    typename Isa::Multipliers of[panel::columns / Isa::lanes];
    explicit KVLANE_INLINE ColumnMultipliers(const std::byte *multipliers) {
        unroll<panel::columns / Isa::lanes>([&](auto i) __attribute__((always_inline)) {
            of[i] = Isa::column_multipliers(multipliers + i * Isa::lanes);
        });
    }
    KVLANE_INLINE const auto &at(int column) const { return of[column / Isa::lanes]; }
};

// One of each of four tokens, for all columns.
template <class Isa>
struct TokenMultipliers {
    typename Isa::Multipliers all;
    explicit KVLANE_INLINE TokenMultipliers(const std::byte *multipliers) : all(Isa::token_multipliers(multipliers)) {}
    KVLANE_INLINE const auto &at(int) const { return all; }
};

// Bytes of a panel of keys of q4 as one of q8.
static inline int64_t unpacked_bytes(int k) { return 2 * panel::bytes(format::index_q4, k); }

// Panels [first, first + n) of keys. Returns the bytes from one panel to the next.
template <class Isa>
static int64_t unpack_keys(const std::byte *tile, const panel::TileLayout &layout, int head_dim, int first, int n,
                           std::byte *to) {
    const int line_bytes = panel::line_bytes(format::index_q4), granule = panel::granule<format::q4>;
    const auto n_lines = static_cast<int>(panel::round_up(head_dim, panel::k_multiple)) / granule;
    for (int p = first; p < first + n; ++p) {
        const std::byte *line = tile + p * layout.k_panel_bytes;
        for (int i = 0; i < n_lines;) {
            const int group = i * granule / format::q4::group;
            const ColumnMultipliers<Isa> multipliers(tile + layout.k_scales +
                                                     panel::multiplier_offset(group, p * panel::columns));
            const int end = std::min(n_lines, (group + 1) * format::q4::group / granule);
            for (; i < end; ++i, line += line_bytes, to += 2 * line_bytes) {
                unpack_line<Isa>(line, multipliers, multipliers, to);
            }
        }
    }
    return unpacked_bytes(head_dim);
}

// Panels [first, first + n) of values: those of one group together, which have the same multipliers.
template <class Isa>
static int64_t unpack_values(const std::byte *tile, const panel::TileLayout &layout, int first, int n, std::byte *to) {
    constexpr int granule = panel::granule<format::q4>, group_panels = format::q4::group / panel::columns;
    const int line_bytes = panel::line_bytes(format::index_q4), end = first + n;
    const int64_t panel_bytes = unpacked_bytes(panel::tile_tokens);
    for (int begin = first; begin < end;) {
        const int group = begin / group_panels, group_end = std::min(end, (group + 1) * group_panels);
        const std::byte *const multipliers = tile + layout.v_scales + panel::multiplier_offset(group, 0);
        for (int t = 0; t < panel::tile_tokens; t += granule) {
            const TokenMultipliers<Isa> lower(multipliers + t), upper(multipliers + t + granule / 2);
            const int line = t / granule * line_bytes;
            for (int p = begin; p < group_end; ++p) {
                unpack_line<Isa>(tile + layout.v_panels + p * layout.v_panel_bytes + line, lower, upper,
                                 to + (p - first) * panel_bytes + 2 * line);
            }
        }
        begin = group_end;
    }
    return panel_bytes;
}

}  // namespace kvlane

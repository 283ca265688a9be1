#pragma once

// Output of a tile: rows x v_head_dim.

#include <numeric>

#include "fours-inl.hpp"
#include "sum_micro-inl.hpp"

namespace kvlane {

template <class Isa, class Format, Numbers N>
void weighted_sum(const SumRows &a) {
    if constexpr (N == Numbers::bytes) {
        for_each_value_fours<Isa>(a.v, a.entries, a.v_head_dim, a.ahead, [&](int t, const StoredRows &rows, int dim) {
            const auto *p = static_cast<const uint8_t *>(a.p) + t;
            int32_t starts[max_tile_rows];
            if constexpr (Isa::value_bias > 0) {
                for (int r = 0; r < a.n_rows; ++r) {
                    const uint8_t *row = p + r * score_stride;
                    starts[r] = -Isa::value_bias * std::accumulate(row, row + 4 * rows.n, 0);
                }
            }
            sum_rows<Isa, ValueFours, N>({p, a.n_rows, dim, rows, {}, {}, a.o, a.o_rows, starts});
        });
    } else if constexpr (Format::group > 0) {
        for_each_unpacked<Isa>(a.v, a.entries, a.v_head_dim, a.ahead, [&](int t, const StoredRows &rows) {
            const auto *p = static_cast<const typename Arithmetic<Isa, format::q8, N>::Number *>(a.p) + t;
            sum_rows<Isa, format::q8, N>({p, a.n_rows, a.v_head_dim, rows, {}, {}, a.o, a.o_rows, nullptr});
        });
    } else {
        sum_rows<Isa, Format, N>(a);
    }
}

}  // namespace kvlane

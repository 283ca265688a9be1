#pragma once

// Output of a tile: rows x v_head_dim.

#include "nibble_sum-inl.hpp"
#include "sum_micro-inl.hpp"

namespace kvlane {

template <class Isa, class Format, Numbers N>
void weighted_sum(const SumRows &a) {
    if constexpr (N == Numbers::bytes) {
        nibble_sum<Isa>(a);
    } else if constexpr (Format::group > 0) {
        for_each_unpacked<Isa>(a.v, a.entries, a.v_head_dim, a.ahead, [&](int t, const StoredRows &rows) {
            const auto *p = static_cast<const typename Arithmetic<Isa, format::q8, N>::Number *>(a.p) + t;
            sum_rows<Isa, format::q8, N>({p, a.n_rows, a.v_head_dim, rows, {}, {}, a.o, a.o_rows});
        });
    } else {
        sum_rows<Isa, Format, N>(a);
    }
}

}  // namespace kvlane

#pragma once

// Score modifications: each is a pass over a query row's scores of one tile, in L1, made only if the modification is in use.

#include "exp-inl.hpp"
#include "tile.hpp"

namespace kvlane {

// tanh(x) = (e^2x - 1) / (e^2x + 1), within a few ulp; NaN for NaN.
template <class Isa>
KVLANE_INLINE typename Isa::Vec tanh(typename Isa::Vec x) {
    const auto zero = Isa::broadcast(0), limit = Isa::broadcast(-64);  // where the result rounds to 1
    const auto power = zero - Isa::max(limit, zero - x * Isa::broadcast(2.88539008f));
    const auto growth = exp2_minus_1<Isa>(power);
    return Isa::divide(growth, growth + Isa::broadcast(2));
}

template <class Isa>
static void cap_scores(float *scores, int n, float softcap) {
    const auto cap = Isa::broadcast(softcap), inverse = Isa::broadcast(1 / softcap);
    for (int t = 0; t < n; t += Isa::lanes) {
        Isa::store(scores + t, cap * tanh<Isa>(Isa::load(scores + t) * inverse));
    }
}

// first: the position of the tile's first token minus the query's position.
template <class Isa>
static void add_distances(float *scores, int n, float slope, int64_t first) {
    const auto factor = Isa::broadcast(slope), start = Isa::broadcast(static_cast<float>(first));
    for (int t = 0; t < n; t += Isa::lanes) {
        const auto offset = Isa::broadcast(static_cast<float>(t)) + Isa::lane_numbers();
        Isa::store(scores + t, Isa::fma(factor, start + offset, Isa::load(scores + t)));
    }
}

}  // namespace kvlane

#pragma once

// Score rules: what becomes of a row's raw scores before their softmax. Each is a pass over the tile's scores in L1 that
// only an attention or a call that has the rule makes; s = softcap * tanh(score / softcap) + slope * (t - query) + bias, in
// units of log2.

#include "softmax-inl.hpp"

namespace kvlane {

// tanh(x) = (e^2x - 1) / (e^2x + 1), within a few ulp; NaN for NaN.
template <class Isa>
KVLANE_INLINE typename Isa::Vec tanh(typename Isa::Vec x) {
    const auto zero = Isa::broadcast(0), limit = Isa::broadcast(-64);  // where the result is 1
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

// offsets: of the tokens from the tile's first one; first: of that, its position less the query's.
template <class Isa>
static void add_distances(float *scores, int n, float slope, int64_t first, const float *offsets) {
    const auto factor = Isa::broadcast(slope), start = Isa::broadcast(static_cast<float>(first));
    for (int t = 0; t < n; t += Isa::lanes) {
        Isa::store(scores + t, Isa::fma(factor, start + Isa::load(offsets + t), Isa::load(scores + t)));
    }
}

template <class Isa>
static void add_biases(float *scores, int n, const float *biases) {
    for (int t = 0; t < n; t += Isa::lanes) {
        Isa::store(scores + t, Isa::load(scores + t) + Isa::load(biases + t));
    }
}

static KVLANE_INLINE bool has_any(const ScoreRules &rules) { return rules.softcap != 0 || rules.slopes; }

// A row's raw scores of a tile, and what becomes of them by.
struct RuledRow {
    float *scores;
    int n;
    float factor;             // of scores, into units of log2
    const float *key_scales;  // and these, where keys are integers
    float slope;
    int64_t first;         // position of the tile's first token less the query's,
    const float *offsets;  // and of all from that one on
    const float *biases;   // null: none
};

template <class Isa, Numbers K>
static void apply_rules(const ScoreRules &rules, const RuledRow &row) {
    for (int t = 0; t < row.n; t += Isa::lanes) {
        auto score = Isa::load(row.scores + t) * Isa::broadcast(row.factor);
        if constexpr (K != Numbers::floats) {
            score = score * Isa::load(row.key_scales + t);
        }
        Isa::store(row.scores + t, score);
    }
    if (rules.softcap != 0) {
        cap_scores<Isa>(row.scores, row.n, rules.softcap);
    }
    if (rules.slopes) {
        add_distances<Isa>(row.scores, row.n, row.slope, row.first, row.offsets);
    }
    if (row.biases) {
        add_biases<Isa>(row.scores, row.n, row.biases);
    }
}

}  // namespace kvlane

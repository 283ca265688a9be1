#pragma once

// Score rules: what becomes of a row's raw scores before their softmax. Each is a pass over the tile's scores in L1 that
// only an attention that has the rule makes; s = softcap * tanh(score / softcap) + slope * (t - query), in units of log2.

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

// first: of the tile's first token, its position less the query's.
template <class Isa>
static void add_distances(float *scores, int n, float slope, int64_t first) {
    const auto factor = Isa::broadcast(slope), lane = Isa::lane_numbers();
    for (int t = 0; t < n; t += Isa::lanes) {
        const auto distance = Isa::broadcast(static_cast<float>(first + t)) + lane;
        Isa::store(scores + t, Isa::fma(factor, distance, Isa::load(scores + t)));
    }
}

static KVLANE_INLINE bool has_any(const ScoreRules &rules) { return rules.softcap != 0 || rules.slopes; }

// A row's raw scores, times factor and, where keys are integers, their scales, become those that the rules make of them.
template <class Isa, Numbers K>
static void apply_rules(const ScoreRules &rules, const float *key_scales, float factor, int head, int64_t first, int n,
                        float *scores) {
    for (int t = 0; t < n; t += Isa::lanes) {
        auto score = Isa::load(scores + t) * Isa::broadcast(factor);
        if constexpr (K != Numbers::floats) {
            score = score * Isa::load(key_scales + t);
        }
        Isa::store(scores + t, score);
    }
    if (rules.softcap != 0) {
        cap_scores<Isa>(scores, n, rules.softcap);
    }
    if (rules.slopes) {
        add_distances<Isa>(scores, n, rules.slopes[head], first);
    }
}

}  // namespace kvlane

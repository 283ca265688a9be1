#pragma once

// Score rules to be tested with, and how far a result by them may be from the oracle's.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "answers.hpp"

namespace test {

using Floats = std::vector<float>;
using kvlane::Geometry;

// One for each query head, alike in no two.
inline Floats of_heads(uint32_t n, float first, float factor) {
    Floats values(n);
    for (float &value : values) {
        value = first;
        first *= factor;
    }
    return values;
}

// As without rules: f32's rounding of scores up to 50, where softcaps are; 16 bits where they meet integers.
inline double bound(const Geometry &g) {
    const bool meets_words = g.precision != kvlane::Precision::exact && (is_scaled(g.k_format) || is_scaled(g.v_format));
    return meets_words ? 6e-4 : 1e-5;
}

/// Checks one query's answer, of so many visible tokens.
inline void check_near(const Geometry &g, std::span<const float> out, std::span<const float> lse, const oracle::Answer &want,
                       int64_t n_visible) {
    CHECK(relative_error(out, want.out, usual_norm(out.size(), n_visible)) <= bound(g));
    for (size_t h = 0; h < lse.size(); ++h) {
        const bool is_near = std::abs(lse[h] - want.lse[h]) <= bound(g) * std::max(1.0, std::abs(want.lse[h]));
        CHECK((is_near || lse[h] == want.lse[h]));
    }
}

struct NamedRules {
    const char *name;
    void (*apply)(Geometry &, const Floats &slopes, const Floats &logits);
};

// Every rule alone, and those that models have together.
inline constexpr NamedRules rules[] = {
    {"none", [](Geometry &, const Floats &, const Floats &) {}},
    {"window", [](Geometry &g, const Floats &, const Floats &) { g.window = 300; }},
    {"window of 1", [](Geometry &g, const Floats &, const Floats &) { g.window = 1; }},
    {"window of a chunk", [](Geometry &g, const Floats &, const Floats &) { g.window = 512; }},
    {"window and first tokens",
     [](Geometry &g, const Floats &, const Floats &) {
         g.window = 300;
         g.n_sink_tokens = 4;
     }},
    {"window and many first tokens",
     [](Geometry &g, const Floats &, const Floats &) {
         g.window = 65;
         g.n_sink_tokens = 600;
     }},
    {"softcap", [](Geometry &g, const Floats &, const Floats &) { g.softcap = 2; }},
    {"slopes", [](Geometry &g, const Floats &slopes, const Floats &) { g.alibi_slopes = slopes; }},
    {"sink logits", [](Geometry &g, const Floats &, const Floats &logits) { g.sink_logits = logits; }},
    {"window and sink logits",
     [](Geometry &g, const Floats &, const Floats &logits) {
         g.window = 128;
         g.sink_logits = logits;
     }},
    {"all",
     [](Geometry &g, const Floats &slopes, const Floats &logits) {
         g.window = 300;
         g.n_sink_tokens = 70;
         g.softcap = 2;
         g.alibi_slopes = slopes;
         g.sink_logits = logits;
     }},
};

}  // namespace test

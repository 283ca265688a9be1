#pragma once

#include <limits>

#include "rows-inl.hpp"

namespace kvlane {

static constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// (2^f - 1) / f on [-1/2, 1/2], from the minimax polynomial of degree 6 for 2^f that equals 1 at 0. The relative error of
// that polynomial is 2.6e-9.
template <class Isa>
KVLANE_INLINE typename Isa::Vec exp2_quotient(typename Isa::Vec f) {
    auto p = Isa::broadcast(1.55946781613e-4f);
    p = Isa::fma(p, f, Isa::broadcast(1.34066439024e-3f));
    p = Isa::fma(p, f, Isa::broadcast(9.61769297299e-3f));
    p = Isa::fma(p, f, Isa::broadcast(5.55031055101e-2f));
    p = Isa::fma(p, f, Isa::broadcast(2.40226527829e-1f));
    return Isa::fma(p, f, Isa::broadcast(6.93147214968e-1f));
}

// 2^x for x < 127.5, as 2^round(x) * 2^(x - round(x)). Within 1.3 ulp for x >= -126, where the result is a normal number;
// below that within an absolute error of 2^-126.5, where the result may be 0. Exactly 1 at 0, 0 for -infinity, NaN for NaN.
template <class Isa>
KVLANE_INLINE typename Isa::Vec exp2(typename Isa::Vec x) {
    const auto clamped = Isa::max(Isa::broadcast(Isa::zero_power), x);
    const auto power = Isa::round(clamped);
    const auto f = clamped - power;
    return Isa::scale_by_power(Isa::fma(exp2_quotient<Isa>(f), f, Isa::broadcast(1.0f)), power);
}

// 2^x - 1 for x < 127.5, with a small relative error near 0 too.
template <class Isa>
KVLANE_INLINE typename Isa::Vec exp2_minus_1(typename Isa::Vec x) {
    const auto clamped = Isa::max(Isa::broadcast(Isa::zero_power), x);
    const auto power = Isa::round(clamped);
    const auto f = clamped - power, one = Isa::broadcast(1.0f);
    const auto whole = Isa::scale_by_power(one, power);
    return Isa::fma(whole * exp2_quotient<Isa>(f), f, whole - one);
}

// exp(x) for x <= 0. Exactly 1 at 0, 0 for minus infinity, NaN for NaN.
template <class Isa>
KVLANE_INLINE typename Isa::Vec exp(typename Isa::Vec x) {
    return exp2<Isa>(x * Isa::broadcast(1.44269504f));
}

template <class Isa>
KVLANE_INLINE float exp_of(float x) {
    float lanes[Isa::lanes];
    Isa::store(lanes, exp<Isa>(Isa::broadcast(x)));
    return lanes[0];
}

// The value subtracted from scores: the maximum, 0 if no token is visible yet, NaN if a score is infinite.
static KVLANE_INLINE float reference_of(float m) { return m == minus_infinity ? 0.0f : m + 0 * m; }

}  // namespace kvlane

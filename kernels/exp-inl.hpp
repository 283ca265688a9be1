#pragma once

#include <limits>

#include "rows-inl.hpp"

namespace kvlane {

static constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// (2^f - 1) / f on [-1/2, 1/2]: of the minimax polynomial of degree 6 for 2^f that is 1 at 0. Its relative error as that is
// 2.6e-9.
template <class Isa>
KVLANE_INLINE typename Isa::Vec exp2_quotient(typename Isa::Vec f) {
    auto p = Isa::broadcast(1.55946781613e-4f);
    p = Isa::fma(p, f, Isa::broadcast(1.34066439024e-3f));
    p = Isa::fma(p, f, Isa::broadcast(9.61769297299e-3f));
    p = Isa::fma(p, f, Isa::broadcast(5.55031055101e-2f));
    p = Isa::fma(p, f, Isa::broadcast(2.40226527829e-1f));
    return Isa::fma(p, f, Isa::broadcast(6.93147214968e-1f));
}

// 2^x for x < 127.5: 2^round(x) times that of the rest. Within 1.3 ulp for x >= -126, where the result is a normal number;
// below that within 2^-126.5, which may mean 0. Exactly 1 at 0, 0 for minus infinity, NaN for NaN.
template <class Isa>
KVLANE_INLINE typename Isa::Vec exp2(typename Isa::Vec x) {
    const auto clamped = Isa::max(Isa::broadcast(Isa::zero_power), x);
    const auto power = Isa::round(clamped);
    const auto f = clamped - power;
    return Isa::scale_by_power(Isa::fma(exp2_quotient<Isa>(f), f, Isa::broadcast(1.0f)), power);
}

// 2^x - 1 for x < 127.5, near 0 too with an error that is small beside it.
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

// What scores are taken relative to: the maximum, 0 where nothing is visible yet, NaN where a score is infinite.
static KVLANE_INLINE float reference_of(float m) { return m == minus_infinity ? 0.0f : m + 0 * m; }

}  // namespace kvlane

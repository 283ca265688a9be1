#pragma once

// Quantization to q4.

#include <algorithm>
#include <cmath>
#include <utility>

#include "q4_levels.hpp"
#include "quantize-inl.hpp"

namespace kvlane::q4 {

static constexpr int group = format::q4::group;

static constexpr float zero_code = 8;       // that of level 0
static constexpr float even_spacing = 14;   // of levels
static constexpr float last_even_code = 3;  // on either side of 0, up to which they are spaced evenly

template <class Isa>
KVLANE_INLINE typename Isa::Vec magnitude(typename Isa::Vec x) {
    return Isa::max(x, Isa::broadcast(0) - x);
}

// x, or the nearer end of [-limit, limit].
template <class Isa>
KVLANE_INLINE typename Isa::Vec clamp(typename Isa::Vec x, float limit) {
    const auto zero = Isa::broadcast(0);
    return zero - Isa::max(zero - Isa::max(x, Isa::broadcast(-limit)), Isa::broadcast(-limit));
}

// The code, less zero_code, of a level that is nearest to x, or nearly: 0.04 of a spacing from the middle at most. What is
// beyond the evenly spaced levels counts for less and less.
template <class Isa>
KVLANE_INLINE typename Isa::Vec nearest(typename Isa::Vec x) {
    constexpr float even_limit = (42 + 57) / 2.0f, linear = 0.0662f, quadratic = -1.084e-4f;
    const auto even = clamp<Isa>(x, even_limit), rest = x - even;
    const auto factor = Isa::fma(magnitude<Isa>(rest), Isa::broadcast(quadratic), Isa::broadcast(linear));
    const auto code = Isa::round(Isa::fma(rest, factor, even * Isa::broadcast((last_even_code + 0.5f) / even_limit)));
    const auto zero = Isa::broadcast(0), lowest = Isa::broadcast(-zero_code),
               highest = Isa::broadcast(n_levels - 1 - zero_code);
    return Isa::max(lowest, zero - Isa::max(zero - highest, zero - code));
}

// The level of a code, less zero_code.
template <class Isa>
KVLANE_INLINE typename Isa::Vec level_of(typename Isa::Vec code) {
    const auto half = Isa::broadcast(0.5f), rest = code - clamp<Isa>(code, last_even_code);
    return Isa::fma(rest, Isa::fma(magnitude<Isa>(rest), half, half), code * Isa::broadcast(even_spacing));
}

// The largest element and the largest of the negated ones; NaN where an element is NaN or infinite.
template <class Isa>
KVLANE_INLINE std::pair<float, float> extremes(const std::byte *x, int n) {
    const auto zero = Isa::broadcast(0);
    auto highest = zero, lowest = zero;
    for_each_vector<Isa>(
        x, n, [&](typename Isa::Vec v) __attribute__((always_inline)) {
            highest = Isa::max(highest, v);
            lowest = Isa::max(lowest, zero - v);
        });
    const float largest = largest_of<Isa>(x, n);
    return {Isa::reduce_max(highest) + 0 * largest, Isa::reduce_max(lowest) + 0 * largest};
}

// Of elements v in units of a step: sums over the levels l nearest to them, whose best step is products / squares.
template <class Isa>
struct Fit {
    typename Isa::Vec factor, products, squares;

    explicit KVLANE_INLINE Fit(float step)
        : factor(Isa::broadcast(1 / step)), products(Isa::broadcast(0)), squares(Isa::broadcast(0)) {}
    KVLANE_INLINE void take(typename Isa::Vec x) {
        const auto v = x * factor, level = level_of<Isa>(nearest<Isa>(v));
        products = Isa::fma(v, level, products);
        squares = Isa::fma(level, level, squares);
    }
};

// What levels of a group of n elements are to be multiplied by; 0 where the group is, or where it is too small for it. The
// element of largest magnitude is on the side where levels reach farther. It is taken to be 128 first, and then 108, which
// the other side reaches too; the step is that of least squared error for the codes that follow, of one or the other.
template <class Isa>
KVLANE_INLINE float step_of_group(const std::byte *x, int n) {
    constexpr float reach = 128, even_reach = 108;
    const auto [highest, lowest] = extremes<Isa>(x, n);
    const float step = scale_for(std::max(highest, lowest), reach);
    if (!(step > 0)) {
        return step;
    }
    const float first = highest > lowest ? -step : step, second = first * (reach / even_reach);
    Fit<Isa> of_first(first), of_second(second);
    for_each_vector<Isa>(
        x, n, [&](typename Isa::Vec v) __attribute__((always_inline)) {
            of_first.take(v);
            of_second.take(v);
        });
    // Least squares lower the sum of squared errors by (products step)^2 / squares.
    const auto best = [](const Fit<Isa> &fit) { return Isa::reduce_add(fit.products) / Isa::reduce_add(fit.squares); };
    const float best_first = first * best(of_first), best_second = second * best(of_second);
    const float gain_first = best_first * (Isa::reduce_add(of_first.products) * first);
    const float gain_second = best_second * (Isa::reduce_add(of_second.products) * second);
    return gain_second > gain_first ? best_second : best_first;
}

// x[i], dim elements of f32, become codes, as f32. Returns the row's scale.
template <class Isa>
static float quantize_row(float *x, int dim, int8_t *multipliers) {
    float steps[KVL_MAX_HEAD_DIM / group], scale = 0;
    const int n_groups = (dim + group - 1) / group;
    const auto group_at = [&](int i) { return reinterpret_cast<std::byte *>(x + i * group); };
    const auto size_of = [&](int i) { return std::min(group, dim - i * group); };
    for (int i = 0; i < n_groups; ++i) {
        steps[i] = step_of_group<Isa>(group_at(i), size_of(i));
        scale = std::isnan(scale) || std::abs(steps[i]) <= scale ? scale : std::abs(steps[i]);  // NaN stays
    }
    scale *= 128.0f / max_multiplier;
    for (int i = 0; i < n_groups; ++i) {
        const float multiplier = scale > 0 ? std::nearbyint(steps[i] / scale * 128) : 0;
        multipliers[i] = static_cast<int8_t>(multiplier);
        // Their product may overflow, and its inverse.
        const auto inverse_scale = Isa::broadcast(1 / scale), factor = Isa::broadcast(128 / multiplier);
        for (int d = i * group; d < i * group + size_of(i); d += Isa::lanes) {
            const int n = std::min(Isa::lanes, dim - d);
            auto *const at = reinterpret_cast<std::byte *>(x + d);
            const auto v = n == Isa::lanes ? Isa::load(x + d) : Isa::load_partial(format::f32{}, at, n);
            const auto level = multiplier != 0 ? nearest<Isa>(v * inverse_scale * factor) : Isa::broadcast(0);
            const auto code = level + Isa::broadcast(zero_code);
            n == Isa::lanes ? Isa::store(x + d, code) : Isa::store_partial(format::f32{}, at, code, n);
        }
    }
    return scale;
}

}  // namespace kvlane::q4

#pragma once

// Quantization to q4.

#include <algorithm>
#include <cmath>
#include <limits>

#include "q4_levels.hpp"
#include "quantize-inl.hpp"

namespace kvlane::q4 {

static constexpr int group = format::q4::group;

// The levels as a function of index = code - zero_code, which has their sign.
static constexpr float zero_code = 8;
static constexpr float lowest_index = -zero_code, highest_index = n_levels - 1 - zero_code;
static constexpr float spacing = 14;         // of the levels whose index is at most last_even_index in magnitude
static constexpr float last_even_index = 3;  // each spacing beyond is larger by 1 than the one before it
static constexpr float even_limit = 49.5f;   // halfway from that level to the next

template <class Isa>
KVLANE_INLINE typename Isa::Vec clamp(typename Isa::Vec x, float lowest, float highest) {
    return Isa::max(Isa::min(x, Isa::broadcast(highest)), Isa::broadcast(lowest));
}

template <class Isa>
KVLANE_INLINE typename Isa::Vec level_at(typename Isa::Vec index) {
    const auto half = Isa::broadcast(0.5f);
    const auto beyond = index - clamp<Isa>(index, -last_even_index, last_even_index);
    return Isa::fma(beyond, Isa::fma(magnitude<Isa>(beyond), half, half), index * Isa::broadcast(spacing));
}

// The index of the level nearest to x, or of its neighbour where x is within 0.36 of the middle between the two: the inverse
// of level_at, whose square root is a quadratic here, is rounded to an integer. x is at most 300 in magnitude.
template <class Isa>
KVLANE_INLINE typename Isa::Vec nearest_index(typename Isa::Vec x) {
    constexpr float even_factor = (last_even_index + 0.5f) / even_limit, linear = 0.0662f, quadratic = -1.084e-4f;
    const auto even = clamp<Isa>(x, -even_limit, even_limit), beyond = x - even;
    const auto factor = Isa::fma(magnitude<Isa>(beyond), Isa::broadcast(quadratic), Isa::broadcast(linear));
    const auto index = Isa::round(Isa::fma(beyond, factor, even * Isa::broadcast(even_factor)));
    return clamp<Isa>(index, lowest_index, highest_index);
}

// The element of largest magnitude; NaN where an element is NaN or infinite.
template <class Isa>
KVLANE_INLINE float largest_element(const std::byte *x, int n) {
    const auto zero = Isa::broadcast(0);
    auto highest = zero, lowest = zero, not_a_number = zero;
    for_each_vector<Isa>(
        x, n, [&](typename Isa::Vec v) __attribute__((always_inline)) {
            highest = Isa::max(highest, v);
            lowest = Isa::max(lowest, zero - v);
            not_a_number = Isa::fma(v, zero, not_a_number);
        });
    if (Isa::reduce_add(not_a_number) != 0) {
        return std::numeric_limits<float>::quiet_NaN();
    }
    const float above = Isa::reduce_max(highest), below = Isa::reduce_max(lowest);
    return above > below ? above : -below;
}

// The least-squares fit of step * level to elements, with the levels that are nearest for the step tried. The error is
// sum (x - best step * level)^2 = sum x^2 - (sum x * level)^2 / sum level^2.
template <class Isa>
struct Fit {
    typename Isa::Vec inverse_step;  // that is tried
    typename Isa::Vec products, squares;

    explicit KVLANE_INLINE Fit(float step)
        : inverse_step(Isa::broadcast(1 / step)), products(Isa::broadcast(0)), squares(Isa::broadcast(0)) {}
    KVLANE_INLINE void add(typename Isa::Vec x) {
        const auto v = x * inverse_step, level = level_at<Isa>(nearest_index<Isa>(v));
        products = Isa::fma(v, level, products);
        squares = Isa::fma(level, level, squares);
    }
};

// The least-squares step relative to the one tried, and by how much it lowers the error, in units of that one's square.
struct Fitted {
    float ratio, gain;

    template <class Isa>
    explicit KVLANE_INLINE Fitted(const Fit<Isa> &fit) {
        const float products = Isa::reduce_add(fit.products);
        ratio = products / Isa::reduce_add(fit.squares);
        gain = ratio * products;
    }
};

// What levels of a group of n elements are multiplied by; 0 where that would be no normal number. The largest element has
// the sign of the lowest level. It is 128 steps of the first fit, just beyond that level, and 108 of the second, which
// levels of either sign reach.
template <class Isa>
KVLANE_INLINE float step_of_group(const std::byte *x, int n) {
    constexpr float first_reach = 128, second_reach = 108, widening = first_reach / second_reach;
    const float largest = largest_element<Isa>(x, n);
    const float magnitude = scale_for(std::abs(largest), first_reach);
    if (!(magnitude > 0)) {
        return magnitude;
    }
    const float step = std::copysign(magnitude, -largest);
    Fit<Isa> first(step), second(step * widening);
    for_each_vector<Isa>(
        x, n, [&](typename Isa::Vec v) __attribute__((always_inline)) {
            first.add(v);
            second.add(v);
        });
    const Fitted by_first(first), by_second(second);
    const bool is_second_better = by_second.gain * (widening * widening) > by_first.gain;
    const float best = step * (is_second_better ? by_second.ratio * widening : by_first.ratio);
    return std::abs(best) < std::numeric_limits<float>::min() ? 0 : best;
}

// Elements x[n] become the codes of their levels, as f32.
template <class Isa>
KVLANE_INLINE void encode_group(float *x, int n, float scale, float multiplier) {
    // Two factors: the inverse of scale * multiplier may overflow.
    const auto inverse_scale = Isa::broadcast(1 / scale), factor = Isa::broadcast(one / multiplier);
    const auto code_of = [&](typename Isa::Vec v) __attribute__((always_inline)) {
        const auto index = multiplier != 0 ? nearest_index<Isa>(v * inverse_scale * factor) : Isa::broadcast(0);
        return index + Isa::broadcast(zero_code);
    };
    int i = 0;
    for (; i + Isa::lanes <= n; i += Isa::lanes) {
        Isa::store(x + i, code_of(Isa::load(x + i)));
    }
    if (i < n) {
        auto *const rest = reinterpret_cast<std::byte *>(x + i);
        Isa::store_partial(format::f32{}, rest, code_of(Isa::load_partial(format::f32{}, rest, n - i)), n - i);
    }
}

// Elements x[dim] become codes, as f32. Returns the row's scale.
template <class Isa>
static float quantize_row(float *x, int dim, int8_t *multipliers) {
    float steps[KVL_MAX_HEAD_DIM / group], scale = 0;
    const int n_groups = (dim + group - 1) / group;
    const auto size_of = [&](int i) { return std::min(group, dim - i * group); };
    for (int i = 0; i < n_groups; ++i) {
        steps[i] = step_of_group<Isa>(reinterpret_cast<std::byte *>(x + i * group), size_of(i));
        scale = std::isnan(scale) || std::abs(steps[i]) <= scale ? scale : std::abs(steps[i]);  // NaN stays
    }
    scale *= static_cast<float>(one) / max_multiplier;
    for (int i = 0; i < n_groups; ++i) {
        const float multiplier = scale > 0 ? std::nearbyint(steps[i] / scale * one) : 0;
        multipliers[i] = static_cast<int8_t>(multiplier);
        encode_group<Isa>(x + i * group, size_of(i), scale, multiplier);
    }
    return scale;
}

}  // namespace kvlane::q4

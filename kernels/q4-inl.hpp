#pragma once

// Quantization to q4.

#include <algorithm>
#include <cmath>
#include <iterator>

#include "q4_levels.hpp"
#include "quantize-inl.hpp"

namespace kvlane::q4 {

static constexpr int group = format::q4::group;

// The level that the largest element of a group may be, with either sign: that of least squared error is kept.
static constexpr float largest_levels[] = {104, 118, 134, 150};

// The levels nearest to x, and their codes.
template <class Isa>
struct Nearest {
    typename Isa::Vec level;
    typename Isa::Vec code;
};
template <class Isa>
KVLANE_INLINE Nearest<Isa> nearest(typename Isa::Vec x) {
    const auto one = Isa::broadcast(1);
    Nearest<Isa> found{Isa::broadcast(levels[0]), Isa::broadcast(0)};
    unroll<n_levels - 1>([&](auto i) __attribute__((always_inline)) {
        const auto between = Isa::broadcast((levels[i] + levels[i + 1]) / 2.0f);
        const auto apart = Isa::broadcast(static_cast<float>(levels[i + 1] - levels[i]));
        found.level = Isa::add_if_greater(found.level, x, between, apart);
        found.code = Isa::add_if_greater(found.code, x, between, one);
    });
    return found;
}

// The sum over a group of (x - level)^2 with x in units of the step, by which the largest element is this level.
template <class Isa>
KVLANE_INLINE float squared_error(const std::byte *x, int n, float largest, float level_of_largest) {
    const auto factor = Isa::broadcast(level_of_largest / largest);
    auto sum = Isa::broadcast(0);
    for_each_vector<Isa>(
        x, n, [&](typename Isa::Vec v) __attribute__((always_inline)) {
            const auto scaled = v * factor, error = scaled - nearest<Isa>(scaled).level;
            sum = Isa::fma(error, error, sum);
        });
    return Isa::reduce_add(sum);
}

// What levels of a group of n elements are to be multiplied by; 0 where the group is, or where it is too small for it.
template <class Isa>
KVLANE_INLINE float step_of_group(const std::byte *x, int n) {
    const float largest = largest_of<Isa>(x, n);
    float best = scale_for(largest, largest_levels[std::size(largest_levels) - 1]);
    if (!(best > 0)) {
        return best;
    }
    float least = std::numeric_limits<float>::infinity();
    for (const float magnitude : largest_levels) {
        for (const float level : {magnitude, -magnitude}) {
            const float error = squared_error<Isa>(x, n, largest, level) / (level * level);
            if (error < least) {
                best = largest / level;
                least = error;
            }
        }
    }
    return best;
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
            const auto code = multiplier != 0 ? nearest<Isa>(v * inverse_scale * factor).code : Isa::broadcast(0);
            n == Isa::lanes ? Isa::store(x + d, code) : Isa::store_partial(format::f32{}, at, code, n);
        }
    }
    return scale;
}

}  // namespace kvlane::q4

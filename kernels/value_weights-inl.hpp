#pragma once

// What softmax weights are multiplied by, to be the integers that stored values meet.

#include <algorithm>
#include <cstring>
#include <limits>

#include "nibble_sum-inl.hpp"
#include "quantize-inl.hpp"
#include "streams-inl.hpp"

namespace kvlane {

// The scales of a tile's values, as shares of their largest that weights can be multiplied by to be integers; returns what
// sums of those are to be multiplied by.
template <class Isa>
static float next_value_shares(Stream<Plane::value_scales> &s, int n, float *shares) {
    next_scales<Isa>(s, n, shares);
    const float largest = largest_of<Isa>(reinterpret_cast<const std::byte *>(shares), n);
    const auto inverse = Isa::broadcast(largest == 0 ? 0 : 1 / largest);
    for (int t = 0; t < n; t += Isa::lanes) {
        Isa::store(shares + t, Isa::load(shares + t) * inverse * Isa::broadcast(most_int16));
    }
    return largest / most_int16;
}

// What values of 4 bits are multiplied by: a token's scale and, of the groups of every vector, its multipliers.
template <class Isa>
struct ValueEntries {
    static constexpr int room = tile_tokens + weighed_together;
    alignas(64) float scales[room];
    alignas(64) std::byte multipliers[n_nibble_blocks<Isa>(KVL_MAX_HEAD_DIM)][room][groups_in_vector<Isa>];
};

// Those of the next n tokens, and zeros up to so many as are weighed together.
template <class Isa>
KVLANE_INLINE void next_entries(Stream<Plane::value_scales> &s, int n, int n_vectors, ValueEntries<Isa> &entries) {
    for (int t = 0; t < n;) {
        StoredRows run = next_run(s.read, n - t);
        copy_from_rows<sizeof(float)>(run, entries.scales + t);
        run.first += sizeof(float);
        for (int v = 0; v < n_vectors; ++v, run.first += groups_in_vector<Isa>) {
            copy_from_rows<groups_in_vector<Isa>>(run, entries.multipliers[v][t]);
        }
        t += run.n;
    }
    std::fill_n(entries.scales + n, weighed_together - 1, 0.0f);
    for (int v = 0; v < n_vectors; ++v) {
        std::memset(entries.multipliers[v][n], 0, (weighed_together - 1) * groups_in_vector<Isa>);
    }
    ask_for_scales(s);
}

// Shares of a tile's tokens for the groups of one vector.
template <class Isa>
static constexpr int group_shares = tile_tokens / 4 * Isa::lanes;

// The shares of values that are multiplied as bytes, each of its group's largest: for each group of a vector of four tokens,
// side by side. units: what a group's sums are to be multiplied by.
template <class Isa>
static void next_group_shares(Stream<Plane::value_scales> &s, int n, int dim, float *shares, float *units) {
    using Vec = typename Isa::Vec;
    constexpr int lanes = Isa::lanes;
    ValueEntries<Isa> entries;
    alignas(64) float of_lane[lanes];
    next_entries<Isa>(s, n, n_nibble_blocks<Isa>(dim), entries);
    const int n_rounded = (n + weighed_together - 1) / weighed_together * weighed_together;
    const int n_groups = (dim + format::q4::group - 1) / format::q4::group;
    Vec times_0 = Isa::broadcast(0);  // NaN where a scale is NaN or infinite
    for (int t = 0; t < n; t += lanes) {
        times_0 = Isa::fma(Isa::load(entries.scales + t), Isa::broadcast(0), times_0);
    }
    const Vec not_a_number = Isa::broadcast(Isa::reduce_add(times_0));
    for (int group = 0; group < n_groups; group += groups_in_vector<Isa>, shares += group_shares<Isa>) {
        const auto *multipliers = entries.multipliers[group / groups_in_vector<Isa>];
        Vec largest = Isa::broadcast(0);
        for (int t = 0; t < n_rounded; t += 4) {
            const Vec x = Isa::multipliers_of_four(multipliers[t]) * Isa::repeat_four(entries.scales + t);
            Isa::store(shares + t / 4 * lanes, x);
            largest = Isa::max(largest, x);
        }
        largest = Isa::max(largest, Isa::template swap_lanes<1>(largest));
        largest = Isa::max(largest, Isa::template swap_lanes<2>(largest));
        Isa::store(of_lane, largest + not_a_number);
        const Vec inverse =
            Isa::divide(Isa::broadcast(1), Isa::max(largest, Isa::broadcast(std::numeric_limits<float>::min())));
        for (int i = 0; i < std::min(groups_in_vector<Isa>, n_groups - group); ++i) {
            units[group + i] = of_lane[4 * i] / (most_byte_weight * Isa::value_step);
        }
        for (int i = 0; i < n_rounded / 4 * lanes; i += lanes) {
            Isa::store(shares + i, Isa::load(shares + i) * inverse * Isa::broadcast(most_byte_weight));
        }
    }
}

// A row's weights of a tile, by groups: of 16 tokens, four for each of a vector's, then for the next.
template <class Isa>
static void weigh_groups(float *weights, int n, const float *shares, int n_vectors, uint8_t *to, int vector_stride) {
    std::fill_n(weights + n, weighed_together - 1, 0.0f);
    for (int v = 0; v < n_vectors; ++v, shares += group_shares<Isa>, to += vector_stride) {
        for (int t = 0; t < n; t += weighed_together) {
            const int at = t / 4 * Isa::lanes;
            typename Isa::Vec weight[4];
            unroll<4>([&](auto i) __attribute__((always_inline)) {
                weight[i] = Isa::repeat_four(weights + t + 4 * i) * Isa::load(shares + at + i * Isa::lanes);
            });
            Isa::store_bytes_of_four(to + at, weight);
        }
    }
}

}  // namespace kvlane

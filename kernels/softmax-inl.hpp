#pragma once

// Online softmax, in units of log2: a row's state (m, l) over the tokens seen so far, updated tile by tile and merged
// chunk by chunk.
//   M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax" (2018)

#include <cmath>
#include <limits>

#include "hadamard-inl.hpp"
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

template <class Isa>
KVLANE_INLINE float exp2_of(float x) {
    float lane[Isa::lanes];
    Isa::store(lane, exp2<Isa>(Isa::broadcast(x)));
    return lane[0];
}

// What scores are taken relative to: the maximum, 0 where nothing is visible yet, NaN where a score is infinite.
static KVLANE_INLINE float reference_of(float m) { return m == minus_infinity ? 0.0f : m + 0 * m; }

// A row's state over the tokens seen so far: l is kept lane by lane.
template <class Isa>
struct RowState {
    float m;
    typename Isa::Vec l;
};

// A partial's m in natural log, and back. What in_log2 returns, it returns again after to_natural_log, bit by bit: this was
// tried for every float.
static KVLANE_INLINE float to_natural_log(float m) { return m * 0.693147181f; }
static KVLANE_INLINE float in_log2(float m) { return m * 1.44269504f; }

// 2^(m - new_m): what sums relative to m are to be multiplied by, to be relative to new_m.
template <class Isa>
KVLANE_INLINE float rescale_of(float m, float new_m) {
    return m == new_m ? 1.0f : exp2_of<Isa>(m - reference_of(new_m));
}

// Scores [t, t + lanes) of n, times factor, plus shift; what lies behind them counts as minus infinity.
template <class Isa>
KVLANE_INLINE typename Isa::Vec scores_at(const float *scores, int t, int n, typename Isa::Vec factor,
                                          typename Isa::Vec shift) {
    const auto score = Isa::fma(Isa::load(scores + t), factor, shift);
    return t + Isa::lanes <= n ? score : Isa::first_lanes(score, n - t, minus_infinity);
}

// A row's scores of a tile, n >= 1 of them. Room for a whole vector follows them, and what else there is of the tokens.
struct TileRow {
    float *scores;  // become weights
    int n;
    float factor;  // of scores, into units of log2
};

// What a row has summed so far.
struct RowSums {
    float *o;
    int o_rows;
    int v_head_dim;
};

// A row's m follows its maximum where that grows by more than this, in units of log2: weights are little more than 2^8 at
// most, and what was summed before is rarely rescaled.
static constexpr float slack = 8;

// The first half of a row's online update: its state takes the scores' maximum in. Returns what weights are to be relative
// to: m, or, where they are for integers, the tile's own maximum. key_scales: of scores, where keys are integers.
template <class Isa, Numbers K, Numbers V>
KVLANE_INLINE float take_maximum(const TileRow &tile, const float *key_scales, const RowSums &sums, RowState<Isa> &row) {
    using Vec = typename Isa::Vec;
    const Vec factor = Isa::broadcast(tile.factor);
    Vec largest = Isa::broadcast(minus_infinity);
    for (int t = 0; t < tile.n; t += Isa::lanes) {
        if constexpr (K != Numbers::floats) {
            Isa::store(tile.scores + t, Isa::load(tile.scores + t) * Isa::load(key_scales + t));
        }
        largest = Isa::max(largest, scores_at<Isa>(tile.scores, t, tile.n, factor, Isa::broadcast(0)));
    }
    if (Isa::any_greater(largest, row.m + slack)) {
        const float largest_yet = Isa::reduce_max(Isa::max(Isa::broadcast(row.m), largest));
        const float m = in_log2(to_natural_log(largest_yet));  // survives being a kvl_partial's
        if (row.m != minus_infinity) {                         // else there is nothing yet
            const Vec rescale = Isa::broadcast(rescale_of<Isa>(row.m, m));
            float *o = sums.o;
            for (int d = 0; d < sums.v_head_dim; d += Isa::lanes, o += o_step<Isa>(sums.o_rows)) {
                Isa::store(o, Isa::load(o) * rescale);
            }
            row.l = row.l * rescale;
        }
        row.m = m;
    }
    return are_integers(V) ? Isa::reduce_max(largest) : row.m;
}

// What weights relative to each row's m are to be multiplied by, to be relative to its state's. There is room for whole
// vectors.
template <class Isa>
static void shares_of_rows(const float *m, const RowState<Isa> *rows, int n, float *to) {
    if (n == 1) {  // a vector would be loaded over what has just been stored, and wait for it
        to[0] = exp2_of<Isa>(m[0] - reference_of(rows[0].m));
        return;
    }
    for (int r = 0; r < n; ++r) {
        to[r] = m[r] - reference_of(rows[r].m);
    }
    for (int r = 0; r < n; r += Isa::lanes) {
        const auto difference = Isa::load(to + r);
        Isa::store(to + r, exp2<Isa>(r + Isa::lanes <= n ? difference : Isa::first_lanes(difference, n - r, 0)));
    }
}

// The second half: scores become weights 2^(factor * score - m), whose sum, times share where values are integers, the state
// takes in. value_shares: what weights are to be multiplied by where values are scaled, or words, to be these integers then.
template <class Isa, Numbers V>
KVLANE_INLINE void to_weights(const TileRow &tile, float m, float share, const float *value_shares, int16_t *integer_weights,
                              RowState<Isa> &row) {
    using Vec = typename Isa::Vec;
    const Vec factor = Isa::broadcast(tile.factor), shift = Isa::broadcast(-reference_of(m));
    Vec l = row.l;  // stores of weights could else be taken for stores to it
    for (int t = 0; t < tile.n; t += Isa::lanes) {
        Vec weight = exp2<Isa>(scores_at<Isa>(tile.scores, t, tile.n, factor, shift));
        l = are_integers(V) ? Isa::fma(weight, Isa::broadcast(share), l) : l + weight;
        if constexpr (V == Numbers::scaled || V == Numbers::words) {
            weight = weight * Isa::load(value_shares + t);
        }
        if constexpr (V == Numbers::words) {
            Isa::store_int16s(integer_weights + t, weight);
        } else {
            Isa::store(tile.scores + t, weight);
        }
    }
    row.l = l;
}

// A row in one of the partials.
struct PartialRow {
    float m;
    float l;
    const float *o;
    int64_t step;  // floats from one vector of o to the next
    float weight;  // in the merged row
};

template <class Isa>
KVLANE_INLINE PartialRow row_of(const Merge &merge, int64_t index, int row) {
    const kvl_partial &partial = merge.partials[index * merge.stride];
    if (merge.is_plain) {
        return {in_log2(partial.m[row]), partial.l[row], partial.o + row * int64_t{merge.v_head_dim}, Isa::lanes, 0};
    }
    const bool is_shared = index < merge.n_shared;
    const int n_rows = is_shared ? merge.shared_rows : merge.n_queries * merge.group;
    row += is_shared ? merge.shared_row : 0;
    return {partial.m[row], partial.l[row], partial.o + row * Isa::lanes, o_step<Isa>(n_rows), 0};
}

// Partials that are taken in at a time.
static constexpr int64_t merged_at_once = 16;

// A row of all partials together; room for a whole vector follows o.
struct MergedRow {
    float m;
    float l;
    alignas(64) float o[KVL_MAX_HEAD_DIM + 16];  // of all but the last few, if those are not all,
    bool has_o;
    PartialRow partials[merged_at_once];  // and these
    int64_t n_partials;
};

// to = factor * (o + those of the last few), N vectors of it from element d on, or what is left there.
template <class Isa, int N>
KVLANE_INLINE void store_sums(const MergedRow &row, int d, int n_elements, float factor, float *to) {
    typename Isa::Vec sum[N];
    unroll<N>([&](auto i) __attribute__((always_inline)) {
        sum[i] = row.has_o ? Isa::load(row.o + d + i * Isa::lanes) : Isa::broadcast(0);
    });
    const bool is_part = n_elements < N * Isa::lanes;
    for (int64_t p = 0; p < row.n_partials; ++p) {
        const PartialRow &partial = row.partials[p];
        const float *o = partial.o + d / Isa::lanes * partial.step;
        const auto weight = Isa::broadcast(partial.weight);
        unroll<N>([&](auto i) __attribute__((always_inline)) {
            const auto *at = reinterpret_cast<const std::byte *>(o + i * partial.step);
            sum[i] = Isa::fma(
                weight, is_part ? Isa::load_partial(format::f32{}, at, n_elements) : Isa::load(format::f32{}, at), sum[i]);
        });
    }
    unroll<N>([&](auto i) __attribute__((always_inline)) {
        auto *const at = reinterpret_cast<std::byte *>(to + d + i * Isa::lanes);
        const auto scaled = sum[i] * Isa::broadcast(factor);
        is_part ? Isa::store_partial(format::f32{}, at, scaled, n_elements) : Isa::store(format::f32{}, at, scaled);
    });
}

template <class Isa>
static void store_o(const MergedRow &row, int dim, float factor, float *to) {
    constexpr int at_once = 4;
    int d = 0;
    for (; d + at_once * Isa::lanes <= dim; d += at_once * Isa::lanes) {
        store_sums<Isa, at_once>(row, d, at_once * Isa::lanes, factor, to);
    }
    for (; d < dim; d += Isa::lanes) {
        store_sums<Isa, 1>(row, d, dim - d, factor, to);
    }
}

// Takes the partials in, in order, but those that saw nothing: whether there is one may depend on other rows.
template <class Isa>
KVLANE_INLINE void merge_row(const Merge &merge, int r, float sink, MergedRow &row) {
    row.m = sink;
    for (int64_t i = 0; i < merge.n_partials; ++i) {
        const float m = row_of<Isa>(merge, i, r).m;
        row.m = m > row.m ? m : row.m;
    }
    row.l = sink == minus_infinity ? 0 : rescale_of<Isa>(sink, row.m);
    row.has_o = false;
    row.n_partials = 0;
    for (int64_t i = 0; i < merge.n_partials; ++i) {
        PartialRow partial = row_of<Isa>(merge, i, r);
        if (partial.m == minus_infinity && partial.l == 0) {
            continue;
        }
        if (row.n_partials == merged_at_once) {
            store_o<Isa>(row, static_cast<int>(merge.v_head_dim), 1, row.o);
            row.has_o = true;
            row.n_partials = 0;
        }
        partial.weight = rescale_of<Isa>(partial.m, row.m);
        row.l = row.l + partial.weight * partial.l;
        row.partials[row.n_partials++] = partial;
    }
}

// What is wanted of a row: out = o / l, 0 where nothing is visible, and its lse; or the row as a plain partial has it.
template <class Isa>
KVLANE_INLINE void finish_row(const Merge &merge, const MergedRow &row, int64_t to) {
    const auto dim = static_cast<int>(merge.v_head_dim);
    if (!merge.out) {
        merge.whole.m[to] = to_natural_log(row.m);
        merge.whole.l[to] = row.l;
        return store_o<Isa>(row, dim, 1, merge.whole.o + to * dim);
    }
    store_o<Isa>(row, dim, row.l == 0 ? 1 : 1 / row.l, merge.out + to * dim);
    if (merge.rotates_out) {
        rotate_row<Isa>(merge.out + to * dim, dim);
    }
    if (merge.lse) {
        merge.lse[to] = row.l == 0 ? minus_infinity : to_natural_log(row.m) + std::log(row.l);
    }
}

template <class Isa>
void merge(const Merge &merge) {
    MergedRow row;
    for (int query = 0; query < merge.n_queries; ++query) {
        for (int head = 0; head < merge.group; ++head) {
            merge_row<Isa>(merge, query * merge.group + head, merge.sinks ? merge.sinks[head] : minus_infinity, row);
            finish_row<Isa>(merge, row, query * merge.query_stride + head);
        }
    }
}

}  // namespace kvlane

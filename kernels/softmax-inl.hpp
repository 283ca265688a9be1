#pragma once

// Online softmax, in units of log2: a row's state (m, l) over the tokens seen so far, updated tile by tile and merged
// chunk by chunk.
//   M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax" (2018)

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

// A row's raw scores of a tile, n >= 1 of them, to be taken into its state. Room for a whole vector follows each array.
struct TileRow {
    float *scores;  // become weights
    int n;
    float factor;  // of scores, into units of log2
    float *o;
    int o_rows;
    int v_head_dim;
    const float *key_scales;    // of scores, where keys are integers
    const float *value_shares;  // that the weights' integers are to be multiplied by, where values are
    void *integer_weights;      // of values' numbers
};

// A row's m follows its maximum where that grows by more than this, in units of log2: weights are at most 2^8, and what was
// summed before is rarely rescaled.
static constexpr float slack = 8;

// The online update of a row: its scores become weights 2^(factor * score - m), its state takes them in. Weights for
// integers are relative to the tile's own maximum; returns what they are to be multiplied by.
template <class Isa, Numbers K, Numbers V>
KVLANE_INLINE float softmax_row(const TileRow &tile, RowState<Isa> &row) {
    using Vec = typename Isa::Vec;
    constexpr int lanes = Isa::lanes;
    const Vec factor = Isa::broadcast(tile.factor);
    Vec largest = Isa::broadcast(minus_infinity);
    for (int t = 0; t < tile.n; t += lanes) {
        if constexpr (K != Numbers::floats) {
            Isa::store(tile.scores + t, Isa::load(tile.scores + t) * Isa::load(tile.key_scales + t));
        }
        largest = Isa::max(largest, scores_at<Isa>(tile.scores, t, tile.n, factor, Isa::broadcast(0)));
    }
    if (Isa::any_greater(largest, row.m + slack)) {
        const float m = Isa::reduce_max(Isa::max(Isa::broadcast(row.m), largest));
        const Vec rescale = Isa::broadcast(rescale_of<Isa>(row.m, m));
        float *o = tile.o;
        for (int d = 0; d < tile.v_head_dim && row.m != minus_infinity; d += lanes, o += o_step<Isa>(tile.o_rows)) {
            Isa::store(o, Isa::load(o) * rescale);
        }
        row = {m, row.l * rescale};
    }
    constexpr bool in_tile = V != Numbers::floats;
    const float m = in_tile ? Isa::reduce_max(largest) : row.m;
    const float share = in_tile ? rescale_of<Isa>(m, row.m) : 1;
    const Vec shift = Isa::broadcast(-reference_of(m));
    for (int t = 0; t < tile.n; t += lanes) {
        const Vec weight = exp2<Isa>(scores_at<Isa>(tile.scores, t, tile.n, factor, shift));
        if constexpr (in_tile) {
            const Vec share_of_value = weight * Isa::load(tile.value_shares + t);
            if constexpr (V == Numbers::bytes) {
                Isa::store_bytes(static_cast<uint8_t *>(tile.integer_weights) + t, share_of_value);
            } else {
                Isa::store_int16s(static_cast<int16_t *>(tile.integer_weights) + t, share_of_value);
            }
            row.l = Isa::fma(weight, Isa::broadcast(share), row.l);
        } else {
            Isa::store(tile.scores + t, weight);
            row.l = row.l + weight;
        }
    }
    return share;
}

// Merges the partials of one row in chunk order, and normalises: out = o / l, or 0 where nothing is visible. The first
// partial's m and l become the whole's; the others' m are spent.
template <class Isa>
KVLANE_INLINE void merge_row(const MergeHead &head, int r) {
    using Vec = typename Isa::Vec;
    constexpr int lanes = Isa::lanes;
    float *const chunk_m = head.first.m + r;
    float *const chunk_l = head.first.l + r;
    const float sink = head.sinks ? head.sinks[r % head.group] : minus_infinity;
    float m = sink;
    for (int64_t c = 0; c < head.n_chunks; ++c) {
        m = chunk_m[c * head.chunk_stride] > m ? chunk_m[c * head.chunk_stride] : m;
    }
    float l = sink == minus_infinity ? 0 : rescale_of<Isa>(sink, m);
    for (int64_t c = 0; c < head.n_chunks; ++c) {
        float &weight = chunk_m[c * head.chunk_stride];
        weight = rescale_of<Isa>(weight, m);
        l = l + weight * chunk_l[c * head.chunk_stride];
    }
    const Vec normalizer = Isa::broadcast(l == 0 ? 1.0f : 1 / l);
    const int dim = static_cast<int>(head.v_head_dim);
    const float *o = head.first.o + r * lanes;
    float *const row = head.out + r / head.group * head.out_stride + int64_t{r % head.group} * dim;
    for (int d = 0; d < dim; d += lanes, o += o_step<Isa>(head.n_queries * head.group)) {
        Vec sum = Isa::broadcast(0);
        for (int64_t c = 0; c < head.n_chunks; ++c) {
            const Vec weight = Isa::broadcast(chunk_m[c * head.chunk_stride]);
            sum = Isa::fma(weight, Isa::load(o + c * head.chunk_stride), sum);
        }
        auto *out = reinterpret_cast<std::byte *>(row + d);
        if (d + lanes <= dim) {
            Isa::store(format::f32{}, out, sum * normalizer);
        } else {
            Isa::store_partial(format::f32{}, out, sum * normalizer, dim - d);
        }
    }
    if (head.rotates_out) {
        rotate_row<Isa>(row, dim);
    }
    *chunk_m = m;
    *chunk_l = l;
}

template <class Isa>
void merge(const MergeHead &head) {
    for (int r = 0; r < head.n_queries * head.group; ++r) {
        merge_row<Isa>(head, r);
    }
}

}  // namespace kvlane

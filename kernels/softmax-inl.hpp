#pragma once

// Online softmax, in units of log2: a row's state (m, l) over the tokens seen so far, updated tile by tile and merged
// chunk by chunk.
//   M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax" (2018)

#include <limits>

#include "rows-inl.hpp"

namespace kvlane {

static constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// 2^x for x <= 0: 2^round(x) times a polynomial of the rest. Within 1.3 ulp for x >= -126, where the result is a normal
// number; below that within 2^-126.5, which may mean 0. Exactly 1 at 0, 0 for minus infinity, NaN for NaN. The polynomial is
// the minimax one of degree 6 on [-1/2, 1/2] that is 1 at 0; its own relative error is 2.6e-9.
template <class Isa>
KVLANE_INLINE typename Isa::Vec exp2(typename Isa::Vec x) {
    using Vec = typename Isa::Vec;
    const Vec clamped = Isa::max(Isa::broadcast(Isa::zero_power), x);
    const Vec power = Isa::round(clamped);
    const Vec f = clamped - power;
    Vec p = Isa::broadcast(1.55946781613e-4f);
    p = Isa::fma(p, f, Isa::broadcast(1.34066439024e-3f));
    p = Isa::fma(p, f, Isa::broadcast(9.61769297299e-3f));
    p = Isa::fma(p, f, Isa::broadcast(5.55031055101e-2f));
    p = Isa::fma(p, f, Isa::broadcast(2.40226527829e-1f));
    p = Isa::fma(p, f, Isa::broadcast(6.93147214968e-1f));
    p = Isa::fma(p, f, Isa::broadcast(1.0f));
    return Isa::scale_by_power(p, power);
}

template <class Isa>
KVLANE_INLINE float exp2_of(float x) {
    float lane[Isa::lanes];
    Isa::store(lane, exp2<Isa>(Isa::broadcast(x)));
    return lane[0];
}

// What scores are taken relative to: the maximum, or 0 where nothing is visible yet.
static KVLANE_INLINE float reference_of(float m) { return m == minus_infinity ? 0.0f : m; }

// Puts x behind the n scores, up to a whole vector.
static KVLANE_INLINE void fill_vector(float *scores, int n, int lanes, float x) {
    for (int t = n; t % lanes != 0; ++t) {
        scores[t] = x;
    }
}

// Turns a row's n >= 1 raw scores into weights 2^(scale * score - m), raises the row's maximum m to theirs, and returns the
// weights' sum. Room for a whole vector follows the scores.
template <class Isa>
KVLANE_INLINE float softmax_row(float *scores, int n, float scale, float &m) {
    using Vec = typename Isa::Vec;
    constexpr int lanes = Isa::lanes;
    fill_vector(scores, n, lanes, scores[n - 1]);
    const Vec factor = Isa::broadcast(scale);
    Vec largest = Isa::broadcast(m);
    for (int t = 0; t < n; t += lanes) {
        const Vec score = Isa::load(scores + t) * factor;
        Isa::store(scores + t, score);
        largest = Isa::max(largest, score);
    }
    fill_vector(scores, n, lanes, minus_infinity);
    m = Isa::reduce_max(largest);
    const Vec reference = Isa::broadcast(reference_of(m));
    Vec sum = Isa::broadcast(0);
    for (int t = 0; t < n; t += lanes) {
        const Vec weight = exp2<Isa>(Isa::load(scores + t) - reference);
        Isa::store(scores + t, weight);
        sum = sum + weight;
    }
    return Isa::reduce_add(sum);
}

// The online update of n_rows rows by a tile of n tokens: scores become weights, (m, l) take them in, and rescale[r] is
// what the row's earlier sums are to be multiplied by.
template <class Isa>
void softmax_update(float *scores, int n_rows, int n, float scale, float *m, float *l, float *rescale) {
    constexpr int lanes = Isa::lanes;
    float sum[max_tile_rows];
    for (int r = 0; r < n_rows; ++r) {
        const float old_m = m[r];
        sum[r] = softmax_row<Isa>(scores + r * score_stride, n, scale, m[r]);
        rescale[r] = old_m - reference_of(m[r]);
    }
    fill_vector(rescale, n_rows, lanes, 0);
    for (int r = 0; r < n_rows; r += lanes) {
        Isa::store(rescale + r, exp2<Isa>(Isa::load(rescale + r)));
    }
    for (int r = 0; r < n_rows; ++r) {
        l[r] = l[r] * rescale[r] + sum[r];
    }
}

// Merges the partials of one row in chunk order, and normalises: out = o / l, or 0 where nothing is visible. The partials'
// m are spent: they become the chunks' weights.
template <class Isa>
void merge(const MergeRow &row) {
    using Vec = typename Isa::Vec;
    constexpr int lanes = Isa::lanes;
    float m = minus_infinity;
    for (int64_t c = 0; c < row.n_chunks; ++c) {
        const float chunk_m = row.first.m[c * row.chunk_stride];
        m = chunk_m > m ? chunk_m : m;
    }
    float l = 0;
    for (int64_t c = 0; c < row.n_chunks; ++c) {
        float &weight = row.first.m[c * row.chunk_stride];
        weight = exp2_of<Isa>(weight - reference_of(m));
        l = l + weight * row.first.l[c * row.chunk_stride];
    }
    const Vec divisor = Isa::broadcast(l == 0 ? 1.0f : l);
    const int dim = static_cast<int>(row.v_head_dim);
    for (int d = 0; d < dim; d += lanes) {
        Vec sum = Isa::broadcast(0);
        for (int64_t c = 0; c < row.n_chunks; ++c) {
            const Vec weight = Isa::broadcast(row.first.m[c * row.chunk_stride]);
            sum = Isa::fma(weight, Isa::load(row.first.o + c * row.chunk_stride + d), sum);
        }
        auto *out = reinterpret_cast<std::byte *>(row.out + d);
        if (d + lanes <= dim) {
            Isa::store(format::f32{}, out, sum / divisor);
        } else {
            Isa::store_partial(format::f32{}, out, sum / divisor, dim - d);
        }
    }
    *row.m = m;
    *row.l = l;
}

}  // namespace kvlane

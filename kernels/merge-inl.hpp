#pragma once

// Partials merged in the order of their chunks:
//
//   m = max m[c],  l = sum over c of exp(m[c] - m) l[c],  o = sum over c of exp(m[c] - m) o[c]
//
//   M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax" (2018)

#include <cmath>

#include "exp-inl.hpp"
#include "hadamard-inl.hpp"

namespace kvlane {

// A row in one of the partials.
struct PartialRow {
    float m;
    float l;
    const float *o;
    float weight;  // in the merged row
};

static PartialRow row_of(const Merge &merge, int64_t index, int row) {
    const kvl_partial &partial = merge.partials[index * merge.stride];
    row += index < merge.n_shared ? merge.shared_row : 0;
    return {partial.m[row], partial.l[row], partial.o + row * merge.o_stride, 0};
}

// What sums relative to m are to be multiplied by, to be relative to new_m.
template <class Isa>
KVLANE_INLINE float rescale_of(float m, float new_m) {
    return m == new_m ? 1.0f : exp_of<Isa>(m - reference_of(new_m));
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
        const float *o = partial.o + d;
        const auto weight = Isa::broadcast(partial.weight);
        unroll<N>([&](auto i) __attribute__((always_inline)) {
            const auto *at = reinterpret_cast<const std::byte *>(o + i * Isa::lanes);
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
        const float m = row_of(merge, i, r).m;
        row.m = m > row.m ? m : row.m;
    }
    row.l = sink == minus_infinity ? 0 : rescale_of<Isa>(sink, row.m);
    row.has_o = false;
    row.n_partials = 0;
    for (int64_t i = 0; i < merge.n_partials; ++i) {
        PartialRow partial = row_of(merge, i, r);
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
        merge.whole.m[to] = row.m;
        merge.whole.l[to] = row.l;
        return store_o<Isa>(row, dim, 1, merge.whole.o + to * dim);
    }
    store_o<Isa>(row, dim, row.l == 0 ? 1 : 1 / row.l, merge.out + to * dim);
    if (merge.rotates_out) {
        rotate_row<Isa>(merge.out + to * dim, dim);
    }
    if (merge.lse) {
        merge.lse[to] = row.l == 0 ? minus_infinity : row.m + std::log(row.l);
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

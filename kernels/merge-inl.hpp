#pragma once

// Merging of partial states of the same query rows, one after another in the order of their tokens:
//
//   m' = max(m, p.m),  l' = exp(m - m') l + exp(p.m - m') p.l,  o' = exp(m - m') o + exp(p.m - m') p.o
//
//   M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax" (2018)

#include <cmath>

#include "exp-inl.hpp"
#include "hadamard-inl.hpp"

namespace kvlane {

// Stores body(d, n) to the n elements from to[d] on, for each vector; the last one may have fewer elements than lanes.
template <class Isa, class Body>
KVLANE_INLINE void for_each_vector(float *to, int dim, Body &&body) {
    int d = 0;
    for (; d + Isa::lanes <= dim; d += Isa::lanes) {
        Isa::store(to + d, body(d, Isa::lanes));
    }
    if (d < dim) {
        Isa::store_partial(format::f32{}, reinterpret_cast<std::byte *>(to + d), body(d, dim - d), dim - d);
    }
}

// The n elements from x[d] on.
template <class Isa>
KVLANE_INLINE typename Isa::Vec load_elements(const float *x, int d, int n) {
    const auto *at = reinterpret_cast<const std::byte *>(x + d);
    return n < Isa::lanes ? Isa::load_partial(format::f32{}, at, n) : Isa::load(format::f32{}, at);
}

// The factor that rescales sums from reference maximum m to new_m.
template <class Isa>
KVLANE_INLINE float rescale_of(float m, float new_m) {
    return m == new_m ? 1.0f : exp_of<Isa>(m - reference_of(new_m));
}

// Merges one query row. A state without visible tokens changes no bit, because its presence may depend on other query rows.
template <class Isa>
KVLANE_INLINE void merge_row(float &m, float &l, float *o, float from_m, float from_l, const float *from_o, int dim) {
    if (from_m == minus_infinity && from_l == 0) {
        return;
    }
    if (m == minus_infinity && l == 0) {
        m = from_m;
        l = from_l;
        std::copy_n(from_o, dim, o);
        return;
    }
    const float new_m = from_m > m ? from_m : m;
    const float factor = rescale_of<Isa>(m, new_m), weight = rescale_of<Isa>(from_m, new_m);
    m = new_m;
    l = factor * l + weight * from_l;
    for_each_vector<Isa>(
        o, dim, [=](int d, int n) __attribute__((always_inline)) {
            return Isa::fma(Isa::broadcast(weight), load_elements<Isa>(from_o, d, n),
                            Isa::broadcast(factor) * load_elements<Isa>(o, d, n));
        });
}

template <class Isa>
void merge(const PartialRows &into, const PartialRows &from, int n_rows, uint32_t v_head_dim) {
    for (int r = 0; r < n_rows; ++r) {
        merge_row<Isa>(into.m[r], into.l[r], into.o + r * into.o_stride, from.m[r], from.l[r], from.o + r * from.o_stride,
                       static_cast<int>(v_head_dim));
    }
}

// Writes the outputs o / l, rotated back, or 0 if no token is visible. Leaves them in o too, which may be their place.
template <class Isa>
void finish_rows(const PartialRows &rows, int n_rows, uint32_t v_head_dim, bool is_rotated, const OutputRows &to) {
    const auto dim = static_cast<int>(v_head_dim);
    for (int r = 0; r < n_rows; ++r) {
        const float l = rows.l[r];
        float *const o = rows.o + r * rows.o_stride;
        const auto factor = Isa::broadcast(l == 0 ? 1 : 1 / l);
        for_each_vector<Isa>(
            o, dim, [=](int d, int n) __attribute__((always_inline)) { return load_elements<Isa>(o, d, n) * factor; });
        if (is_rotated) {
            rotate_row<Isa>(o, dim);
        }
        std::byte *const out = to.out + r * to.out_stride_bytes;
        if (out != reinterpret_cast<std::byte *>(o)) {
            store_row<Isa>(to.format, o, dim, out);
        }
        if (to.lse) {
            const float lse = l == 0 ? minus_infinity : rows.m[r] + std::log(l);
            std::memcpy(to.lse + r * to.lse_stride_bytes, &lse, sizeof lse);
        }
    }
}

}  // namespace kvlane

#pragma once

// Output of a tile: rows x v_head_dim. A value row is loaded and widened once for all rows of a micro-kernel.

#include "rows-inl.hpp"

namespace kvlane {

// One micro-kernel: R rows by as many vectors of the output as there are accumulators for, over all tokens of the run. Each
// output element sums over the tokens in order: its bits do not depend on R.
template <class Isa, class Format, int R>
struct SumMicro {
    using Vec = typename Isa::Vec;
    static constexpr int lanes = Isa::lanes;
    // The more vectors a weight serves, the fewer ports its broadcast and the values' widening take from multiply-adds: that
    // pays for many rows of values to be widened; else powers of two, which divide most head_dims, did better.
    // No more than 8, whose values share the registers with the sums.
    static constexpr int fit = Isa::sum_accumulators / R < 8 ? Isa::sum_accumulators / R : 8;
    static constexpr bool whole_power = Format::bytes == 4 || R <= 4;
    static constexpr int vectors = whole_power && ceil_power_of_two(fit) > fit ? ceil_power_of_two(fit) / 2 : fit;
    static_assert(R <= Isa::max_rows && vectors >= 1);

    static void run(const SumRows &a, int first_row) {
        const Ahead ahead = ahead_for<Isa, R>(a.ahead, first_row);
        const int whole = a.v_head_dim / lanes * lanes;
        int d = 0;
        for (; d + vectors * lanes <= whole; d += vectors * lanes) {
            block<vectors, false>(a, first_row, d, ahead);
        }
        narrower<ceil_power_of_two(vectors) / 2>(a, first_row, whole, d, ahead);
        if (d < a.v_head_dim) {
            block<1, true>(a, first_row, d, ahead);
        }
    }

private:
    template <int N>
    static KVLANE_INLINE void narrower(const SumRows &a, int first_row, int whole, int &d, const Ahead &ahead) {
        if constexpr (N >= 1) {
            if (d + N * lanes <= whole) {
                block<N, false>(a, first_row, d, ahead);
                d += N * lanes;
            }
            narrower<N / 2>(a, first_row, whole, d, ahead);
        }
    }

    // N vectors from element d on, or the part of one that is left there.
    template <int N, bool Tail>
    static void block(const SumRows &a, int first_row, int d, const Ahead &ahead) {
        const float *p = a.p + int64_t{first_row} * score_stride;
        const int64_t step = o_step<Isa>(a.group);
        float *o = a.o + d / lanes * step + first_row * lanes;
        Vec acc[R * N];
        unroll<N>([&](auto i) __attribute__((always_inline)) {
            unroll<R>([&](auto r) __attribute__((always_inline)) { acc[r * N + i] = Isa::load(o + i * step + r * lanes); });
        });
        const std::byte *v = a.v.first + int64_t{d} * Format::bytes;
        const bool in_order = packed(a.v, a.v_head_dim * Format::bytes);
        const int64_t ask_step = in_order ? N * lanes * Format::bytes : a.v.stride_bytes;
        const std::byte *asked = in_order ? a.v.first + int64_t{d} * a.v.n * Format::bytes : v;
        const int turn = in_order ? (ahead.turn * a.v_head_dim - d * a.v.n) / (N * lanes) : ahead.turn;
        asked += turn >= 0 ? ahead.in_run : ahead.behind_turn;
        for (int t = 0; t < a.v.n; ++t, v += a.v.stride_bytes, asked += ask_step) {
            if (t == turn) {
                asked += ahead.behind_turn - ahead.in_run;
            }
            prefetch<N * lanes * Format::bytes>(asked, ahead.how);
            Vec value[N];
            unroll<N>([&](auto i) __attribute__((always_inline)) {
                if constexpr (Tail) {
                    value[i] = Isa::load_partial(Format{}, v, a.v_head_dim - d);
                } else {
                    value[i] = Isa::load(Format{}, v + i * lanes * Format::bytes);
                }
            });
            unroll<R>([&](auto r) __attribute__((always_inline)) {
                const Vec weight = Isa::broadcast(p[r * score_stride + t]);
                unroll<N>([&](auto i) __attribute__((always_inline)) {
                    acc[r * N + i] = Isa::fma(weight, value[i], acc[r * N + i]);
                });
            });
        }
        unroll<N>([&](auto i) __attribute__((always_inline)) {
            unroll<R>([&](auto r) __attribute__((always_inline)) { Isa::store(o + i * step + r * lanes, acc[r * N + i]); });
        });
    }
};

template <class Isa, class Format, int R = Isa::max_rows>
KVLANE_INLINE void weighted_sum_some(const SumRows &a, int first_row) {
    if constexpr (R > 1) {
        if (a.n_rows - first_row < R) {
            return weighted_sum_some<Isa, Format, R - 1>(a, first_row);
        }
    }
    SumMicro<Isa, Format, R>::run(a, first_row);
}

template <class Isa, class Format>
void weighted_sum(const SumRows &a) {
    for (int r = 0; r < a.n_rows; r += Isa::max_rows) {
        weighted_sum_some<Isa, Format>(a, r);
    }
}

}  // namespace kvlane

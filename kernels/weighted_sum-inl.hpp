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

    static void run(const SumRows &a, int first_row, bool fetch) {
        const int whole = a.v_head_dim / lanes * lanes;
        const int n_blocks = (a.v_head_dim + vectors * lanes - 1) / (vectors * lanes);
        Prefetcher ahead = prefetcher_of(a.ahead, fetch ? a.v.n * n_blocks : 0);
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
    static KVLANE_INLINE void narrower(const SumRows &a, int first_row, int whole, int &d, Prefetcher &ahead) {
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
    static void block(const SumRows &a, int first_row, int d, Prefetcher &all_ahead) {
        Prefetcher ahead = all_ahead;  // in registers
        const float *p = a.p + int64_t{first_row} * score_stride;
        float *o = a.o + first_row * a.o_stride + d;
        Vec acc[R * N];
        unroll<R>([&](auto r) __attribute__((always_inline)) {
            const Vec rescale = Isa::broadcast(a.rescale[first_row + r]);
            unroll<N>([&](auto i) __attribute__((always_inline)) {
                acc[r * N + i] = Isa::load(o + r * a.o_stride + i * lanes) * rescale;
            });
        });
        const std::byte *v = a.v.first + int64_t{d} * Format::bytes;
        for (int t = 0; t < a.v.n; ++t, v += a.v.stride_bytes) {
            if constexpr (R > Isa::rows_in_order) {
                prefetch_step(ahead);
            }
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
        all_ahead = ahead;
        unroll<R>([&](auto r) __attribute__((always_inline)) {
            unroll<N>([&](auto i)
                          __attribute__((always_inline)) { Isa::store(o + r * a.o_stride + i * lanes, acc[r * N + i]); });
        });
    }
};

template <class Isa, class Format, int R = Isa::max_rows>
KVLANE_INLINE void weighted_sum_some(const SumRows &a, int first_row, int n_rows) {
    if constexpr (R > 1) {
        if (n_rows < R) {
            return weighted_sum_some<Isa, Format, R - 1>(a, first_row, n_rows);
        }
    }
    SumMicro<Isa, Format, R>::run(a, first_row, first_row == 0);
}

template <class Isa, class Format>
void weighted_sum(const SumRows &a) {
    for (int r = 0; r < a.n_rows; r += Isa::max_rows) {
        weighted_sum_some<Isa, Format>(a, r, a.n_rows - r);
    }
}

}  // namespace kvlane

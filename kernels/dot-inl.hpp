#pragma once

// Scores of a tile: rows x tokens. A key row is loaded and widened once for all rows of a micro-kernel.

#include <cstring>

#include "rows-inl.hpp"

namespace kvlane {

// One micro-kernel: R rows, and a tree's worth of tokens at a time. Each (row, token) has one accumulator that goes over
// head_dim in order and is then reduced by a tree that is alike for every lane: its bits do not depend on R.
template <class Isa, class Format, int R>
struct DotMicro {
    using Vec = typename Isa::Vec;
    static constexpr int padded_rows = ceil_power_of_two(R);
    static constexpr int tokens = Isa::dot_accumulators / padded_rows;  // of one pass
    // Of them, side by side in registers, where they share the loads of queries.
    static constexpr int block = R <= Isa::rows_in_order ? 1 : tokens < 4 ? tokens : 4;
    static constexpr int lanes = Isa::lanes;
    static_assert(R <= Isa::max_rows && tokens >= 1 && padded_rows * tokens % lanes == 0);

    static void run(const DotRows &a, int first_row, bool fetch) {
        const float *q = a.q + int64_t{first_row} * a.head_dim;
        float *scores = a.scores + int64_t{first_row} * score_stride;
        const int n_steps = (a.k.n + block - 1) / block * (a.head_dim / lanes);
        Prefetcher ahead = prefetcher_of(a.ahead, fetch ? n_steps : 0);
        for (int t = 0; t < a.k.n; t += tokens) {
            Vec sum[padded_rows * tokens];
            unroll<tokens / block>([&](auto b) __attribute__((always_inline)) {
                dot_block<b * block>(a, q, t + b * block, ahead, sum);
            });
            store(sum, scores + t);
        }
    }

private:
    // sum[r * tokens + Offset + j] = q[r] * k[t + j], lane by lane. Past the run's end the last row stands in.
    template <int Offset>
    static KVLANE_INLINE void dot_block(const DotRows &a, const float *q, int t, Prefetcher &ahead,
                                        Vec (&sum)[padded_rows * tokens]) {
        const std::byte *k[block];
        unroll<block>([&](auto j) __attribute__((always_inline)) {
            k[j] = a.k.first + (t + j < a.k.n ? t + j : a.k.n - 1) * a.k.stride_bytes;
        });
        Vec acc[R * block];
        unroll<R * block>([&](auto i) __attribute__((always_inline)) { acc[i] = Isa::broadcast(0); });
        int d = 0;
        for (; d + lanes <= a.head_dim; d += lanes) {
            if constexpr (R > Isa::rows_in_order) {
                prefetch_step(ahead);
            }
            Vec key[block];
            unroll<block>([&](auto j)
                              __attribute__((always_inline)) { key[j] = Isa::load(Format{}, k[j] + d * Format::bytes); });
            unroll<R>([&](auto r) __attribute__((always_inline)) {
                const Vec query = Isa::in_register(Isa::load(q + int64_t{r} * a.head_dim + d));
                unroll<block>([&](auto j) __attribute__((always_inline)) {
                    acc[r * block + j] = Isa::fma(query, key[j], acc[r * block + j]);
                });
            });
        }
        if (const int rest = a.head_dim - d; rest > 0) {
            Vec key[block];
            unroll<block>([&](auto j) __attribute__((always_inline)) {
                key[j] = Isa::load_partial(Format{}, k[j] + d * Format::bytes, rest);
            });
            unroll<R>([&](auto r) __attribute__((always_inline)) {
                const auto *tail = reinterpret_cast<const std::byte *>(q + int64_t{r} * a.head_dim + d);
                const Vec query = Isa::load_partial(format::f32{}, tail, rest);
                unroll<block>([&](auto j) __attribute__((always_inline)) {
                    acc[r * block + j] = Isa::fma(query, key[j], acc[r * block + j]);
                });
            });
        }
        unroll<padded_rows>([&](auto r) __attribute__((always_inline)) {
            unroll<block>([&](auto j) __attribute__((always_inline)) {
                sum[r * tokens + Offset + j] = acc[(r < R ? r : 0) * block + j];
            });
        });
    }

    static KVLANE_INLINE void store(const Vec (&sum)[padded_rows * tokens], float *scores) {
        alignas(64) float score[padded_rows * tokens];
        unroll<padded_rows * tokens / lanes>([&](auto i) __attribute__((always_inline)) {
            Vec part[lanes];
            unroll<lanes>([&](auto j) __attribute__((always_inline)) { part[j] = sum[i * lanes + j]; });
            Isa::store(score + i * lanes, Isa::sums(part));
        });
        unroll<R>([&](auto r) __attribute__((always_inline)) {
            std::memcpy(scores + r * score_stride, score + r * tokens, tokens * sizeof(float));
        });
    }
};

template <class Isa, class Format, int R = Isa::max_rows>
KVLANE_INLINE void dot_some(const DotRows &a, int first_row, int n_rows) {
    if constexpr (R > 1) {
        if (n_rows < R) {
            return dot_some<Isa, Format, R - 1>(a, first_row, n_rows);
        }
    }
    DotMicro<Isa, Format, R>::run(a, first_row, first_row == 0);
}

template <class Isa, class Format>
void dot(const DotRows &a) {
    for (int r = 0; r < a.n_rows; r += Isa::max_rows) {
        dot_some<Isa, Format>(a, r, a.n_rows - r);
    }
}

}  // namespace kvlane

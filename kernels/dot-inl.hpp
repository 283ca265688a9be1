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
    static constexpr int tokens = dot_tokens<Isa>(R);  // of one pass
    static constexpr int padded_rows = Isa::dot_accumulators / tokens;
    // Of them, side by side in registers, where they share the loads of queries.
    static constexpr int block = R <= Isa::rows_in_order ? 1 : tokens < 4 ? tokens : 4;
    static constexpr int lanes = Isa::lanes;
    static_assert(R <= Isa::max_rows && tokens >= 1 && padded_rows * tokens % lanes == 0);

    static void run(const DotRows &a, int first_row) {
        const float *q = a.q + int64_t{first_row} * a.head_dim;
        float *scores = a.scores + int64_t{first_row} * score_stride;
        const Ahead ahead = ahead_for<Isa, R>(a.ahead, first_row);
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
    static KVLANE_INLINE void dot_block(const DotRows &a, const float *q, int t, const Ahead &ahead,
                                        Vec (&sum)[padded_rows * tokens]) {
        const std::byte *k[block];
        unroll<block>([&](auto j) __attribute__((always_inline)) {
            k[j] = a.k.first + (t + j < a.k.n ? t + j : a.k.n - 1) * a.k.stride_bytes;
        });
        // Where a cache line of each row begins, one for each.
        const bool in_order = packed(a.k, a.head_dim * Format::bytes);
        const int64_t row_step = in_order ? cache_line_bytes : a.k.stride_bytes;
        const int64_t line_step = in_order ? block * cache_line_bytes : cache_line_bytes;
        const std::byte *line = k[0] + ahead.bytes_from(t);
        const auto ask = [&](int d) __attribute__((always_inline)) {
            if (d * Format::bytes % cache_line_bytes == 0) {
                unroll<block>([&](auto j) __attribute__((always_inline)) { prefetch<1>(line + j * row_step, ahead.how); });
                line += line_step;
            }
        };
        Vec acc[R * block];
        unroll<R * block>([&](auto i) __attribute__((always_inline)) { acc[i] = Isa::broadcast(0); });
        int d = 0;
        for (; d + lanes <= a.head_dim; d += lanes) {
            ask(d);
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
            ask(d);
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
KVLANE_INLINE void dot_some(const DotRows &a, int first_row) {
    if constexpr (R > 1) {
        if (a.n_rows - first_row < R) {
            return dot_some<Isa, Format, R - 1>(a, first_row);
        }
    }
    DotMicro<Isa, Format, R>::run(a, first_row);
}

template <class Isa, class Format>
void dot(const DotRows &a) {
    for (int r = 0; r < a.n_rows; r += Isa::max_rows) {
        dot_some<Isa, Format>(a, r);
    }
}

}  // namespace kvlane

#pragma once

// Scores of a tile: rows x tokens. A key row is loaded and widened once for all rows of a micro-kernel.

#include <algorithm>
#include <cstring>

#include "arithmetic-inl.hpp"
#include "nibbles-inl.hpp"

namespace kvlane {

// One micro-kernel: R rows, and a tree's worth of tokens at a time. Each (row, token) has one accumulator that goes over
// head_dim in order and is then reduced by a tree that is alike for every lane: its bits do not depend on R.
template <class Isa, class Format, int R>
struct DotMicro {
    using A = Arithmetic<Isa, Format>;
    using Number = typename A::Number;
    using Operand = typename A::Operand;
    using Vec = typename Isa::Vec;
    static constexpr int tokens = dot_tokens<Isa>(R);  // of one pass
    static constexpr int padded_rows = Isa::dot_accumulators / tokens;
    // Of them, side by side in registers, where they share the loads of queries.
    static constexpr int block = R <= Isa::rows_in_order ? 1 : tokens < 4 ? tokens : 4;
    static constexpr int lanes = Isa::lanes;
    static constexpr int line_elements = cache_line_bytes / Format::bytes;
    // Operands at once; one where there are several blocks, for the code not to grow too large.
    static constexpr int unrolled = tokens > block ? 1 : std::min(2, line_elements / A::width);
    static_assert(R <= Isa::max_rows && tokens >= 1 && padded_rows * tokens % lanes == 0);

    // By value: stores to scores could otherwise be taken for stores to it.
    static void run(DotRows a, int first_row) {
        const auto *q = static_cast<const Number *>(a.q) + int64_t{first_row} * a.head_dim;
        float *scores = a.scores + int64_t{first_row} * score_stride;
        const Ahead ahead = asked_by<Isa, R>(a.ahead, first_row);
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
    static KVLANE_INLINE void dot_block(const DotRows &a, const Number *q, int t, const Ahead &ahead,
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
        const auto ask = [&]() __attribute__((always_inline)) {
            unroll<block>([&](auto j) __attribute__((always_inline)) { prefetch<1>(line + j * row_step, ahead.into); });
            line += line_step;
        };
        typename A::Sum acc[R * block];
        unroll<R * block>([&](auto i) __attribute__((always_inline)) { acc[i] = A::zero(); });
        const auto add = [&](int d, auto key_at, auto query_at) __attribute__((always_inline)) {
            Operand key[block];
            unroll<block>([&](auto j) __attribute__((always_inline)) { key[j] = key_at(k[j] + d * Format::bytes); });
            unroll<R>([&](auto r) __attribute__((always_inline)) {
                const Operand query = query_at(q + int64_t{r} * a.head_dim + d);
                unroll<block>([&](auto j) __attribute__((always_inline)) {
                    acc[r * block + j] = A::multiply_add(query, key[j], acc[r * block + j]);
                });
            });
        };
        const auto add_whole = [&](int d) __attribute__((always_inline)) {
            add(
                d, [](const std::byte *p) __attribute__((always_inline)) { return A::key(p); },
                [](const Number *p) __attribute__((always_inline)) { return A::query(p); });
        };
        const auto ask_at = [&](int d) __attribute__((always_inline)) {
            if (d % line_elements == 0) {
                ask();
            }
        };
        // The part of an operand first: the accumulators of the loops then live in registers alone.
        const int whole = a.head_dim / A::width * A::width;
        if (const int rest = a.head_dim - whole; rest > 0) {
            ask_at(whole);
            add(
                whole, [&](const std::byte *p) __attribute__((always_inline)) { return A::key_part(p, rest); },
                [&](const Number *p) __attribute__((always_inline)) { return A::query_part(p, rest); });
        }
        int d = 0;
        for (; d + unrolled * A::width <= whole; d += unrolled * A::width) {
            ask_at(d);
            unroll<unrolled>([&](auto i) __attribute__((always_inline)) { add_whole(d + i * A::width); });
        }
        if constexpr (unrolled > 1) {
            for (; d < whole; d += A::width) {
                ask_at(d);
                add_whole(d);
            }
        }
        unroll<padded_rows>([&](auto r) __attribute__((always_inline)) {
            unroll<block>([&](auto j) __attribute__((always_inline)) {
                sum[r * tokens + Offset + j] = A::to_float(acc[(r < R ? r : 0) * block + j]);
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
    if constexpr (Format::group > 0) {
        for_each_unpacked<Isa>(a.k, a.entries, a.head_dim, a.ahead, [&](int t, const StoredRows &rows) {
            dot<Isa, format::q8>({a.q, a.n_rows, a.head_dim, rows, {}, {}, a.scores + t});
        });
    } else {
        for (int r = 0; r < a.n_rows; r += Isa::max_rows) {
            dot_some<Isa, Format>(a, r);
        }
    }
}

}  // namespace kvlane

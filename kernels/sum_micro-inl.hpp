#pragma once

// Output of a tile: rows x v_head_dim. A value row is loaded and widened once for all rows of a micro-kernel.

#include <algorithm>

#include "arithmetic-inl.hpp"
#include "fours-inl.hpp"

namespace kvlane {

// One micro-kernel: R rows by as many vectors of the output as there are accumulators for, over all tokens of the run. Each
// output element sums over the tokens in order: its bits do not depend on R.
template <class Isa, class Format, Numbers Kind, int R>
struct SumMicro {
    using A = Arithmetic<Isa, Format, Kind>;
    using Operand = typename A::Operand;
    static constexpr int lanes = Isa::lanes;
    // The more vectors a weight serves, the fewer ports its broadcast and the values' widening take from multiply-adds: that
    // pays for many rows of values to be widened; else powers of two, which divide most head_dims, did better.
    // No more than 8, whose values share the registers with the sums.
    static constexpr int fit = Isa::sum_accumulators / R < 8 ? Isa::sum_accumulators / R : 8;
    static constexpr bool whole_power = Format::bytes == 4 || R <= 4;
    static constexpr int vectors = whole_power && ceil_power_of_two(fit) > fit ? ceil_power_of_two(fit) / 2 : fit;
    static_assert(R <= Isa::max_rows && vectors >= 1);

    static void run(const SumRows &a, int first_row) {
        const Ahead ahead = first_row > 0 ? Ahead{} : a.ahead;  // the first pass over stored rows asks, the others find them
        const int whole = a.v_head_dim / lanes * lanes;
        int d = 0;
        for (; d + vectors * lanes <= whole; d += vectors * lanes) {
            block<vectors, false>(a, first_row, d, ahead);
        }
        narrower<ceil_power_of_two(vectors) / 2>(a, first_row, whole, d, ahead);
        if constexpr (A::has_parts) {
            if (d < a.v_head_dim) {
                block<1, true>(a, first_row, d, ahead);
            }
        }
    }

private:
    // Tokens at once: twice as many as an operand holds where a cache line has more and registers are left for their
    // weights.
    static constexpr int at_once(int n_vectors) {
        return n_vectors * lanes * Format::bytes < cache_line_bytes && R * n_vectors < 16 ? 2 * A::tokens : A::tokens;
    }

    // What is asked for at a time: in order, the run's lines are shared among its blocks.
    template <int N>
    struct Asked {
        static constexpr int bytes = N * lanes * Format::bytes;
        const std::byte *next_line;
        int64_t row_step;  // 0 in order
        int turn;
        int64_t at_turn;
        Prefetch into;

        KVLANE_INLINE Asked(const SumRows &a, int d, const Ahead &ahead) : into(ahead.into) {
            const bool in_order = packed(a.v, a.v_head_dim * Format::bytes);
            row_step = in_order ? 0 : a.v.stride_bytes;
            turn = in_order ? (ahead.turn * a.v_head_dim - d * a.v.n) / (N * lanes) : ahead.turn;
            next_line = a.v.first + int64_t{d} * Format::bytes * (in_order ? a.v.n : 1);
            next_line += turn > 0 ? ahead.in_run : ahead.behind_turn;
            at_turn = turn > 0 ? ahead.behind_turn - ahead.in_run : 0;
        }

        KVLANE_INLINE void next(int t) {
            if (into == Prefetch::none) {
                return;
            }
            if (t >= turn) {
                next_line += at_turn;
                at_turn = 0;
            }
            if (row_step == 0) {
                prefetch<at_once(N) * bytes>(next_line, into);
                next_line += at_once(N) * bytes;
            } else {
                unroll<at_once(N)>([&](auto) __attribute__((always_inline)) {
                    prefetch<bytes>(next_line, into);
                    next_line += row_step;
                });
            }
        }
    };

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
        const auto *p = static_cast<const typename A::Number *>(a.p) + int64_t{first_row} * A::weight_stride;
        constexpr int row_step = A::sums_scores ? score_stride : lanes;
        const int64_t step = A::sums_scores ? lanes : o_step<Isa>(a.o_rows);
        auto *o = static_cast<typename A::Total *>(a.o) + d / lanes * step + first_row * row_step;
        typename A::Sum acc[R * N];
        unroll<N>([&](auto i) __attribute__((always_inline)) {
            unroll<R>([&](auto r) __attribute__((always_inline)) {
                acc[r * N + i] = A::start(a, o + i * step + r * row_step, first_row + r);
            });
        });
        const std::byte *v = a.v.first + int64_t{d} * Format::bytes;
        // What serves more multiply-adds is held in registers, the other comes one by one.
        const auto add = [&](const std::byte *row, int64_t next, auto weight) __attribute__((always_inline)) {
            const auto value = [&](auto i) __attribute__((always_inline)) {
                if constexpr (Tail) {
                    return A::value_part(row, next, a.v_head_dim - d);
                } else {
                    return A::value(row + i * lanes * Format::bytes, next);
                }
            };
            if constexpr (R < N) {
                typename A::Weight held[R];
                unroll<R>([&](auto r) __attribute__((always_inline)) { held[r] = weight(r * A::weight_stride); });
                unroll<N>([&](auto i) __attribute__((always_inline)) {
                    const Operand x = value(i);
                    unroll<R>([&](auto r) __attribute__((always_inline)) {
                        acc[r * N + i] = A::multiply_add(held[r], x, acc[r * N + i]);
                    });
                });
            } else {
                Operand held[N];
                unroll<N>([&](auto i) __attribute__((always_inline)) { held[i] = value(i); });
                unroll<R>([&](auto r) __attribute__((always_inline)) {
                    const auto w = weight(r * A::weight_stride);
                    unroll<N>([&](auto i) __attribute__((always_inline)) {
                        acc[r * N + i] = A::multiply_add(w, held[i], acc[r * N + i]);
                    });
                });
            }
        };
        int t = 0;
        const auto add_tokens = [&]() __attribute__((always_inline)) {
            add(
                v,
                a.v.stride_bytes, [&](int r) __attribute__((always_inline)) { return A::weight(p + r + t * A::weights); });
            v += A::tokens * a.v.stride_bytes;
            t += A::tokens;
        };
        // What is left over comes first: the accumulators of the loop then live in registers alone.
        Asked<N> asked(a, d, ahead);
        const int left_over = a.v.n % at_once(N);
        if (at_once(N) > 1 && left_over > 0) {
            asked.next(t);
        }
        if constexpr (A::tokens > 1) {
            if (left_over % A::tokens > 0) {
                add(
                    v, 0, [&](int r) __attribute__((always_inline)) { return A::weight_alone(p + r); });
                v += a.v.stride_bytes;
                t = 1;
            }
        }
        if constexpr (at_once(N) > A::tokens) {
            while (t < left_over) {
                add_tokens();
            }
        }
        while (t < a.v.n) {
            asked.next(t);
            unroll<at_once(N) / A::tokens>([&](auto) __attribute__((always_inline)) { add_tokens(); });
        }
        unroll<N>([&](auto i) __attribute__((always_inline)) {
            unroll<R>([&](auto r) __attribute__((always_inline)) { A::store(o + i * step + r * row_step, acc[r * N + i]); });
        });
    }
};

template <class Isa, class Format, Numbers N>
void sum_rows(const SumRows &a) {
    for_each_kernel<Isa>(
        a.n_rows, [&](auto rows, int first)
                      __attribute__((always_inline)) { SumMicro<Isa, Format, N, rows>::run(a, first); });
}

}  // namespace kvlane

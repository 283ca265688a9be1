#pragma once

// Output of a tile: rows x v_head_dim. A value row is loaded and widened once for all rows of a micro-kernel.

#include <algorithm>
#include <utility>

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

    // By value: stores to o could otherwise be taken for stores to it.
    static void run(SumRows a, int first_row) {
        if (first_row > 0) {  // the first pass over stored rows asks, the others find them
            a.ahead = {};
        }
        Asked asked(a);
        Block b{static_cast<const Number *>(a.p) + int64_t{first_row} * A::weight_stride,
                static_cast<Total *>(a.o) + first_row * row_step,
                A::sums_scores ? lanes : o_step<Isa>(a.o_rows),
                a.v.first,
                a.v_head_dim,
                first_row};
        while (b.n_elements >= vectors * lanes) {
            take<vectors>(a, b, asked);
        }
        narrower<ceil_power_of_two(vectors) / 2>(a, b, asked);
        if constexpr (A::has_parts && lanes > 1) {
            if (b.n_elements > 0) {
                add_block<1, true>(a, b, asked);
            }
        }
    }

private:
    using Number = typename A::Number;
    using Total = typename A::Total;
    static constexpr int row_step = A::sums_scores ? score_stride : lanes;  // of o

    // What is left to do, from some element on.
    struct Block {
        const Number *p;
        Total *o;
        int64_t o_step;  // from one vector of a row to the next
        const std::byte *v;
        int n_elements;
        int first_row;
    };

    // Tokens at once: twice as many as an operand holds where a cache line has more and registers are left for their
    // weights.
    static constexpr int at_once(int n_vectors) {
        return n_vectors * lanes * Format::bytes < cache_line_bytes && R * n_vectors < 16 ? 2 * A::tokens : A::tokens;
    }

    // What is asked for at a time: in order, or in halves, the run's lines are shared among its blocks.
    struct Asked {
        Prefetch into;
        int64_t row_step;  // 0 in order
        const std::byte *line;
        const std::byte *other;  // of the other half; null: none
        const std::byte *turn;   // where line goes on by
        int64_t at_turn;

        KVLANE_INLINE explicit Asked(const SumRows &a) : into(a.ahead.into) {
            const int row_bytes = a.v_head_dim * Format::bytes;
            row_step = packed(a.v, row_bytes) ? 0 : a.v.stride_bytes;
            start(a, row_step == 0 ? row_bytes : row_step, a.v.first);
        }
        // At a block of elements: where rows lie apart, each asks for its own of them.
        KVLANE_INLINE void at_block(const SumRows &a, const std::byte *v) {
            if (row_step != 0) {
                start(a, row_step, v);
            }
        }
        template <int N>
        KVLANE_INLINE void next() {
            constexpr int bytes = N * lanes * Format::bytes;
            if (into == Prefetch::none) [[unlikely]] {
                return;
            }
            if (line >= turn) [[unlikely]] {
                line += at_turn;
                turn = reinterpret_cast<const std::byte *>(UINTPTR_MAX);
            }
            if (row_step == 0) [[likely]] {
                prefetch<at_once(N) * bytes>(line, into);
                line += at_once(N) * bytes;
                if (other) {
                    std::swap(line, other);
                }
            } else {
                unroll<at_once(N)>([&](auto) __attribute__((always_inline)) {
                    prefetch<bytes>(line, into);
                    line += row_step;
                });
            }
        }

    private:
        KVLANE_INLINE void start(const SumRows &a, int64_t step, const std::byte *v) {
            line = v + a.ahead.in_run;
            other = a.ahead.in_halves ? line + a.v.n / 2 * a.v.stride_bytes : nullptr;
            turn = line + a.ahead.turn * step;
            at_turn = a.ahead.behind_turn - a.ahead.in_run;
        }
    };

    template <int N>
    static KVLANE_INLINE void take(const SumRows &a, Block &b, Asked &asked) {
        add_block<N, false>(a, b, asked);
        b.o += N * b.o_step;
        b.v += N * lanes * Format::bytes;
        b.n_elements -= N * lanes;
    }

    template <int N>
    static KVLANE_INLINE void narrower(const SumRows &a, Block &b, Asked &asked) {
        if constexpr (N >= 1) {
            if (b.n_elements >= N * lanes) {
                take<N>(a, b, asked);
            }
            narrower<N / 2>(a, b, asked);
        }
    }

    // N vectors, or the part of one that is left.
    template <int N, bool Tail>
    static KVLANE_INLINE void add_block(const SumRows &a, const Block &b, Asked &asked) {
        typename A::Sum acc[R * N];
        unroll<N>([&](auto i) __attribute__((always_inline)) {
            Total *of_vector = b.o + i * b.o_step;
            unroll<R>([&](auto r) __attribute__((always_inline)) {
                acc[r * N + i] = A::start(a, of_vector + r * row_step, b.first_row + r);
            });
        });
        const std::byte *v = b.v;
        const Number *p = b.p, *const end = p + a.v.n * A::weights;
        // What serves more multiply-adds is held in registers, the other comes one by one.
        const auto add = [&](int64_t next, auto weight) __attribute__((always_inline)) {
            const auto value = [&](auto i) __attribute__((always_inline)) {
                if constexpr (Tail) {
                    return A::value_part(v, next, b.n_elements);
                } else {
                    return A::value(v + i * lanes * Format::bytes, next);
                }
            };
            if constexpr (R < N) {
                typename A::Weight held[R];
                unroll<R>([&](auto r) __attribute__((always_inline)) { held[r] = weight(p + r * A::weight_stride); });
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
                    const auto w = weight(p + r * A::weight_stride);
                    unroll<N>([&](auto i) __attribute__((always_inline)) {
                        acc[r * N + i] = A::multiply_add(w, held[i], acc[r * N + i]);
                    });
                });
            }
        };
        const auto add_tokens = [&]() __attribute__((always_inline)) {
            add(
                a.v.stride_bytes, [](const Number *of_row) __attribute__((always_inline)) { return A::weight(of_row); });
            v += A::tokens * a.v.stride_bytes;
            p += A::tokens * A::weights;
        };
        // What is left over comes first: the accumulators of the loop then live in registers alone.
        asked.at_block(a, v);
        if (const int left_over = a.v.n % at_once(N); left_over > 0) {
            asked.template next<N>();
            if constexpr (A::tokens > 1) {
                if (left_over % A::tokens > 0) {
                    add(
                        0, [](const Number *of_row) __attribute__((always_inline)) { return A::weight_alone(of_row); });
                    v += a.v.stride_bytes;
                    ++p;
                }
            }
            if constexpr (at_once(N) > A::tokens) {
                if (left_over >= A::tokens) {
                    add_tokens();
                }
            }
        }
        while (p < end) {
            asked.template next<N>();
            unroll<at_once(N) / A::tokens>([&](auto) __attribute__((always_inline)) { add_tokens(); });
        }
        unroll<N>([&](auto i) __attribute__((always_inline)) {
            Total *of_vector = b.o + i * b.o_step;
            unroll<R>([&](auto r) __attribute__((always_inline)) { A::store(of_vector + r * row_step, acc[r * N + i]); });
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

#pragma once

// The micro-kernel: a matrix product whose k may be divided into groups,
//
//   C[r][c] (+)= sum over groups g of row_scales[r] * multipliers[g][c] * sum over k in g of A[r][k] * B[k][c]
//
// where B are n_panels panels, row scales are for integer operands only, and most products have one group and no
// multipliers; for scores (A: queries, B: keys), and for weighted sums (A: softmax weights, B: values), which are added to
// C.
//
// The terms of an element of C are summed in the order of k, all of them or those of one group of k, whose sum is multiplied
// by the column's multiplier: bits do not depend on how many rows or panels are computed together.

#include <algorithm>

#include "formats/panel.hpp"
#include "rows-inl.hpp"

namespace kvlane {

// The compute type: how the elements of a panel are multiplied.
//
//   Element          element type of A; within a granule in the order that multiply_add requires
//   Acc              a vector of accumulators, one per column
//   has_initial_sums whether initial accumulators are other than 0
//   granule          elements of A and of a column per step
//   parts            multiply-adds per step
//   part<E>(p)       part E of the right operand, for the columns whose granules begin at p
//   broadcast(a)     one part of A in every lane; part E begins at E * granule / parts within the granule
namespace operand {

static constexpr int i16_granule = 4;

// f32 products of stored floats, or of stored bytes without their scales.
template <class Isa, class Format>
struct F32 {
    using Element = float;
    using Acc = typename Isa::Vec;
    static constexpr bool is_integer = false, has_initial_sums = false;
    static constexpr int granule = panel::granule<Format>;
    static constexpr int parts = granule;
    static constexpr int column_bytes = granule * Format::bytes;
    template <int E>
    static KVLANE_INLINE Acc part(const std::byte *p) {
        return Isa::template granule_element<E>(Format{}, p);
    }
    static KVLANE_INLINE Acc broadcast(const float *a) { return Isa::broadcast(*a); }
    static KVLANE_INLINE Acc multiply_add(Acc a, Acc b, Acc c) { return Isa::fma(a, b, c); }
};

// Exact sums of products of bytes and 16-bit integers, two at a time: first the first and third elements of a granule, then
// the second and fourth.
template <class Isa>
struct I16 {
    using Element = int16_t;
    using Acc = typename Isa::Sums;
    static constexpr bool is_integer = true, has_initial_sums = false;
    static constexpr int granule = i16_granule;
    static constexpr int parts = 2;
    static constexpr int column_bytes = 4;
    template <int E>
    static KVLANE_INLINE auto part(const std::byte *p) {
        return Isa::template word_pairs<E>(p);
    }
    static KVLANE_INLINE auto broadcast(const int16_t *a) { return Isa::broadcast_words(a); }
    template <class A, class B>
    static KVLANE_INLINE Acc multiply_add(A a, B b, Acc c) {
        return Isa::add_word_products(a, b, c);
    }
};

// Exact sums of products of signed bytes, four at a time. Where the isa multiplies unsigned by signed bytes, it offsets
// those of panels by 128, and the initial accumulators compensate.
template <class Isa>
struct I8 {
    using Element = int8_t;
    using Acc = typename Isa::Sums;
    static constexpr bool is_integer = true, has_initial_sums = Isa::panel_offset != 0;
    static constexpr int granule = 4;
    static constexpr int parts = 1;
    static constexpr int column_bytes = 4;
    template <int E>
    static KVLANE_INLINE auto part(const std::byte *p) {
        return Isa::byte_fours(p);
    }
    static KVLANE_INLINE auto broadcast(const int8_t *a) { return Isa::broadcast_bytes(a); }
    template <class A, class B>
    static KVLANE_INLINE Acc multiply_add(A a, B b, Acc c) {
        return Isa::add_byte_products(a, b, c);
    }
};

}  // namespace operand

// Memory to prefetch while a product is computed, in two streams: its first and second halves.
struct Prefetch {
    static constexpr int streams = 2;
    const std::byte *at;  // of the first stream
    int64_t stream_bytes;

    // The share of steps [first, first + n) of `all`.
    Prefetch part(int first, int n, int all) const {
        return {at + streams * stream_bytes * first / all, stream_bytes * n / all};
    }
};

// As far as that has come.
struct PrefetchCursor {
    static constexpr int step_shift = 8;
    const std::byte *at;
    int64_t stream_bytes;
    int64_t step;  // bytes of a stream per k, panel and block of rows, times 2^step_shift
};

template <class Operand>
struct Gemm {
    const typename Operand::Element *a;  // [n_rows][lda], padded with zeros to whole granules
    int lda;
    int n_rows;
    const std::byte *panels;
    int64_t panel_bytes;
    int n_panels;
    int k;        // a multiple of panel::k_multiple
    int k_group;  // terms per group: k, or a multiple of panel::k_multiple
    float *c;     // [n_rows][ldc]
    int ldc;
    bool accumulates;              // C += …, or C = …
    const float *row_scales;       // [n_rows]; integer operands only
    const int32_t *initial_sums;   // [groups][max_rows], initial accumulators; where has_initial_sums
    const std::byte *multipliers;  // [groups][tile_tokens], signed bytes, of columns; null: none
    Prefetch prefetch;             // data that is read next
};

// One step of k: sums[r][j] += row(e, r) * column(e, j) for every part e. The row or column operands, whichever are
// fewer, stay in registers; each of the others is loaded only once.
template <class Operand, int R, int N, class Row, class Column>
KVLANE_INLINE void add_step(Row &&row, Column &&column, typename Operand::Acc (&sums)[R][N]) {
    if constexpr (R < N) {
        unroll<N>([&](auto j) __attribute__((always_inline)) {
            unroll<Operand::parts>([&](auto e) __attribute__((always_inline)) {
                const auto b = column(e, j);
                unroll<R>([&](auto r) __attribute__((always_inline)) {
                    sums[r][j] = Operand::multiply_add(row(e, r), b, sums[r][j]);
                });
            });
        });
    } else {
        unroll<Operand::parts>([&](auto e) __attribute__((always_inline)) {
            unroll<R>([&](auto r) __attribute__((always_inline)) {
                const auto a = row(e, r);
                unroll<N>([&](auto j) __attribute__((always_inline)) {
                    sums[r][j] = Operand::multiply_add(a, column(e, j), sums[r][j]);
                });
            });
        });
    }
}

// Stores the sums of a group, or adds them to C.
template <class Isa, class Operand, int R, int N>
KVLANE_INLINE void store_sums(const Gemm<Operand> &g, int row, int first, int group,
                              const typename Operand::Acc (&sums)[R][N]) {
    float *const c = g.c + row * g.ldc + first * panel::columns;
    const int ldc = g.ldc;
    typename Isa::Vec products[R][N];
    const auto for_each_vector = [&](auto &&body) __attribute__((always_inline)) {
        unroll<R>([&](auto r) __attribute__((always_inline)) {
            unroll<N>([&](auto j) __attribute__((always_inline)) { body(r, j, c + r * ldc + j * Isa::lanes); });
        });
    };
    for_each_vector([&](auto r, auto j, float *) __attribute__((always_inline)) {
        if constexpr (Operand::is_integer) {
            products[r][j] = Isa::to_float(sums[r][j]) * Isa::broadcast(g.row_scales[row + r]);
        } else {
            products[r][j] = sums[r][j];
        }
    });
    if (g.multipliers) {
        const std::byte *const multipliers = g.multipliers + group * panel::tile_tokens + first * panel::columns;
        for_each_vector([&](auto r, auto j, float *) __attribute__((always_inline)) {
            products[r][j] = products[r][j] * Isa::load(format::q8{}, multipliers + j * Isa::lanes);
        });
    }
    if (g.accumulates || group > 0) {
        for_each_vector([&](auto r, auto j, const float *at)
                            __attribute__((always_inline)) { products[r][j] = Isa::load(at) + products[r][j]; });
    }
    for_each_vector([&](auto r, auto j, float *at) __attribute__((always_inline)) { Isa::store(at, products[r][j]); });
}

// Multiplies rows [row, row + R) by panels [first, first + P). Not inlined, to keep callers' variables out of its registers.
template <class Isa, class Operand, int R, int P>
static __attribute__((noinline)) void gemm_block(const Gemm<Operand> &g, int row, int first, PrefetchCursor &prefetch) {
    using Acc = typename Operand::Acc;
    constexpr int vectors = panel::columns / Isa::lanes, n = P * vectors;
    constexpr int vector_bytes = Isa::lanes * Operand::column_bytes, step_bytes = panel::columns * Operand::column_bytes;
    constexpr int lines = 4, steps = std::max(1, lines * static_cast<int>(cache_line_bytes) / (P * step_bytes));
    const typename Operand::Element *a = g.a + row * g.lda;
    const std::byte *b = g.panels + first * g.panel_bytes;
    const int64_t panel_bytes = g.panel_bytes;
    const int lda = g.lda;
    const int64_t stream_bytes = prefetch.stream_bytes;
    const int64_t prefetch_step = prefetch.step * P * steps * Operand::granule >> PrefetchCursor::step_shift;
    const std::byte *next = prefetch.at;
    for (int begin = 0, group = 0; begin < g.k; begin += g.k_group, ++group) {
        Acc sums[R][n];
        unroll<R>([&](auto r) __attribute__((always_inline)) {
            unroll<n>([&](auto j) __attribute__((always_inline)) {
                if constexpr (Operand::is_integer) {
                    sums[r][j] =
                        Isa::broadcast_sum(Operand::has_initial_sums ? g.initial_sums[group * max_rows + row + r] : 0);
                } else {
                    sums[r][j] = Isa::broadcast(0);
                }
            });
        });
        const int end = std::min(g.k, begin + g.k_group);
        for (int k = begin; k < end; k += steps * Operand::granule, next += prefetch_step) {
            unroll<lines>([&](auto i) __attribute__((always_inline)) {
                __builtin_prefetch(next + i % Prefetch::streams * stream_bytes + i / Prefetch::streams * cache_line_bytes);
            });
            for (int step = 0; step < steps; ++step, a += Operand::granule, b += step_bytes) {
                add_step<Operand>(
                    [&](auto e, auto r) __attribute__((always_inline)) {
                        return Operand::broadcast(a + r * lda + e * (Operand::granule / Operand::parts));
                    },
                    [&](auto e, auto j) __attribute__((always_inline)) {
                        return Operand::template part<e>(b + j / vectors * panel_bytes + j % vectors * vector_bytes);
                    },
                    sums);
            }
        }
        store_sums<Isa>(g, row, first, group, sums);
    }
    prefetch.at = next;
}

// The number of panels that are multiplied by `rows` rows at once, limited by the accumulators that fit in registers.
template <class Isa>
static constexpr int panels_at_once(int rows) {
    int panels = 1;
    while (2 * panels * rows * (panel::columns / Isa::lanes) <= Isa::gemm_accumulators && panels < Isa::max_panels) {
        panels *= 2;
    }
    return panels;
}

// Multiplies R rows from `row` on by panels [first, end).
template <class Isa, class Operand, int R, int P = panels_at_once<Isa>(R)>
static void gemm_rows(const Gemm<Operand> &g, int row, int first, int end, PrefetchCursor &prefetch) {
    for (; first + P <= end; first += P) {
        gemm_block<Isa, Operand, R, P>(g, row, first, prefetch);
    }
    if constexpr (P > 1) {
        gemm_rows<Isa, Operand, R, P / 2>(g, row, first, end, prefetch);
    }
}

// Processes as many panels at a time as the smallest block of rows multiplies at once, so that all blocks read them from the
// L1 cache. Rows are split into the fewest possible blocks, whose sizes differ by at most 1.
template <class Isa, class Operand>
static void gemm(const Gemm<Operand> &g) {
    const int n_blocks = (g.n_rows + Isa::gemm_rows - 1) / Isa::gemm_rows;
    const int at_once = n_blocks == 1 ? g.n_panels : panels_at_once<Isa>(g.n_rows / n_blocks);
    const int64_t step = (g.prefetch.stream_bytes << PrefetchCursor::step_shift) / (int64_t{g.n_panels} * n_blocks * g.k);
    PrefetchCursor prefetch = {g.prefetch.at, g.prefetch.stream_bytes, step};
    for (int first = 0; first < g.n_panels; first += at_once) {
        const int end = std::min(g.n_panels, first + at_once);
        for (int block = 0, row = 0; block < n_blocks; ++block) {
            const int n = (g.n_rows - row) / (n_blocks - block);
            with_constant<Isa::gemm_rows>(
                n, [&](auto rows)
                       __attribute__((always_inline)) { gemm_rows<Isa, Operand, rows>(g, row, first, end, prefetch); });
            row += n;
        }
    }
}

}  // namespace kvlane

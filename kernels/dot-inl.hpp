#pragma once

// Scores of a tile: rows x tokens. A key row is loaded and widened once for all rows of a micro-kernel.

#include <algorithm>
#include <cstring>

#include "fours-inl.hpp"
#include "nibble_dot-inl.hpp"
#include "sum_micro-inl.hpp"

namespace kvlane {

// Bytes from the queries of one micro-kernel's rows to those of the next, for each row.
template <class Isa, Numbers N>
constexpr int query_row_bytes(int dim) {
    using A = KeyArithmetic<Isa, N>;
    if constexpr (N == Numbers::bytes && !multiplies_bytes<Isa, format::q8>()) {
        return n_nibble_blocks<Isa>(dim) * static_cast<int>(sizeof(NibbleQuery<Isa>));
    } else if constexpr (N == Numbers::bytes) {
        return A::weight_stride;
    } else {
        const int whole = (dim + A::width - 1) / A::width * A::width;
        return whole * tokens_abreast<Isa>(N, Isa::max_rows) * static_cast<int>(sizeof(typename A::Number));
    }
}

// Row r of a micro-kernel's n_rows, as it loads them: as many elements as a vector of keys has of one token, once for each
// token in it, beside those of the other rows; then the next. Zeros follow the row, up to a whole vector.
template <class A, int Abreast>
static void lay_out_beside(const typename A::Number *row, int dim, int r, int n_rows, typename A::Number *to) {
    constexpr int elements = A::width / Abreast;
    typename A::Number *at = to + r * A::width;
    for (int d = 0; d < dim; d += A::width) {
        unroll<Abreast>([&](auto e) __attribute__((always_inline)) {
            unroll<Abreast>([&](auto i) __attribute__((always_inline)) {
                std::memcpy(at + i * elements, row + d + e * elements, elements * sizeof *at);
            });
            at += n_rows * A::width;
        });
    }
}

// Row r of n_rows, at its place among all of them.
template <class Isa, Numbers N, class A = KeyArithmetic<Isa, N>>
static void lay_out_query(const typename A::Number *row, int dim, int r, int n_rows, typename A::Number *queries) {
    const int in_kernel = r % Isa::max_rows;
    const int kernel_rows = std::min(n_rows - (r - in_kernel), Isa::max_rows);
    auto *to = queries + (r - in_kernel) * query_row_bytes<Isa, N>(dim) / static_cast<int>(sizeof *queries);
    if (tokens_abreast<Isa>(N, kernel_rows) > 1) {
        lay_out_beside<A, Isa::max_tokens_abreast>(row, dim, in_kernel, kernel_rows, to);
    } else {
        lay_out_beside<A, 1>(row, dim, in_kernel, kernel_rows, to);
    }
}

// Whether n rows, at a multiply-add a byte or less, wait for keys from memory, whose prefetchers follow one key after the
// other best.
template <class Isa, class Format, Numbers N>
constexpr bool waits_for_memory(int n_rows) {
    return Isa::keys_in_order && !are_integers(N) && n_rows <= Format::bytes;
}

// One micro-kernel: R rows, and a tree's worth of tokens at a time. Each (row, token) has its accumulators, which go over
// head_dim in order and are then reduced by a tree that is alike for all: its bits do not depend on R, nor on InOrder, by
// which keys are read one after the other.
template <class Isa, class Format, Numbers N, int R, bool InOrder = false>
struct DotMicro {
    using A = Arithmetic<Isa, Format, N>;
    static constexpr int abreast = tokens_abreast<Isa>(N, R);
    using K = Keys<Isa, A, abreast>;
    using Number = typename A::Number;
    using Sum = typename A::Sum;
    static constexpr int lanes = Isa::lanes;
    static constexpr int tokens = dot_tokens<Isa>(N, R);  // of one pass
    static constexpr int vectors = tokens / abreast;      // of a row's sums
    // Of them, side by side in registers, where they share the loads of queries.
    static constexpr int block = InOrder ? 1 : std::min(vectors, 4);
    static constexpr int trees = (R * vectors * abreast + lanes - 1) / lanes;
    static constexpr int leaves = lanes / abreast;  // of one
    static constexpr int line_elements = cache_line_bytes / Format::bytes;
    // Operands at once; one where there are several large blocks, for the code not to grow too large. In order, those of a
    // cache line of bytes, and one of more: what is asked for then comes evenly.
    static constexpr int at_once = InOrder ? (Format::bytes > 1 ? 1 : 4) : vectors > block ? 1 : 2;
    static constexpr int unrolled = std::min(at_once, line_elements / A::width);
    static_assert(R <= Isa::max_rows && tokens % (block * abreast) == 0);

    // By value: stores to scores could otherwise be taken for stores to it.
    static void run(DotRows a, int first_row) {
        const std::byte *queries = static_cast<const std::byte *>(a.q) + first_row * query_row_bytes<Isa, N>(a.head_dim);
        const auto *q = reinterpret_cast<const Number *>(queries);
        float *scores = a.scores + int64_t{first_row} * score_stride;
        const Ahead ahead = first_row > 0 ? Ahead{} : a.ahead;
        for (int t = 0; t < a.k.n; t += tokens) {
            Sum sum[trees * leaves];
            unroll<vectors / block>([&](auto b) __attribute__((always_inline)) {
                dot_block<b * block>(a, q, t + b * block * abreast, first_row, ahead, sum);
            });
            store(sum, scores + t);
        }
    }

private:
    // sum[r * vectors + Offset + j] = q[r] * k[t + j * abreast, ...], lane by lane. Past the run's end the last row stands
    // in.
    template <int Offset>
    static KVLANE_INLINE void dot_block(const DotRows &a, const Number *q, int t, int first_row, const Ahead &ahead,
                                        Sum (&sum)[trees * leaves]) {
        const std::byte *k[block * abreast];
        unroll<block * abreast>([&](auto j) __attribute__((always_inline)) {
            k[j] = a.k.first + (t + j < a.k.n ? t + j : a.k.n - 1) * a.k.stride_bytes;
        });
        // Where a cache line of each row begins, one for each: of packed rows the next ones in order, or half of them in
        // each half of the run.
        constexpr int lines = block * abreast, near = (lines + 1) / 2;
        static_assert(lines == 1 || lines % 2 == 0);
        const bool is_packed = packed(a.k, a.head_dim * Format::bytes);
        const bool in_halves = lines > 1 && is_packed && ahead.in_halves;
        const int64_t row_step = is_packed ? cache_line_bytes : a.k.stride_bytes;
        const int64_t line_step = is_packed ? (in_halves ? near : lines) * cache_line_bytes : cache_line_bytes;
        const int64_t to_others = in_halves ? a.k.n / 2 * a.k.stride_bytes : near * row_step;
        const std::byte *line = (in_halves ? a.k.first + t / 2 * a.k.stride_bytes : k[0]) + ahead.bytes_from(t);
        const auto ask = [&]() __attribute__((always_inline)) {
            unroll<lines>([&](auto j) __attribute__((always_inline)) {
                prefetch<1>(j < near ? line + j * row_step : line + to_others + (j - near) * row_step, ahead.into);
            });
            line += line_step;
        };
        Sum acc[R * block];
        unroll<R * block>([&](auto i)
                              __attribute__((always_inline)) { acc[i] = A::start(a.starts, first_row + i / block); });
        const auto add = [&](int d, auto key_rows) __attribute__((always_inline)) {
            typename K::Part key[block][abreast];
            unroll<block>([&](auto j) __attribute__((always_inline)) {
                const std::byte *at[abreast];
                unroll<abreast>([&](auto i)
                                    __attribute__((always_inline)) { at[i] = k[j * abreast + i] + d * Format::bytes; });
                key_rows(at, key[j]);
            });
            unroll<abreast>([&](auto e) __attribute__((always_inline)) {
                typename A::Operand operand[block];
                unroll<block>([&](auto j) __attribute__((always_inline)) { operand[j] = K::operand(key[j][e]); });
                unroll<R>([&](auto r) __attribute__((always_inline)) {
                    const auto query = A::query(q + int64_t{d} * abreast * R + (e * R + r) * A::width);
                    unroll<block>([&](auto j) __attribute__((always_inline)) {
                        acc[r * block + j] = A::multiply_add(query, operand[j], acc[r * block + j]);
                    });
                });
            });
        };
        const auto add_whole = [&](int d) __attribute__((always_inline)) {
            add(
                d, [](const auto &rows, auto &key) __attribute__((always_inline)) { K::load(rows, key); });
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
                whole, [&](const auto &rows, auto &key)
                           __attribute__((always_inline)) { K::load_partial(rows, rest, key); });
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
        unroll<R * block>([&](auto i)
                              __attribute__((always_inline)) { sum[i / block * vectors + Offset + i % block] = acc[i]; });
    }

    static KVLANE_INLINE void store(Sum (&sum)[trees * leaves], float *scores) {
        unroll<trees * leaves - R * vectors>([&](auto i) __attribute__((always_inline)) { sum[R * vectors + i] = sum[0]; });
        alignas(64) float score[trees * lanes];
        unroll<trees>([&](auto i) __attribute__((always_inline)) {
            Sum part[leaves];
            unroll<leaves>([&](auto j) __attribute__((always_inline)) { part[j] = sum[i * leaves + j]; });
            Isa::store(score + i * lanes, Isa::sums(part));
        });
        unroll<R>([&](auto r) __attribute__((always_inline)) {
            std::memcpy(scores + r * score_stride, score + r * tokens, tokens * sizeof(float));
        });
    }
};

template <class Isa, class Format>
static void dot_bytes(const DotRows &a) {
    if constexpr (Isa::most_queries_as_stored > 0) {
        if (a.n_rows <= Isa::most_queries_as_stored) {
            if constexpr (Format::group > 0) {
                return nibble_dot<Isa>(a);
            } else {
                return with_constant<Isa::most_queries_as_stored>(
                    a.n_rows, [&](auto rows) __attribute__((always_inline)) {
                        DotMicro<Isa, Format, Numbers::bytes, rows>::run(a, 0);
                    });
            }
        }
    }
    if constexpr (multiplies_bytes<Isa, format::q8>()) {
        for_each_key_fours<
            Isa, Format>(a.k, a.entries, a.head_dim, a.ahead, [&](int t, const StoredRows &rows, int n, const Ahead &ahead) {
            sum_rows<Isa, KeyFours, Numbers::bytes>({a.q, a.n_rows, n, rows, {}, ahead, a.scores + t, a.n_rows, a.starts});
        });
    }
}

template <class Isa, class Format, Numbers N>
void dot(const DotRows &a) {
    if constexpr (N == Numbers::bytes) {
        dot_bytes<Isa, Format>(a);
    } else if constexpr (Format::group > 0) {
        for_each_unpacked<Isa>(a.k, a.entries, a.head_dim, a.ahead, [&](int t, const StoredRows &rows) {
            dot<Isa, format::q8, N>({a.q, a.n_rows, a.head_dim, rows, {}, {}, a.scores + t, nullptr});
        });
    } else {
        for_each_kernel<Isa>(
            a.n_rows, [&](auto rows, int first) __attribute__((always_inline)) {
                if constexpr (waits_for_memory<Isa, Format, N>(rows)) {
                    if (first == 0) {
                        return DotMicro<Isa, Format, N, rows, true>::run(a, first);
                    }
                }
                DotMicro<Isa, Format, N, rows>::run(a, first);
            });
    }
}

}  // namespace kvlane

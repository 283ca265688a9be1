#pragma once

// Scores of keys of 4 bits as they are stored, by queries of 8 bits:
//   q . k = sum over groups g of multiplier[g] * (sum over i of nibble[i] * q[i] - 8 * sum over i of q[i])
// A nibble is so small that products are summed in 16 bits, a group's multiplier joins when these are summed in 32. Nothing
// is brought side by side, but every query and key has sums of its own to be reduced: that pays for few queries, or where
// bytes are not multiplied otherwise.

#include <algorithm>
#include <cstring>

#include "fours-inl.hpp"

namespace kvlane {

// What a block of a query is multiplied as: the halves of its groups, those that meet lower nibbles and those that meet
// upper ones, and what as many of their products as are summed at once are too large by, negated. Behind a row's end zeros.
template <class Isa>
struct NibbleQuery {
    using Excess = typename Isa::NibbleExcess;
    alignas(vector_bytes<Isa>) int8_t lower[nibble_block<Isa> / 2];
    int8_t upper[nibble_block<Isa> / 2];
    Excess excess[nibble_block<Isa> / 2 / sizeof(Excess)];
};

// Row r of n_rows, at its place among all of them: the blocks of those of a micro-kernel stand side by side.
template <class Isa>
static void lay_out_nibble_query(const int8_t *row, int dim, int r, int n_rows, NibbleQuery<Isa> *queries) {
    constexpr int block = nibble_block<Isa>, half_group = format::q4::group / 2;
    const int in_kernel = r % Isa::max_rows, first = r - in_kernel, kernel_rows = std::min(n_rows - first, Isa::max_rows);
    NibbleQuery<Isa> *q = queries + first * n_nibble_blocks<Isa>(dim) + in_kernel;
    for (; dim > 0; dim -= block, row += block, q += kernel_rows) {
        if (dim < block) {
            *q = {};
        }
        for_each_group(
            std::min(dim, block), [&](int d, int n) __attribute__((always_inline)) {
                const int half = (n + 1) / 2;
                if (n == format::q4::group) {  // a size that is known: others are copied by a call
                    std::memcpy(q->lower + d / 2, row + d, half_group);
                    std::memcpy(q->upper + d / 2, row + d + half_group, half_group);
                } else {
                    std::copy_n(row + d, half, q->lower + d / 2);
                    std::copy_n(row + d + half, n - half, q->upper + d / 2);
                }
            });
        Isa::store_int8s(reinterpret_cast<std::byte *>(q->excess), Isa::nibble_excess(q->lower, q->upper));
    }
}

// One micro-kernel: R rows, and a tree's worth of keys at a time, each unpacked once for all rows. Sums are exact.
template <class Isa, int R>
struct NibbleDotMicro {
    static constexpr int tokens = dot_tokens<Isa>(Numbers::bytes, R);
    static constexpr int asked_at_once = std::max(8, tokens);
    static_assert(Isa::dot_accumulators == Isa::lanes && asked_at_once % tokens == 0 && tokens % Isa::nibble_keys == 0);

    static void run(const DotRows &a, const NibbleQuery<Isa> *queries, float *scores, bool asks) {
        const auto at = [](const StoredRows &rows, int t) { return rows.first + t * rows.stride_bytes; };
        const auto ask = [&](int t) __attribute__((always_inline)) {
            if (asks && t % asked_at_once == 0) {
                ask_for_rows(a.ahead, {at(a.k, t), a.k.stride_bytes, std::min(asked_at_once, a.k.n - t)}, t,
                             (a.head_dim + 1) / 2);
            }
        };
        const int last = a.k.n - tokens;
        if (last < 0) {
            ask(0);
            return pass<true>(a, a.k.first, a.entries.first, queries, scores);
        }
        for (int t = 0; t < a.k.n; t += tokens) {
            ask(t);
            const int from = std::min(t, last);  // at the end some keys once more, with the same scores
            pass<false>(a, at(a.k, from), at(a.entries, from), queries, scores + from);
        }
    }

private:
    using Int32s = typename Isa::Int32s;

    // Of `tokens` keys; of a run that has fewer, the last one stands in.
    template <bool Short>
    static KVLANE_INLINE void pass(const DotRows &a, const std::byte *k, const std::byte *entry, const NibbleQuery<Isa> *q,
                                   float *scores) {
        constexpr int keys = Isa::nibble_keys;
        const std::byte *multipliers = entry + sizeof(float);
        Int32s sum[Isa::lanes / keys];
        unroll<Isa::lanes / keys>([&](auto i) __attribute__((always_inline)) { sum[i] = Isa::zero_int32s(); });
        const auto add = [&](auto load) __attribute__((always_inline)) {
            unroll<tokens / keys>([&](auto j) __attribute__((always_inline)) {
                typename Isa::Nibbles key[keys];
                const std::byte *of_key[keys];
                unroll<keys>([&](auto i) __attribute__((always_inline)) {
                    const int nth = keys * j + i, t = Short && nth >= a.k.n ? a.k.n - 1 : nth;
                    key[i] = Isa::nibbles_of(load(k + t * a.k.stride_bytes));
                    of_key[i] = multipliers + t * a.entries.stride_bytes;
                });
                const auto multiplier = Isa::multipliers_of(of_key);
                unroll<R>([&](auto r) __attribute__((always_inline)) {
                    Int32s &of_row = sum[r * tokens / keys + j];
                    of_row = Isa::add_nibble_products(key, multiplier, q[r].lower, q[r].upper, q[r].excess, of_row);
                });
            });
            k += vector_bytes<Isa>;
            multipliers += groups_in_vector<Isa>;
            q += R;
        };
        int left = (a.head_dim + 1) / 2;
        for (; left >= vector_bytes<Isa>; left -= vector_bytes<Isa>) {
            add([](const std::byte *row) __attribute__((always_inline)) { return Isa::load_int8s(row); });
        }
        if (left > 0) {
            add([&](const std::byte *row) __attribute__((always_inline)) { return Isa::load_int8s_partial(row, left); });
        }
        alignas(64) float score[Isa::lanes];
        Isa::store(score, Isa::nibble_sums(sum));
        unroll<R>([&](auto r) __attribute__((always_inline)) {
            std::memcpy(scores + r * score_stride, score + r * tokens, tokens * sizeof(float));
        });
    }
};

template <class Isa>
void nibble_dot(const DotRows &a) {
    const auto *queries = static_cast<const NibbleQuery<Isa> *>(a.q);
    for (int r = 0; r < a.n_rows; r += Isa::max_rows) {
        with_constant<std::min(Isa::max_rows, Isa::most_queries_as_stored)>(
            a.n_rows - r, [&](auto rows) __attribute__((always_inline)) {
                NibbleDotMicro<Isa, rows>::run(a, queries + r * n_nibble_blocks<Isa>(a.head_dim),
                                               a.scores + int64_t{r} * score_stride, r == 0);
            });
    }
}

}  // namespace kvlane

#pragma once

// Scores of keys of 4 bits as they are stored, by queries of 8 bits:
//   q . k = sum over groups g of multiplier[g] * (sum over i of nibble[i] * q[i] - 8 * sum over i of q[i])
// A nibble is so small that products are summed in 16 bits, a group's multiplier joins when these are summed in 32.

#include <algorithm>
#include <cstring>

#include "nibbles-inl.hpp"

namespace kvlane {

// Whether keys of q4 are multiplied as bytes so. Queries are then laid out for that: keys of q8 cannot be.
template <class Isa>
constexpr bool multiplies_nibbles() {
    constexpr bool multiplies = requires { typename Isa::Nibbles; };
    static_assert(!multiplies || !multiplies_bytes<Isa, format::q8>());
    return multiplies;
}

// Elements whose nibbles a vector holds, of the two groups that are multiplied together.
static constexpr int nibble_block = 2 * format::q4::group;

// What a block of a query is multiplied as: the halves of both groups, those that meet lower nibbles and those that meet
// upper ones, and what every four of their products are too large by, negated. Behind a row's end zeros.
struct NibbleQuery {
    alignas(32) int8_t lower[nibble_block / 2];
    int8_t upper[nibble_block / 2];
    int16_t excess[nibble_block / 4];
};

static constexpr int n_nibble_blocks(int dim) { return (dim + nibble_block - 1) / nibble_block; }

// Row r of n_rows, at its place among all of them: the blocks of those of a micro-kernel stand side by side.
template <class Isa>
static void lay_out_nibble_query(const int8_t *row, int dim, int r, int n_rows, NibbleQuery *queries) {
    const int in_kernel = r % Isa::max_rows, first = r - in_kernel, kernel_rows = std::min(n_rows - first, Isa::max_rows);
    NibbleQuery *to = queries + first * n_nibble_blocks(dim) + in_kernel;
    for (int block = 0; block < n_nibble_blocks(dim); ++block) {
        to[block * kernel_rows] = {};
    }
    for_each_group(dim, [&](int d, int n) {
        NibbleQuery &q = to[d / nibble_block * kernel_rows];
        const int at = d % nibble_block / 2, half = (n + 1) / 2;
        std::copy_n(row + d, half, q.lower + at);
        std::copy_n(row + d + half, n - half, q.upper + at);
        for (int i = at; i < at + half; i += 2) {
            q.excess[i / 2] = static_cast<int16_t>(-8 * (q.lower[i] + q.lower[i + 1] + q.upper[i] + q.upper[i + 1]));
        }
    });
}

// One micro-kernel: R rows, and a tree's worth of keys at a time, each unpacked once for all rows. Sums are exact.
template <class Isa, int R>
struct NibbleDotMicro {
    static constexpr int tokens = Isa::dot_accumulators / ceil_power_of_two(R);
    static constexpr int asked_at_once = 8;
    static_assert(Isa::dot_accumulators == Isa::lanes && asked_at_once % tokens == 0);

    static void run(const DotRows &a, const NibbleQuery *queries, float *scores, bool asks) {
        const std::byte *k = a.k.first, *entry = a.entries.first;
        const auto ask = [&](int t) __attribute__((always_inline)) {
            if (asks && t % asked_at_once == 0) {
                ask_for_rows(a.ahead, {k, a.k.stride_bytes, std::min(asked_at_once, a.k.n - t)}, t, (a.head_dim + 1) / 2);
            }
        };
        int t = 0;
        for (; t + tokens <= a.k.n; t += tokens) {
            ask(t);
            pass(k, a.k.stride_bytes, entry, a.entries.stride_bytes, a.head_dim, queries, scores + t);
            k += tokens * a.k.stride_bytes;
            entry += tokens * a.entries.stride_bytes;
        }
        for (; t < a.k.n; ++t) {
            ask(t);
            pass(k, 0, entry, 0, a.head_dim, queries, scores + t);
            k += a.k.stride_bytes;
            entry += a.entries.stride_bytes;
        }
    }

private:
    using Int32s = typename Isa::Int32s;

    // Of `tokens` keys; where the stride is 0, of one, and scores behind it are yet to be written.
    static KVLANE_INLINE void pass(const std::byte *k, int64_t stride, const std::byte *entry, int64_t entry_stride, int dim,
                                   const NibbleQuery *q, float *scores) {
        const int row_bytes = (dim + 1) / 2;
        const std::byte *multipliers = entry + sizeof(float);
        Int32s sum[Isa::lanes];
        unroll<Isa::lanes>([&](auto i) __attribute__((always_inline)) { sum[i] = Isa::zero_int32s(); });
        const auto add = [&](auto block_of) __attribute__((always_inline)) {
            unroll<tokens>([&](auto j) __attribute__((always_inline)) {
                const auto key = Isa::nibbles_of(block_of(k + j * stride), multipliers + j * entry_stride);
                unroll<R>([&](auto r) __attribute__((always_inline)) {
                    Int32s &of_row = sum[r * tokens + j];
                    of_row = Isa::add_nibble_products(key, q[r].lower, q[r].upper, q[r].excess, of_row);
                });
            });
            k += nibble_block / 2;
            multipliers += 2;
            q += R;
        };
        const std::byte *const end = k + row_bytes;
        while (end - k >= nibble_block / 2) {
            add([](const std::byte *row) __attribute__((always_inline)) { return row; });
        }
        if (const auto rest = static_cast<size_t>(end - k); rest > 0) {
            std::byte part[nibble_block / 2] = {};
            add([&](const std::byte *row) __attribute__((always_inline)) {
                std::memcpy(part, row, rest);
                return static_cast<const std::byte *>(part);
            });
        }
        alignas(64) float score[Isa::lanes];
        Isa::store(score, Isa::sums(sum));
        unroll<R>([&](auto r) __attribute__((always_inline)) {
            std::memcpy(scores + r * score_stride, score + r * tokens, tokens * sizeof(float));
        });
    }
};

template <class Isa>
void nibble_dot(const DotRows &a) {
    const auto *queries = static_cast<const NibbleQuery *>(a.q);
    for_each_kernel<Isa>(
        a.n_rows, [&](auto rows, int first) __attribute__((always_inline)) {
            NibbleDotMicro<Isa, rows>::run(a, queries + first * n_nibble_blocks(a.head_dim),
                                           a.scores + int64_t{first} * score_stride, first == 0);
        });
}

}  // namespace kvlane

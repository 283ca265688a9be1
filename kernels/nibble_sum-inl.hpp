#pragma once

// Output of values of 4 bits as they are stored, by weights of 8 bits that have the values' scales and multipliers:
//   out = sum over t of weight[t][group] * (nibble[t] - 8), times what weights of the group are shares of
// Four tokens' bytes are brought side by side, each with its two nibbles, and unpacked by a mask and a shift.

#include <algorithm>
#include <cstring>
#include <numeric>

#include "fours-inl.hpp"

namespace kvlane {

// Weights of a tile, for the groups of one vector, stand in vectors of the same size: of 16 tokens for each group, then of
// the next ones; row by row, then for the groups of the next vector.
static constexpr int weighed_together = 16;
static constexpr float most_byte_weight = 255;
template <class Isa>
constexpr int byte_weights() {
    return tile_tokens / weighed_together * vector_bytes<Isa>;
}

// Element i of sums over a vector's groups stands here among the groups' elements: of four vectors the lower halves, of the
// next four the upper ones.
template <class Isa>
constexpr int value_element(int i) {
    constexpr int size = format::q4::group, half = size / 2, of_halves = groups_in_vector<Isa> * half;
    const int in_half = i % of_halves;
    return i / (2 * of_halves) * 2 * of_halves + in_half / half * size + in_half % half + i / of_halves % 2 * half;
}

// A row of whole groups, with what stands for 0 in the last one.
template <class Isa>
static void fill_groups(const std::byte *row, int dim, std::byte *to) {
    constexpr int half_group = format::q4::group / 2;
    const int n_whole = dim / format::q4::group, rest = dim % format::q4::group, half = (rest + 1) / 2;
    std::memcpy(to, row, static_cast<size_t>(n_whole * half_group));
    row += n_whole * half_group;
    to += n_whole * half_group;
    for (int i = 0; rest > 0 && i < half_group; ++i) {
        const auto nibble = [&](int d) {
            return d >= rest ? std::byte{8} : d < half ? row[d] & std::byte{15} : row[d - half] >> 4;
        };
        to[i] = nibble(i) | nibble(half_group + i) << 4;
    }
}

// Bytes of a row of whole groups.
static constexpr int group_bytes(int dim) {
    return (dim + format::q4::group - 1) / format::q4::group * (format::q4::group / 2);
}

// work(t, rows of whole groups, what is ahead of them) for every few values of 4 bits, in fours, counted from as many tokens
// before the first one on: what is missing of a four is 0.
template <class Isa, class Work>
KVLANE_INLINE void for_each_whole_four(const StoredRows rows, const int before, const int dim, const Ahead ahead,
                                       Work &&work) {
    constexpr std::byte zeros{0x88};
    alignas(64) std::byte room[16 * KVL_MAX_HEAD_DIM / 2];
    const bool whole_groups = dim % format::q4::group == 0;
    const int row_bytes = group_bytes(dim);
    const int most = whole_groups ? 4 : static_cast<int>(sizeof room) / row_bytes / 4 * 4;
    for (int t = -(before % 4), n; t < rows.n; t += n) {
        if (whole_groups && t >= 0 && t + 4 <= rows.n) {
            n = (rows.n - t) / 4 * 4;
            work(before + t, StoredRows{rows.first + t * rows.stride_bytes, rows.stride_bytes, n}, ahead.from(t));
            continue;
        }
        n = std::min(most, (rows.n - t + 3) / 4 * 4);
        std::fill_n(room, n * row_bytes, zeros);
        for (int i = std::max(0, t); i < std::min(t + n, rows.n); ++i) {
            const std::byte *row = rows.first + i * rows.stride_bytes;
            ask_for_rows(ahead, {row, rows.stride_bytes, 1}, i, (dim + 1) / 2);
            fill_groups<Isa>(row, dim, room + (i - t) * row_bytes);
        }
        work(before + t, StoredRows{room, row_bytes, n}, Ahead{});
    }
}

// Values of 4 bits as they are stored, by R rows of weights. Four tokens' are unpacked in registers, for as many of their
// vectors at a time as there are accumulators for.
template <class Isa, int R>
struct NibbleSumMicro {
    using Int8s = typename Isa::Int8s;
    using Int32s = typename Isa::Int32s;
    static constexpr int at_once = std::clamp(Isa::nibble_accumulators / (2 * ceil_power_of_two(R)), 1, 4);

    static void run(const SumRows &a) {
        const int row_bytes = group_bytes(a.v_head_dim);
        SumRows part = a;
        for (int left = row_bytes; left > 0; left -= vector_bytes<Isa>) {
            if (left >= vector_bytes<Isa>) {
                add_vector(
                    part, [](const std::byte *row) __attribute__((always_inline)) { return Isa::load_int8s(row); });
            } else {
                add_vector(
                    part, [&](const std::byte *row)
                              __attribute__((always_inline)) { return Isa::load_int8s_partial(row, left); });
            }
            part.p = static_cast<const uint8_t *>(part.p) + a.n_rows * byte_weights<Isa>();
            part.o = static_cast<int32_t *>(part.o) + 8 * o_step<Isa>(a.o_rows);
            part.v.first += vector_bytes<Isa>;
            part.ahead = {};
        }
    }

private:
    template <class Load>
    static KVLANE_INLINE void add_vector(const SumRows &a, Load load) {
        int32_t starts[R];  // what biased values will add, negated
        if constexpr (Isa::value_bias > 0) {
            static_assert(groups_in_vector<Isa> == 1);
            for (int r = 0; r < R; ++r) {
                const uint8_t *p = static_cast<const uint8_t *>(a.p) + r * byte_weights<Isa>() + a.before;
                starts[r] = -Isa::value_bias * std::accumulate(p, p + a.v.n, 0);
            }
        }
        unroll<4 / at_once>([&](auto i) __attribute__((always_inline)) {
            add<at_once * i>(a, i == 0 ? a.ahead : Ahead{}, starts, load);
        });
    }

    template <int First, class Load>
    static KVLANE_INLINE void add(const SumRows &a, const Ahead &ahead, const int32_t (&starts)[R], Load load) {
        const int64_t step = o_step<Isa>(a.o_rows);
        const std::byte *row = a.v.first;
        const auto *p = static_cast<const uint8_t *>(a.p);
        const int first = a.before / 4, end = first + a.v.n / 4;
        Int32s lower_sum[R][at_once], upper_sum[R][at_once];
        const auto for_each_sum = [&](auto body) __attribute__((always_inline)) {
            unroll<at_once>([&](auto i) __attribute__((always_inline)) {
                int32_t *o = static_cast<int32_t *>(a.o) + (First + i) * step;
                unroll<R>([&](auto r) __attribute__((always_inline)) {
                    body(lower_sum[r][i], o + r * Isa::lanes, r);
                    body(upper_sum[r][i], o + 4 * step + r * Isa::lanes, r);
                });
            });
        };
        for_each_sum([&](Int32s & sum, const int32_t *o, auto r) __attribute__((always_inline)) {
            sum = Isa::load_int32s(o);
            if constexpr (Isa::value_bias > 0) {
                sum = Isa::add(sum, Isa::broadcast_int32(starts[r]));
            }
        });
        for (int block = 0; block < end; block += 4) {
            unroll<4>([&](auto j) __attribute__((always_inline)) {
                if (block + j < first || block + j >= end) {
                    return;
                }
                ask_for_rows(ahead, {row, a.v.stride_bytes, 4}, (block + j - first) * 4, group_bytes(a.v_head_dim));
                Int8s x[4];
                unroll<4>([&](auto i) __attribute__((always_inline)) { x[i] = load(row + i * a.v.stride_bytes); });
                row += 4 * a.v.stride_bytes;
                Isa::interleave(x);
                Int8s lower[at_once], upper[at_once];
                unroll<at_once>([&](auto i) __attribute__((always_inline)) {
                    Isa::nibbles_apart(x[First + i], lower[i], upper[i]);
                    lower[i] = Isa::biased(lower[i], Isa::value_bias);
                    upper[i] = Isa::biased(upper[i], Isa::value_bias);
                });
                unroll<R>([&](auto r) __attribute__((always_inline)) {
                    const Int8s weight = Isa::template repeat_fours<j>(p + r * byte_weights<Isa>());
                    unroll<at_once>([&](auto i) __attribute__((always_inline)) {
                        lower_sum[r][i] = Isa::add_value_products(weight, lower[i], lower_sum[r][i]);
                        upper_sum[r][i] = Isa::add_value_products(weight, upper[i], upper_sum[r][i]);
                    });
                });
            });
            p += vector_bytes<Isa>;
        }
        for_each_sum([&](Int32s sum, int32_t * o, auto) __attribute__((always_inline)) { Isa::store_int32s(o, sum); });
    }
};

// Rows of weights that values are unpacked for at a time.
static constexpr int nibble_rows = 4;

template <class Isa>
void nibble_sum(const SumRows &a) {
    for_each_whole_four<Isa>(a.v, a.before, a.v_head_dim, a.ahead, [&](int t, const StoredRows &rows, const Ahead &ahead) {
        SumRows part = a;
        part.p = static_cast<const uint8_t *>(a.p) + t / weighed_together * vector_bytes<Isa>;
        part.before = t % weighed_together;
        part.v = rows;
        part.ahead = ahead;
        for (int r = 0; r < a.n_rows; r += nibble_rows) {
            with_constant<nibble_rows>(
                a.n_rows - r, [&](auto n) __attribute__((always_inline)) { NibbleSumMicro<Isa, n>::run(part); });
            part.p = static_cast<const uint8_t *>(part.p) + nibble_rows * byte_weights<Isa>();
            part.o = static_cast<int32_t *>(part.o) + nibble_rows * Isa::lanes;
            part.ahead = {};
        }
    });
}

}  // namespace kvlane

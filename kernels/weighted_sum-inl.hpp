#pragma once

// Output of a tile: rows x v_head_dim.

#include <numeric>

#include "fours-inl.hpp"
#include "sum_micro-inl.hpp"

namespace kvlane {

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
            part.p = static_cast<const uint8_t *>(part.p) + a.n_rows * byte_weights<Isa>;
            part.o = static_cast<int32_t *>(part.o) + 8 * o_step<Isa>(a.o_rows);
            part.v.first += vector_bytes<Isa>;
            part.ahead = {};
        }
    }

private:
    template <class Load>
    static KVLANE_INLINE void add_vector(const SumRows &a, Load load) {
        unroll<4 / at_once>([&](auto i)
                                __attribute__((always_inline)) { add<at_once * i>(a, i == 0 ? a.ahead : Ahead{}, load); });
    }

    template <int First, class Load>
    static KVLANE_INLINE void add(const SumRows &a, const Ahead &ahead, Load load) {
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
            sum = start(Isa::load_int32s(o), p + r * byte_weights<Isa>, first, end);
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
                    const Int8s weight = Isa::template repeat_fours<j>(p + r * byte_weights<Isa>);
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

    // With what biased values will add, negated.
    static KVLANE_INLINE Int32s start(Int32s sum, const uint8_t *weights, int first, int end) {
        if constexpr (Isa::value_bias > 0) {
            static_assert(groups_in_vector<Isa> == 1);
            return Isa::add(
                sum, Isa::broadcast_int32(-Isa::value_bias * std::accumulate(weights + 4 * first, weights + 4 * end, 0)));
        } else {
            return sum;
        }
    }
};

template <class Isa, class Format, Numbers N>
void weighted_sum(const SumRows &a) {
    if constexpr (N == Numbers::bytes) {
        for_each_whole_four(a.v, a.before, a.v_head_dim, a.ahead, [&](int t, const StoredRows &rows, const Ahead &ahead) {
            SumRows part = a;
            part.p = static_cast<const uint8_t *>(a.p) + t / weighed_together * vector_bytes<Isa>;
            part.before = t % weighed_together;
            part.v = rows;
            part.ahead = ahead;
            for (int r = 0; r < a.n_rows; r += Isa::nibble_rows) {
                with_constant<Isa::nibble_rows>(
                    a.n_rows - r, [&](auto n) __attribute__((always_inline)) { NibbleSumMicro<Isa, n>::run(part); });
                part.p = static_cast<const uint8_t *>(part.p) + Isa::nibble_rows * byte_weights<Isa>;
                part.o = static_cast<int32_t *>(part.o) + Isa::nibble_rows * Isa::lanes;
                part.ahead = {};
            }
        });
    } else if constexpr (Format::group > 0) {
        for_each_unpacked<Isa>(a.v, a.entries, a.v_head_dim, a.ahead, [&](int t, const StoredRows &rows) {
            const auto *p = static_cast<const typename Arithmetic<Isa, format::q8, N>::Number *>(a.p) + t;
            sum_rows<Isa, format::q8, N>({p, a.n_rows, a.v_head_dim, rows, {}, {}, a.o, a.o_rows});
        });
    } else {
        sum_rows<Isa, Format, N>(a);
    }
}

}  // namespace kvlane

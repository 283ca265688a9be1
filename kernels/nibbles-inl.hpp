#pragma once

// Rows of 4 bits. A group of n <= 32 elements has n / 2 bytes, rounded up: the first half of the elements in their lower
// bits, the others in the upper ones, each 8 more than a number from -8 to 7. That number times the group's multiplier, 0 to
// 15, is an integer of 8 bits, as q8 stores them: behind the row's scale stands a byte for each group.

#include <algorithm>
#include <cmath>

#include "quantize-inl.hpp"

namespace kvlane {

static constexpr int most_multiplier = 15;
static constexpr float most_nibble = 7.5f;  // of either sign: rounded, it is 8 below, and cut to 7 above

// body(first element, elements) for each group.
template <class Body>
KVLANE_INLINE void for_each_group(int dim, Body &&body) {
    for (int d = 0; d < dim; d += format::q4::group) {
        body(d, dim - d < format::q4::group ? dim - d : format::q4::group);
    }
}

// The integers of a group that is no whole one.
static void unpack_part(const std::byte *from, int multiplier, int n, std::byte *to) {
    const int half = (n + 1) / 2;
    for (int i = 0; i < n; ++i) {
        const auto both = static_cast<int>(from[i < half ? i : i - half]);
        to[i] = static_cast<std::byte>(((i < half ? both & 15 : both >> 4) - 8) * multiplier);
    }
}

// A row's integers. What is unpacked at once may overhang them.
template <class Isa>
KVLANE_INLINE void unpack_row(const std::byte *row, const std::byte *entry, int dim, std::byte *to) {
    constexpr int size = format::q4::group;
    const std::byte *multipliers = entry + sizeof(float);
    const int n_whole = dim / size;
    for (int group = 0; group < n_whole; group += Isa::nibble_groups) {
        Isa::unpack_groups(row + group * size / 2, multipliers + group, std::min(n_whole - group, Isa::nibble_groups),
                           to + group * size);
    }
    if (const int rest = dim - n_whole * size; rest > 0) {
        unpack_part(row + n_whole * size / 2, static_cast<int>(multipliers[n_whole]), rest, to + n_whole * size);
    }
}

// work(t, rows) for the integers of every few rows, from row t on.
template <class Isa, class Work>
KVLANE_INLINE void for_each_unpacked(const StoredRows rows, const StoredRows entries, const int dim, const Ahead ahead,
                                     Work &&work) {
    alignas(64) std::byte integers[8 * KVL_MAX_HEAD_DIM];
    const int stride = (dim + cache_line_bytes - 1) / cache_line_bytes * cache_line_bytes;
    const int at_once = static_cast<int>(sizeof integers) / stride / 8 * 8;
    const std::byte *row = rows.first, *entry = entries.first;
    for (int t = 0; t < rows.n; t += at_once) {
        const int n = rows.n - t < at_once ? rows.n - t : at_once;
        std::byte *to = integers;
        for (int i = t; i < t + n; ++i, to += stride, row += rows.stride_bytes, entry += entries.stride_bytes) {
            ask_for_rows(ahead, {row, rows.stride_bytes, 1}, i, dim / 2);
            unpack_row<Isa>(row, entry, dim, to);
        }
        work(t, StoredRows{integers, stride, n});
    }
}

// The stored form of one group's n numbers over its step, and room for a group.
template <class Isa>
KVLANE_INLINE void pack_group(const std::byte *x, int n, float step, std::byte *to) {
    std::byte numbers[format::q4::group];
    const auto divisor = Isa::broadcast(step > 0 ? step : std::numeric_limits<float>::infinity());
    const auto zero = Isa::broadcast(0), most = Isa::broadcast(-7);
    const auto number_of = [&](typename Isa::Vec v) __attribute__((always_inline)) {
        return zero - Isa::max(zero - Isa::divide(v, divisor), most);
    };
    int i = 0;
    for (; i + Isa::lanes <= n; i += Isa::lanes) {
        Isa::store(format::q8{}, numbers + i, number_of(Isa::load(format::f32{}, x + i * sizeof(float))));
    }
    if (i < n) {
        Isa::store_partial(format::q8{}, numbers + i,
                           number_of(Isa::load_partial(format::f32{}, x + i * sizeof(float), n - i)), n - i);
    }
    const auto stored = [&](int i) __attribute__((always_inline)) { return static_cast<unsigned>(numbers[i]) + 8; };
    const int half = (n + 1) / 2;
    for (int i = 0; i < half; ++i) {
        const unsigned upper = half + i < n ? stored(half + i) : 8;
        to[i] = static_cast<std::byte>((stored(i) & 15) | (upper & 15) << 4);
    }
}

// Stores a row of f32, and its entry: the scale, and a multiplier a group that is just large enough for the group's largest.
template <class Isa>
KVLANE_INLINE void pack_row(const std::byte *x, int dim, std::byte *row, std::byte *entry) {
    const float scale = scale_for(largest_of<Isa>(x, dim), most_nibble * most_multiplier);
    std::memcpy(entry, &scale, sizeof scale);
    std::byte *multiplier = entry + sizeof scale;
    for_each_group(
        dim, [&](int d, int n) __attribute__((always_inline)) {
            const std::byte *group = x + d * sizeof(float);
            const float needed = scale > 0 ? std::ceil(largest_of<Isa>(group, n) / (most_nibble * scale)) : 0;
            const int m = needed < most_multiplier ? static_cast<int>(needed) : most_multiplier;
            *multiplier++ = static_cast<std::byte>(m);
            pack_group<Isa>(group, n, m * scale, row + d / 2);
        });
}

}  // namespace kvlane

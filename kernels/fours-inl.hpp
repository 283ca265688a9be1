#pragma once

// Keys of 8 bits with four elements of each side by side, as sums of bytes take them: made in L1 once for all rows, a few KB
// at a time, that what was asked for is not displaced. And what others that multiply bytes load, vector by vector.

#include <algorithm>
#include <cstring>

#include "nibbles-inl.hpp"

namespace kvlane {

static constexpr int bytes_of_fours = 8192;

// Bytes of a row that are loaded at once.
template <class Isa>
static constexpr int vector_bytes = 4 * Isa::lanes;

// Groups of 4 bits whose halves these have.
template <class Isa>
static constexpr int groups_in_vector = vector_bytes<Isa> / (format::q4::group / 2);

// Elements whose nibbles they hold, and how many of them a row takes.
template <class Isa>
static constexpr int nibble_block = 2 * vector_bytes<Isa>;

template <class Isa>
constexpr int n_nibble_blocks(int dim) {
    return (dim + nibble_block<Isa> - 1) / nibble_block<Isa>;
}

template <class Isa>
constexpr int whole_vectors(int dim) {
    return (dim + vector_bytes<Isa> - 1) / vector_bytes<Isa> * vector_bytes<Isa>;
}

// body(i, address of row i) for N rows. Addresses are made step by step: g++ would hold those of all rows, for which there
// are not the registers.
template <int N, class Byte, class Body>
KVLANE_INLINE void for_each_address(Byte *first, int64_t stride, Body &&body) {
    unroll<(N + 3) / 4>([&](auto four) __attribute__((always_inline)) {
        unroll<std::min(4, N - 4 * four)>([&](auto i)
                                              __attribute__((always_inline)) { body(4 * four + i, first + i * stride); });
        first += 4 * stride;
        __asm__("" : "+r"(first));
    });
}

// take(d, vectors, elements) for a vector of each of N rows, and the next. Zeros follow the rows.
template <class Isa, int N, class Take>
KVLANE_INLINE void for_each_vector_of_rows(const StoredRows &rows, int dim, Take &&take) {
    typename Isa::Int8s x[N];
    int d = 0;
    for (; d + vector_bytes<Isa> <= dim; d += vector_bytes<Isa>) {
        for_each_address<N>(
            rows.first + d, rows.stride_bytes, [&](int i, const std::byte *row) __attribute__((always_inline)) {
                x[i] = Isa::load_int8s(row);
            });
        take(d, x, std::integral_constant<int, vector_bytes<Isa>>{});
    }
    if (d < dim) {
        for_each_address<N>(
            rows.first + d, rows.stride_bytes, [&](int i, const std::byte *row) __attribute__((always_inline)) {
                x[i] = Isa::load_int8s_partial(row, dim - d);
            });
        take(d, x, dim - d);
    }
}

// Whether fours take as many bytes as the rows that they are made of.
template <class Format>
KVLANE_INLINE bool asks_from_fours(const StoredRows &rows, int dim) {
    return Format::bits == 8 && rows.stride_bytes == dim;
}

template <class Format>
KVLANE_INLINE Ahead ahead_of_fours(const StoredRows &rows, int dim, const Ahead &ahead, int t, const StoredRows &fours) {
    if (!asks_from_fours<Format>(rows, dim)) {
        return {};
    }
    return {ahead.into, fours.n, rows.first + t * rows.stride_bytes + ahead.bytes_from(t) - fours.first, 0};
}

// N rows' integers from row t on: as they are, or in the room, where zeros stand in for those that are missing.
template <class Isa, class Format, int N>
KVLANE_INLINE StoredRows integer_rows(const StoredRows &rows, const StoredRows &entries, int dim, const Ahead &ahead, int t,
                                      std::byte *room) {
    const int n = std::min(N, rows.n - t);
    const std::byte *row = rows.first + t * rows.stride_bytes;
    if (!asks_from_fours<Format>(rows, dim)) {
        ask_for_rows(ahead, {row, rows.stride_bytes, n}, t, dim * Format::bits / 8);
    }
    if (Format::group == 0 && n == N) {
        return {row, rows.stride_bytes, N};
    }
    const int stride = whole_vectors<Isa>(dim);
    std::byte *to = room;
    for (int i = 0; i < n; ++i, row += rows.stride_bytes, to += stride) {
        if constexpr (Format::group > 0) {
            unpack_row<Isa>(row, entries.first + (t + i) * entries.stride_bytes, dim, to);
        } else {
            std::memcpy(to, row, static_cast<size_t>(dim));
        }
    }
    std::memset(to, 0, static_cast<size_t>(N - n) * stride);
    return {room, stride, N};
}

// Of `lanes` keys of 8 bits, fours of one vector after the other.
template <class Isa>
KVLANE_INLINE void key_fours(const StoredRows &keys, int dim, std::byte *fours, int64_t stride) {
    constexpr int lanes = Isa::lanes;
    for_each_vector_of_rows<Isa, lanes>(
        keys, dim, [&](int d, auto &x, auto elements) __attribute__((always_inline)) {
            Isa::transpose_fours(x);
            for_each_address<lanes>(
                fours + d / 4 * stride, stride, [&](int j, std::byte *to) __attribute__((always_inline)) {
                    if (j * 4 < elements) {
                        Isa::store_int8s(to, Isa::biased(x[j], Isa::key_bias));
                    }
                });
        });
}

// The same of 4 bits, in whole groups: they are unpacked when they are fours.
template <class Isa>
KVLANE_INLINE void key_fours_of_nibbles(const StoredRows &keys, const StoredRows &entries, int dim, std::byte *fours,
                                        int64_t stride) {
    constexpr int lanes = Isa::lanes, fours_of_half = format::q4::group / 2 / 4;
    for_each_vector_of_rows<Isa, lanes>(
        keys, dim / 2, [&](int d, auto &x, auto bytes) __attribute__((always_inline)) {
            alignas(64) int32_t multipliers[lanes] = {};
            const std::byte *entry = entries.first + sizeof(float) + d / (format::q4::group / 2);
            for (int i = 0; i < lanes; ++i, entry += entries.stride_bytes) {
                std::memcpy(multipliers + i, entry, lanes / fours_of_half);  // of each key: no more may follow the last
            }
            const auto multiplier = Isa::load_int8s(multipliers);
            Isa::transpose_fours(x);
            unroll<lanes / fours_of_half>([&](auto group) __attribute__((always_inline)) {
                std::byte *to = fours + (d / 2 + 2 * group * fours_of_half) * stride;
                if (group * fours_of_half * 4 < bytes) {
                    unroll<fours_of_half>([&](auto i) __attribute__((always_inline)) {
                        typename Isa::Int8s lower, upper;
                        Isa::template unpack_biased<group>(x[group * fours_of_half + i], multiplier, lower, upper);
                        Isa::store_int8s(to + i * stride, lower);
                        Isa::store_int8s(to + (fours_of_half + i) * stride, upper);
                    });
                }
            });
        });
}

// work(t, rows of fours, tokens in each) for every few keys, from token t on: four elements of each token, then the next.
template <class Isa, class Format, class Work>
KVLANE_INLINE void for_each_key_fours(const StoredRows rows, const StoredRows entries, const int dim, const Ahead ahead,
                                      Work &&work) {
    constexpr int lanes = Isa::lanes;
    alignas(64) std::byte fours[std::max(bytes_of_fours, lanes * KVL_MAX_HEAD_DIM)];
    alignas(64) std::byte room[lanes * KVL_MAX_HEAD_DIM];
    const int most = std::max(1, bytes_of_fours / (lanes * whole_vectors<Isa>(dim))) * lanes;
    for (int t = 0; t < rows.n; t += most) {
        const int n = std::min(most, (rows.n - t + lanes - 1) / lanes * lanes);
        const int64_t stride = int64_t{n} * 4;
        for (int i = 0; i < n; i += lanes) {
            if (Format::group > 0 && dim % format::q4::group == 0 && t + i + lanes <= rows.n) {
                const StoredRows keys{rows.first + (t + i) * rows.stride_bytes, rows.stride_bytes, lanes};
                ask_for_rows(ahead, keys, t + i, dim / 2);
                key_fours_of_nibbles<Isa>(keys,
                                          {entries.first + (t + i) * entries.stride_bytes, entries.stride_bytes, lanes}, dim,
                                          fours + i * 4, stride);
            } else {
                key_fours<Isa>(integer_rows<Isa, Format, lanes>(rows, entries, dim, ahead, t + i, room), dim, fours + i * 4,
                               stride);
            }
        }
        const StoredRows made{fours, stride, (dim + 3) / 4};
        work(t, made, n, ahead_of_fours<Format>(rows, dim, ahead, t, made));
    }
}

}  // namespace kvlane

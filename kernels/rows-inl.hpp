#pragma once

// What the kernels over stored rows share.

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernel_table.hpp"

#define KVLANE_INLINE inline __attribute__((always_inline))

namespace kvlane {

static constexpr int cache_line_bytes = 64;

static constexpr bool are_integers(Numbers n) { return n == Numbers::words || n == Numbers::bytes; }

// Whether a format's rows may be multiplied as bytes.
template <class Isa, class Format>
constexpr bool multiplies_bytes() {
    return Format::is_scaled && Format::bits <= Isa::multiplied_bits;
}

// The least group for which that pays; 0: none. Keys of q8 that one row meets wait for memory, and err less as words; where
// they have to be brought side by side for it, that pays for many rows.
template <class Isa, class Format>
constexpr uint32_t bytes_from_group() {
    constexpr uint32_t few = 2, many = 5;
    return !multiplies_bytes<Isa, Format>() ? 0 : Format::group > 0 ? 1 : Isa::most_queries_as_stored > 0 ? few : many;
}

// What a format's rows are multiplied in where those are asked for: floats have one kind, and not every isa multiplies
// bytes.
template <class Isa, class Format>
constexpr Numbers numbers_of_keys(Numbers n) {
    if (!Format::is_scaled) {
        return Numbers::floats;
    }
    if (n == Numbers::floats) {
        return Numbers::scaled;
    }
    return n == Numbers::bytes && !multiplies_bytes<Isa, Format>() ? Numbers::words : n;
}

// Weights of 8 bits would cost more of q8 than they save.
template <class Isa, class Format>
constexpr Numbers numbers_of_values(Numbers n) {
    return numbers_of_keys<Isa, Format>(n == Numbers::bytes && Format::group == 0 ? Numbers::words : n);
}

// A run of stored rows.
struct StoredRows {
    const std::byte *first;
    int64_t stride_bytes;
    int n;
};

// What is asked for while a run is worked on: rows a constant number of rows further on; where the run ends, in what is
// worked on next.
struct Ahead {
    Prefetch into = Prefetch::none;
    int turn = 0;             // from this row on in what is next; may be negative
    int64_t in_run = 0;       // bytes from a row before the turn to the one to be asked for,
    int64_t behind_turn = 0;  // and from one behind it
    bool in_halves = false;   // a line of the first half of these rows, then one of the second: of a whole run

    KVLANE_INLINE int64_t bytes_from(int t) const { return t < turn ? in_run : behind_turn; }
    // The same of a part that begins at row t, in order.
    KVLANE_INLINE Ahead from(int t) const { return {into, turn - t, in_run, behind_turn, false}; }
};

// Whether rows follow each other with less than a line between them. They are then asked for in the order of memory, which
// memory and the CPU's own prefetchers want, whatever the order of the work: that goes over several rows side by side, or
// over rows part by part.
KVLANE_INLINE bool packed(const StoredRows &rows, int row_bytes) { return rows.stride_bytes < row_bytes + cache_line_bytes; }

// scores[r][t] = q[r] . k[t]
struct DotRows {
    const void *q;  // of the arithmetic's numbers, laid out for its dots
    int n_rows;
    int head_dim;
    StoredRows k;
    StoredRows entries;  // their scales, where integers have multipliers
    Ahead ahead;
    float *scores;          // rows score_stride apart
    const int32_t *starts;  // of each row's sums, where keys are multiplied as bytes
};

// o[r] += sum over t of p[r][t] * v[t]
struct SumRows {
    const void *p;  // of the arithmetic's numbers, rows its weight_stride apart; where bytes are, of the tile
    int n_rows;
    int v_head_dim;
    StoredRows v;
    StoredRows entries;
    Ahead ahead;
    void *o;                          // of the first row, the arithmetic's totals
    int o_rows;                       // that o has
    const int32_t *starts = nullptr;  // of each row's sums, where keys are multiplied as fours of bytes
    int before = 0;                   // tokens of the tile before the first row's, where bytes are
};

// A group of tokens at a tile's end is scored whole: room for what overhangs.
static constexpr int score_stride = tile_tokens + 16;

// Floats from one vector of a row of a partial's o to its next.
template <class Isa>
KVLANE_INLINE int64_t o_step(int rows) {
    return int64_t{rows} * Isa::lanes;
}

static constexpr int ceil_power_of_two(int n) { return n <= 1 ? 1 : 2 * ceil_power_of_two((n + 1) / 2); }

// Tokens that share a vector of keys. Only sums of integers may depend on the number of rows: they are exact. Many rows make
// up for the shuffles.
template <class Isa>
constexpr int tokens_abreast(Numbers numbers, int n_rows) {
    return numbers == Numbers::words && n_rows > 4 ? Isa::max_tokens_abreast : 1;
}

// Tokens that are scored at once: two vectors where tokens share them, else as many as one tree of sums takes, but half for
// a single row, whose turns would be too long.
template <class Isa>
constexpr int dot_tokens(Numbers numbers, int n_rows) {
    if (numbers == Numbers::bytes) {
        return n_rows <= Isa::most_queries_as_stored ? Isa::dot_accumulators / ceil_power_of_two(n_rows) : Isa::lanes;
    }
    const int abreast = tokens_abreast<Isa>(numbers, n_rows);
    const int rows = n_rows > 1 ? ceil_power_of_two(n_rows) : Isa::dot_accumulators > 8 ? 2 : 1;
    return abreast > 1 ? 2 * abreast : Isa::dot_accumulators / rows;
}

// body(0), …, body(N - 1), each with its number as a constant, so that arrays it indexes live in registers.
template <int N, class Body>
KVLANE_INLINE void unroll(Body &&body) {
    [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
        (body(std::integral_constant<int, I>{}), ...);
    }
    (std::make_integer_sequence<int, N>{});
}

// body(as a constant) for n, where it is at most N.
template <int N, class Body>
KVLANE_INLINE void with_constant(int n, Body &&body) {
    if constexpr (N > 1) {
        if (n < N) {
            return with_constant<N - 1>(n, body);
        }
    }
    body(std::integral_constant<int, N>{});
}

// body(rows as a constant, the first of them) for as many of n rows at a time as a micro-kernel has.
template <class Isa, class Body>
KVLANE_INLINE void for_each_kernel(int n_rows, Body &&body) {
    for (int r = 0; r < n_rows; r += Isa::max_rows) {
        with_constant<Isa::max_rows>(
            n_rows - r, [&](auto rows) __attribute__((always_inline)) { body(rows, r); });
    }
}

// Asks for Bytes bytes.
template <int Bytes>
KVLANE_INLINE void prefetch(const std::byte *p, Prefetch into) {
    constexpr int lines = (Bytes + cache_line_bytes - 1) / cache_line_bytes;
    if (into == Prefetch::l1) {
        unroll<lines>([&](auto i) __attribute__((always_inline)) { __builtin_prefetch(p + i * cache_line_bytes, 0, 3); });
    } else if (into == Prefetch::l2) {
        unroll<lines>([&](auto i) __attribute__((always_inline)) { __builtin_prefetch(p + i * cache_line_bytes, 0, 2); });
    }
}

// Asks for what is ahead of rows that begin with row t of a run.
KVLANE_INLINE void ask_for_rows(const Ahead &ahead, const StoredRows &rows, int t, int row_bytes) {
    if (ahead.into == Prefetch::none) {
        return;
    }
    const std::byte *asked = rows.first + ahead.bytes_from(t);
    const bool is_packed = packed(rows, row_bytes);
    const int64_t bytes = is_packed ? rows.n * rows.stride_bytes : row_bytes;
    for (int i = 0; i < (is_packed ? 1 : rows.n); ++i, asked += rows.stride_bytes) {
        for (int64_t line = 0; line < bytes; line += cache_line_bytes) {
            prefetch<1>(asked + line, ahead.into);
        }
    }
}

}  // namespace kvlane

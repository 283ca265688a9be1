#pragma once

// What stored rows are multiplied in: f32; or, where they are stored as integers, integers, whose sums are exact. A kernel's
// body is the same for both.

#include <cstring>

#include "rows-inl.hpp"

namespace kvlane {

template <class Isa, class Format, bool = Format::is_scaled>
struct Arithmetic {
    using Number = float;  // of queries and weights
    using Operand = typename Isa::Vec;
    using Weight = Operand;
    using Sum = typename Isa::Vec;
    using Total = float;                      // a Sum's lanes in memory
    static constexpr int width = Isa::lanes;  // elements of a row that an operand of a dot holds
    static constexpr int tokens = 1;          // that an operand of a weighted sum holds side by side

    static Sum zero() { return Isa::broadcast(0); }
    static Operand query(const float *q) { return Isa::in_register(Isa::load(q)); }
    static Operand key(const std::byte *k) { return Isa::load(Format{}, k); }
    static Operand key_part(const std::byte *k, int n) { return Isa::load_partial(Format{}, k, n); }
    static Weight weight(const float *p) { return Isa::broadcast(*p); }
    static Operand value(const std::byte *v, int64_t) { return Isa::load(Format{}, v); }
    static Operand value_part(const std::byte *v, int64_t, int n) { return Isa::load_partial(Format{}, v, n); }
    static Sum multiply_add(Operand a, Operand b, Sum c) { return Isa::fma(a, b, c); }
    static Sum load(const float *o) { return Isa::load(o); }
    static void store(float *o, Sum s) { Isa::store(o, s); }
};

// 16 bits by 16 bits into 32, pairs of products summed at once. Exact: a product of 15 bits, a query's or a weight's, by the
// 7 of a stored integer leaves room for 512 of them, and queries of more elements have 14 bits; no tile has more tokens
// than 64.
template <class Isa, class Format>
struct Arithmetic<Isa, Format, true> {
    using Number = int16_t;
    using Operand = typename Isa::Int16s;
    using Weight = typename Isa::Int16Pair;
    using Sum = typename Isa::Int32s;
    using Total = int32_t;
    static constexpr int width = 2 * Isa::lanes;
    static constexpr int tokens = 2;

    static Sum zero() { return Isa::zero_int32s(); }
    static Operand query(const int16_t *q) { return Isa::load_int16s(q); }
    static Operand key(const std::byte *k) { return Isa::widen(k); }
    static Operand key_part(const std::byte *k, int n) {
        std::byte part[width] = {};
        std::memcpy(part, k, static_cast<size_t>(n));
        return Isa::widen(part);
    }
    static Weight weight(const int16_t *p) { return Isa::broadcast_pair(p); }
    static Weight weight_alone(const int16_t *p) {
        const int16_t pair[2] = {*p, 0};
        return Isa::broadcast_pair(pair);
    }
    // Of the row at v and of the one `next` bytes further on.
    static Operand value(const std::byte *v, int64_t next) { return Isa::widen_pairs(v, v + next); }
    static Operand value_part(const std::byte *v, int64_t next, int n) {
        std::byte part[2][Isa::lanes] = {};
        std::memcpy(part[0], v, static_cast<size_t>(n));
        std::memcpy(part[1], v + next, static_cast<size_t>(n));
        return Isa::widen_pairs(part[0], part[1]);
    }
    template <class A>
    static Sum multiply_add(A a, Operand b, Sum c) {
        return Isa::multiply_add(a, b, c);
    }
    static Sum load(const int32_t *o) { return Isa::load_int32s(o); }
    static void store(int32_t *o, Sum s) { Isa::store_int32s(o, s); }
};

// Keys as dots take them from memory: `width` elements of each of the tokens that share a vector, in as many parts. A part
// becomes an operand when it is multiplied.
template <class Isa, class Format, int Abreast>
struct Keys {
    using A = Arithmetic<Isa, Format>;
    using Part = typename A::Operand;
    static void load(const std::byte *const (&rows)[1], Part (&part)[1]) { part[0] = A::key(rows[0]); }
    static void load_partial(const std::byte *const (&rows)[1], int n, Part (&part)[1]) {
        part[0] = A::key_part(rows[0], n);
    }
    static Part operand(Part part) { return part; }
};

template <class Isa, class Format>
struct Keys<Isa, Format, 4> {
    using Part = typename Isa::Bytes;
    static void load(const std::byte *const (&rows)[4], Part (&part)[4]) {
        Isa::transpose_quarters({Isa::row(rows[0]), Isa::row(rows[1]), Isa::row(rows[2]), Isa::row(rows[3])}, part);
    }
    static void load_partial(const std::byte *const (&rows)[4], int n, Part (&part)[4]) {
        Isa::transpose_quarters({Isa::row_partial(rows[0], n), Isa::row_partial(rows[1], n), Isa::row_partial(rows[2], n),
                                 Isa::row_partial(rows[3], n)},
                                part);
    }
    static typename Isa::Int16s operand(Part part) { return Isa::widen(part); }
};

}  // namespace kvlane

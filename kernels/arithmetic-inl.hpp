#pragma once

// What stored rows are multiplied in: f32; or, where they are stored as integers, integers of 16 bits or 8 too, whose sums
// are exact. A kernel's body is the same for all.

#include <cstring>
#include <type_traits>

#include "rows-inl.hpp"

namespace kvlane {

template <class Isa, class Format, Numbers = Numbers::floats>
struct Arithmetic {
    using Number = float;  // of queries and weights
    using Operand = typename Isa::Vec;
    using Weight = Operand;
    using Sum = typename Isa::Vec;
    using Total = float;                                // a Sum's lanes in memory
    static constexpr int width = Isa::lanes;            // elements of a row that an operand of a dot holds
    static constexpr int tokens = 1;                    // that an operand of a weighted sum holds side by side
    static constexpr int weights = 1;                   // of each of them,
    static constexpr int weight_stride = score_stride;  // from row to row
    static constexpr bool sums_scores = false;
    static constexpr bool has_parts = true;  // rows may end within a vector

    static Sum start(const int32_t *, int) { return Isa::broadcast(0); }
    static Operand query(const float *q) { return Isa::in_register(Isa::load(q)); }
    static Operand key(const std::byte *k) { return Isa::load(Format{}, k); }
    static Operand key_part(const std::byte *k, int n) { return Isa::load_partial(Format{}, k, n); }
    static Weight weight(const float *p) { return Isa::broadcast(*p); }
    static Operand value(const std::byte *v, int64_t) { return Isa::load(Format{}, v); }
    static Operand value_part(const std::byte *v, int64_t, int n) { return Isa::load_partial(Format{}, v, n); }
    static Sum multiply_add(Operand a, Operand b, Sum c) { return Isa::fma(a, b, c); }
    static Sum start(const SumRows &, const float *o, int) { return Isa::load(o); }
    static void store(float *o, Sum s) { Isa::store(o, s); }
};

// 16 bits by 16 bits into 32, pairs of products summed at once. Exact: a product of 15 bits, a query's or a weight's, by the
// 7 of a stored integer leaves room for 512 of them, and queries of more elements have 14 bits; no tile has more tokens
// than 64.
template <class Isa, class Format>
struct Arithmetic<Isa, Format, Numbers::words> {
    using Number = int16_t;
    using Operand = typename Isa::Int16s;
    using Weight = typename Isa::Int16Pair;
    using Sum = typename Isa::Int32s;
    using Total = int32_t;
    static constexpr int width = 2 * Isa::lanes;
    static constexpr int tokens = 2;
    static constexpr int weights = 1;
    static constexpr int weight_stride = score_stride;
    static constexpr bool sums_scores = false;
    static constexpr bool has_parts = true;

    static Sum start(const int32_t *, int) { return Isa::zero_int32s(); }
    static Operand query(const int16_t *q) { return Isa::load_int16s(q); }
    static Operand key(const std::byte *k) { return Isa::widen(k); }
    static Operand key_part(const std::byte *k, int n) {
        std::byte part[width] = {};
        std::memcpy(part, k, static_cast<size_t>(n));
        return Isa::widen(part);
    }
    static auto row(const std::byte *k) { return Isa::row(k); }
    static auto row_part(const std::byte *k, int n) { return Isa::row_partial(k, n); }
    template <class Part>
    static Operand operand(Part part) {
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
    static Sum start(const SumRows &, const int32_t *o, int) { return Isa::load_int32s(o); }
    static void store(int32_t *o, Sum s) { Isa::store_int32s(o, s); }
};

// 8 bits by 8 into 32, four products summed at once. Where the instruction takes unsigned numbers, keys are taken as
// key_bias more than they are, and a row's sums begin with what that adds, negated.
template <class Isa, class Format>
struct Arithmetic<Isa, Format, Numbers::bytes> {
    using Number = int8_t;
    using Operand = typename Isa::Int8s;
    using Sum = typename Isa::Int32s;
    static constexpr int width = 4 * Isa::lanes;

    static Sum start(const int32_t *starts, int row) { return Isa::int32_alone(starts[row]); }
    static Operand query(const int8_t *q) { return Isa::load_int8s(q); }
    static Operand key(const std::byte *k) { return Isa::biased(Isa::load_int8s(k), Isa::key_bias); }
    static Operand key_part(const std::byte *k, int n) { return Isa::biased(Isa::load_int8s_partial(k, n), Isa::key_bias); }
    static Sum multiply_add(Operand query, Operand key, Sum c) { return Isa::add_key_products(key, query, c); }
};

// The same of keys whose fours of elements stand side by side, with those of the next keys beside them. Scores are then sums
// over elements, as outputs are over tokens.
struct KeyFours {
    static constexpr int bytes = 4;
};

template <class Isa>
struct Arithmetic<Isa, KeyFours, Numbers::bytes> {
    using Number = int8_t;
    using Operand = typename Isa::Int8s;
    using Weight = Operand;
    using Sum = typename Isa::Int32s;
    using Total = float;
    static constexpr int tokens = 1;
    static constexpr int weights = 4;
    static constexpr int weight_stride = KVL_MAX_HEAD_DIM;
    static constexpr bool sums_scores = true;
    static constexpr bool has_parts = false;
    static Operand value(const std::byte *v, int64_t) { return Isa::load_int8s(v); }
    static Weight weight(const void *p) { return Isa::broadcast_four(p); }
    static Sum multiply_add(Operand query, Operand key, Sum c) { return Isa::add_key_products(key, query, c); }
    static Sum start(const SumRows &a, const float *, int row) { return Isa::broadcast_int32(a.starts[row]); }
    static void store(float *score, Sum s) { Isa::store(score, Isa::to_float(s)); }
};

// Of queries, whatever the keys' format.
template <class Isa, Numbers N>
using KeyArithmetic = Arithmetic<
    Isa, std::conditional_t<!are_integers(N), format::f32, std::conditional_t<N == Numbers::words, format::q8, KeyFours>>,
    N>;

// Keys as dots take them from memory: `width` elements of each of the tokens that share a vector, in as many parts. A part
// becomes an operand when it is multiplied.
template <class Isa, class A, int Abreast>
struct Keys {
    using Part = typename A::Operand;
    static void load(const std::byte *const (&rows)[1], Part (&part)[1]) { part[0] = A::key(rows[0]); }
    static void load_partial(const std::byte *const (&rows)[1], int n, Part (&part)[1]) {
        part[0] = A::key_part(rows[0], n);
    }
    static Part operand(Part part) { return part; }
};

template <class Isa, class A>
struct Keys<Isa, A, 4> {
    using Part = decltype(A::row(nullptr));
    static void load(const std::byte *const (&rows)[4], Part (&part)[4]) {
        Isa::transpose_quarters({A::row(rows[0]), A::row(rows[1]), A::row(rows[2]), A::row(rows[3])}, part);
    }
    static void load_partial(const std::byte *const (&rows)[4], int n, Part (&part)[4]) {
        Isa::transpose_quarters(
            {A::row_part(rows[0], n), A::row_part(rows[1], n), A::row_part(rows[2], n), A::row_part(rows[3], n)}, part);
    }
    static typename A::Operand operand(Part part) { return A::operand(part); }
};

}  // namespace kvlane

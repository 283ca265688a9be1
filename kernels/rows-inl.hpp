#pragma once

// Rows in a caller's memory, in f32, f16 or bf16.

#include "kernel_table.hpp"
#include "unroll.hpp"

namespace kvlane {

// Calls body(Format{}) for a row's format.
template <class Body>
KVLANE_INLINE void with_row_format(kvl_format format, Body &&body) {
    if (format == format::index_f32) {
        body(format::f32{});
    } else if (format == format::index_f16) {
        body(format::f16{});
    } else {
        body(format::bf16{});
    }
}

// Converts a row to f32, exactly. `to` has room for whole vectors.
template <class Isa>
static void load_row(kvl_format format, const std::byte *from, int dim, float *to) {
    with_row_format(format, [=](auto stored) {
        using Format = decltype(stored);
        int d = 0;
        for (; d + Isa::lanes <= dim; d += Isa::lanes) {
            Isa::store(to + d, Isa::load(Format{}, from + d * Format::bytes));
        }
        if (d < dim) {
            Isa::store(to + d, Isa::load_partial(Format{}, from + d * Format::bytes, dim - d));
        }
    });
}

// Rounds a row of f32 to its format; f32 may stay where it is.
template <class Isa>
static void store_row(kvl_format format, const float *from, int dim, std::byte *to) {
    with_row_format(format, [=](auto stored) {
        using Format = decltype(stored);
        int d = 0;
        for (; d + Isa::lanes <= dim; d += Isa::lanes) {
            Isa::store(Format{}, to + d * Format::bytes, Isa::load(from + d));
        }
        if (d < dim) {
            const auto *rest = reinterpret_cast<const std::byte *>(from + d);
            Isa::store_partial(Format{}, to + d * Format::bytes, Isa::load_partial(format::f32{}, rest, dim - d), dim - d);
        }
    });
}

static constexpr bool are_integers(ComputeType n) { return n == ComputeType::i16 || n == ComputeType::i8; }

}  // namespace kvlane

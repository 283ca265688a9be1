#pragma once

// f32 rows to a format's stored rows, rounding to the nearest value with ties to even, and back.

#include "rows-inl.hpp"

namespace kvlane {

template <class Isa, class From, class To>
KVLANE_INLINE void convert_row(const std::byte *from, std::byte *to, int dim) {
    constexpr int lanes = Isa::lanes;
    int d = 0;
    for (; d + lanes <= dim; d += lanes) {
        Isa::store(To{}, to + d * To::bytes, Isa::load(From{}, from + d * From::bytes));
    }
    if (d < dim) {
        Isa::store_partial(To{}, to + d * To::bytes, Isa::load_partial(From{}, from + d * From::bytes, dim - d), dim - d);
    }
}

template <class Isa, class Format>
void encode(const CodecRows &rows) {
    const auto *from = reinterpret_cast<const std::byte *>(rows.f32);
    for (int64_t i = 0; i < rows.n_rows; ++i) {
        convert_row<Isa, format::f32, Format>(from + i * rows.f32_stride_bytes, rows.stored + i * rows.stored_stride_bytes,
                                              static_cast<int>(rows.dim));
    }
}

template <class Isa, class Format>
void decode(const CodecRows &rows) {
    auto *to = reinterpret_cast<std::byte *>(rows.f32);
    for (int64_t i = 0; i < rows.n_rows; ++i) {
        convert_row<Isa, Format, format::f32>(rows.stored + i * rows.stored_stride_bytes, to + i * rows.f32_stride_bytes,
                                              static_cast<int>(rows.dim));
    }
}

}  // namespace kvlane

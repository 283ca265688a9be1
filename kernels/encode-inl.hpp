#pragma once

// f32 rows to a format's stored rows, rounding to the nearest value with ties to even, and back.

#include <cstring>

#include "hadamard-inl.hpp"
#include "nibbles-inl.hpp"

namespace kvlane {

// A row to or from integers, or between floats, which have no scale.
template <class Isa, class From, class To>
KVLANE_INLINE void convert_row(const std::byte *from, std::byte *to, int dim, float scale = 1) {
    constexpr int lanes = Isa::lanes;
    const auto scaled = [&](typename Isa::Vec x) __attribute__((always_inline)) {
        if constexpr (From::is_scaled) {
            return x * Isa::broadcast(scale);
        } else if constexpr (To::is_scaled) {
            return Isa::divide(x, Isa::broadcast(scale));
        } else {
            return x;
        }
    };
    int d = 0;
    for (; d + lanes <= dim; d += lanes) {
        Isa::store(To{}, to + d * To::bytes, scaled(Isa::load(From{}, from + d * From::bytes)));
    }
    if (d < dim) {
        Isa::store_partial(To{}, to + d * To::bytes, scaled(Isa::load_partial(From{}, from + d * From::bytes, dim - d)),
                           dim - d);
    }
}

template <class Isa, class Format>
void encode(const CodecRows &rows) {
    alignas(64) float rotated[KVL_MAX_HEAD_DIM];
    const auto dim = static_cast<int>(rows.dim);
    for (int64_t i = 0; i < rows.n_rows; ++i) {
        const auto *from = reinterpret_cast<const std::byte *>(rows.f32) + i * rows.f32_stride_bytes;
        if (rows.is_rotated) {
            std::memcpy(rotated, from, dim * sizeof(float));
            rotate_row<Isa>(rotated, dim);
            from = reinterpret_cast<const std::byte *>(rotated);
        }
        std::byte *stored = rows.stored + i * rows.stored_stride_bytes;
        std::byte *entry = rows.entries + i * rows.entry_stride_bytes;
        if constexpr (Format::group > 0) {
            pack_row<Isa>(from, dim, stored, entry);
        } else if constexpr (Format::is_scaled) {
            const float scale = scale_for(largest_of<Isa>(from, dim), most_int8);
            std::memcpy(entry, &scale, sizeof scale);
            convert_row<Isa, format::f32, Format>(from, stored, dim,
                                                  scale == 0 ? std::numeric_limits<float>::infinity() : scale);
        } else {
            convert_row<Isa, format::f32, Format>(from, stored, dim);
        }
    }
}

template <class Isa, class Format>
void decode(const CodecRows &rows) {
    auto *to = reinterpret_cast<std::byte *>(rows.f32);
    const auto dim = static_cast<int>(rows.dim);
    for (int64_t i = 0; i < rows.n_rows; ++i, to += rows.f32_stride_bytes) {
        const std::byte *stored = rows.stored + i * rows.stored_stride_bytes;
        const std::byte *entry = rows.entries + i * rows.entry_stride_bytes;
        float scale = 1;
        if constexpr (Format::is_scaled) {
            std::memcpy(&scale, entry, sizeof scale);
        }
        if constexpr (Format::group > 0) {
            std::byte integers[KVL_MAX_HEAD_DIM];
            unpack_row<Isa>(stored, entry, dim, integers);
            convert_row<Isa, format::q8, format::f32>(integers, to, dim, scale);
        } else {
            convert_row<Isa, Format, format::f32>(stored, to, dim, scale);
        }
        if (rows.is_rotated) {
            rotate_row<Isa>(reinterpret_cast<float *>(to), dim);
        }
    }
}

}  // namespace kvlane

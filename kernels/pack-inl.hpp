#pragma once

// Packs rows into panels of any format, and unpacks them to f32.

#include <algorithm>
#include <cstring>
#include <functional>

#include "hadamard-inl.hpp"
#include "q4-inl.hpp"
#include "tile.hpp"

namespace kvlane {

// Stores one granule for each lane's column, to[lane][granule], from consecutive elements of k. For q4, codes from 0 to 15.
template <class Isa, class Format>
KVLANE_INLINE void store_granules(std::byte *to, const typename Isa::Vec *elements) {
    constexpr int granule = panel::granule<Format>, lanes = Isa::lanes;
    if constexpr (granule == 1) {
        Isa::store(Format{}, to, elements[0]);
    } else {
        constexpr int parts = Format::bits == 16 ? 2 : 4, bits = 32 / parts;
        using Part = std::conditional_t<parts == 2, uint16_t, uint8_t>;
        using Stored = std::conditional_t<parts == 2, format::bf16, format::q8>;
        Part stored[parts][lanes];
        unroll<parts>([&](auto i) __attribute__((always_inline)) {
            auto part = elements[i];
            if constexpr (granule == 2 * parts) {  // code + 16 * another code, stored as signed: minus 128
                part = Isa::fma(elements[i + parts], Isa::broadcast(16), part);
                part = part + Isa::broadcast(-128);
            }
            Isa::store(Stored{}, reinterpret_cast<std::byte *>(stored[i]), part);
        });
        uint32_t granules[lanes];
        for (int lane = 0; lane < lanes; ++lane) {
            granules[lane] = granule == 2 * parts ? 0x80808080u : 0;
            unroll<parts>([&](auto i)
                              __attribute__((always_inline)) { granules[lane] ^= uint32_t{stored[i][lane]} << bits * i; });
        }
        std::memcpy(to, granules, sizeof granules);
    }
}

// Rows ready to be stored: rotated and quantized, but still f32.
template <class Isa>
struct PreparedRows {
    const std::byte *first;
    int64_t stride_bytes;
    int dim;

    // Elements [d, d + lanes) of a row, with zeros past its end.
    KVLANE_INLINE typename Isa::Vec load(int row, int d) const {
        const std::byte *at = first + row * stride_bytes + d * format::f32::bytes;
        return d + Isa::lanes <= dim ? Isa::load(format::f32{}, at)
               : d < dim             ? Isa::load_partial(format::f32{}, at, dim - d)
                                     : Isa::broadcast(0);
    }
};

// Stores one token's elements to their places in the granules.
template <class Isa, class Format, bool Keys>
static void scatter_row(const PreparedRows<Isa> &rows, int row, int token, const PackRows &p) {
    constexpr int element_bytes = Format::bits == 4 ? 1 : Format::bytes;
    using Stored = std::conditional_t<Format::bits == 4, format::q8, Format>;
    alignas(64) std::byte stored[(KVL_MAX_HEAD_DIM + 16) * element_bytes];
    for (int d = 0; d < rows.dim; d += Isa::lanes) {
        Isa::store(Stored{}, stored + d * element_bytes, rows.load(row, d));
    }
    for (int d = 0; d < rows.dim; ++d) {
        const int k = Keys ? d : token, column = (Keys ? token : d) % panel::columns;
        std::byte *const to =
            p.panels + (Keys ? token : d) / panel::columns * p.panel_bytes + panel::offset(Format::index, k, column);
        if constexpr (Format::bits == 4) {
            const bool upper = k % 8 >= 4;
            *to = (*to & std::byte(upper ? 0x0f : 0xf0)) | stored[d] << (upper ? 4 : 0);
        } else {
            std::memcpy(to, stored + d * element_bytes, element_bytes);
        }
    }
}

// Packs the keys of consecutive tokens, one per lane, into a vector's columns.
template <class Isa, class Format>
static void pack_columns(const PreparedRows<Isa> &rows, int row, int token, const PackRows &p) {
    constexpr int lanes = Isa::lanes, granule = panel::granule<Format>, at_once = std::max(lanes, granule);
    constexpr int line_bytes = panel::columns * granule * Format::bits / 8;
    std::byte *to =
        p.panels + token / panel::columns * p.panel_bytes + panel::offset(Format::index, 0, token % panel::columns);
    for (int d = 0; d < rows.dim; d += at_once) {
        typename Isa::Vec elements[at_once];
        for (int i = 0; i < at_once; i += lanes) {
            typename Isa::Vec block[lanes];
            unroll<lanes>([&](auto lane) __attribute__((always_inline)) { block[lane] = rows.load(row + lane, d + i); });
            Isa::transpose(block);
            unroll<lanes>([&](auto lane) __attribute__((always_inline)) { elements[i + lane] = block[lane]; });
        }
        for (int e = 0; e < at_once && d + e < rows.dim; e += granule, to += line_bytes) {
            store_granules<Isa, Format>(to, elements + e);
        }
    }
}

// Packs the values of a granule's tokens, panel by panel.
template <class Isa, class Format>
static void pack_tokens(const PreparedRows<Isa> &rows, int row, int token, const PackRows &p) {
    constexpr int granule = panel::granule<Format>, vectors = panel::columns / Isa::lanes;
    constexpr int vector_bytes = Isa::lanes * granule * Format::bits / 8;
    std::byte *to = p.panels + panel::offset(Format::index, token, 0);
    for (int d = 0; d < rows.dim; d += panel::columns, to += p.panel_bytes) {
        unroll<vectors>([&](auto i) __attribute__((always_inline)) {
            typename Isa::Vec elements[granule];
            unroll<granule>([&](auto e)
                                __attribute__((always_inline)) { elements[e] = rows.load(row + e, d + i * Isa::lanes); });
            store_granules<Isa, Format>(to + i * vector_bytes, elements);
        });
    }
}

// Packs rows [0, n) in whole blocks of columns or tokens where possible, else row by row.
template <class Isa, class Format, bool Keys>
static void pack_prepared(const PreparedRows<Isa> &rows, int n, int token, const PackRows &p) {
    constexpr int block = Keys ? Isa::lanes : panel::granule<Format>;
    for (int row = 0, step; row < n; row += step, token += step) {
        const bool is_whole = token % block == 0 && n - row >= block;
        step = is_whole ? block : 1;
        if (!is_whole) {
            scatter_row<Isa, Format, Keys>(rows, row, token, p);
        } else if constexpr (Keys) {
            pack_columns<Isa, Format>(rows, row, token, p);
        } else {
            pack_tokens<Isa, Format>(rows, row, token, p);
        }
    }
}

// Rotates and quantizes a row in place, and stores the token's scales.
template <class Isa, class Format>
static void prepare_row(float *x, int token, const PackRows &p) {
    if (p.is_rotated) {
        rotate_row<Isa>(x, p.dim);
    }
    if constexpr (Format::is_scaled) {
        float scale;
        auto *const bytes = reinterpret_cast<std::byte *>(x);
        if constexpr (Format::group > 0) {
            int8_t multipliers[KVL_MAX_HEAD_DIM / Format::group];
            scale = q4::quantize_row<Isa>(x, p.dim, multipliers);
            for (int i = 0; i * Format::group < p.dim; ++i) {
                p.scales[panel::multiplier_offset(i, token)] = static_cast<std::byte>(multipliers[i]);
            }
        } else {
            scale = scale_for(largest_of<Isa>(bytes, p.dim), most_int8);
            const auto factor = Isa::broadcast(scale == 0 ? 0 : 1 / scale);
            for (int d = 0; d < p.dim; d += Isa::lanes) {
                Isa::store(x + d, Isa::load(x + d) * factor);
            }
        }
        std::memcpy(p.scales + panel::scale_offset(token), &scale, sizeof scale);
    }
}

// Packs rows into panels of any format.
template <class Isa, class Format, bool Keys>
void pack(const PackRows &p) {
    if (!Format::is_scaled && !p.is_rotated && !p.offset && p.format == format::index_f32) {
        return pack_prepared<Isa, Format, Keys>({p.rows, p.stride_bytes, p.dim}, p.n, p.first, p);
    }
    constexpr int at_once = panel::columns;
    alignas(64) float rows[at_once * KVL_MAX_HEAD_DIM];
    const int64_t padded =
        panel::round_up(p.dim, panel::columns);  // contiguous: at a stride of pages they share a cache set
    for (int first = 0; first < p.n; first += at_once) {
        const int n = std::min(at_once, p.n - first);
        for (int row = 0; row < n; ++row) {
            float *const x = rows + row * padded;
            const std::byte *const from = p.rows + (first + row) * p.stride_bytes;
            prefetch_lines(from + p.head_stride_bytes, format::row_bytes(p.format, static_cast<uint32_t>(p.dim)));
            load_row<Isa>(p.format, from, p.dim, x);
            if (p.offset) {
                std::transform(x, x + p.dim, p.offset, x, std::minus<>());
            }
            std::fill(x + p.dim, x + padded, 0.0f);
            prepare_row<Isa, Format>(x, p.first + first + row, p);
        }
        pack_prepared<Isa, Format, Keys>(
            {reinterpret_cast<const std::byte *>(rows), padded * static_cast<int64_t>(sizeof(float)), p.dim}, n,
            p.first + first, p);
    }
}

// Unpacks the tokens of PackRows from panels of Format to f32 rows, rotated back.
template <class Isa, class Format, bool Keys>
void unpack(const PackRows &p) {
    for (int row = 0; row < p.n; ++row) {
        const int token = p.first + row;
        float *const x = reinterpret_cast<float *>(const_cast<std::byte *>(p.rows) + row * p.stride_bytes);
        for (int d = 0; d < p.dim; ++d) {
            const int k = Keys ? d : token, other = Keys ? token : d;
            const std::byte *const from =
                p.panels + other / panel::columns * p.panel_bytes + panel::offset(Format::index, k, other % panel::columns);
            if constexpr (Format::group > 0) {
                const auto code = std::to_integer<int>(*from) >> (k % 8 < 4 ? 0 : 4) & 15;
                const std::byte multiplier = p.scales[panel::multiplier_offset(d / Format::group, token)];
                const int product = q4::levels[code] * std::to_integer<int8_t>(multiplier);
                x[d] = static_cast<float>(product) / q4::one;
            } else if constexpr (Format::is_scaled) {
                x[d] = static_cast<float>(std::to_integer<int8_t>(*from));
            } else {
                std::byte lanes[Isa::lanes * Format::bytes] = {};
                std::memcpy(lanes, from, Format::bytes);
                float values[Isa::lanes];
                Isa::store(values, Isa::load(Format{}, lanes));
                x[d] = values[0];
            }
        }
        if constexpr (Format::is_scaled) {
            float scale;
            std::memcpy(&scale, p.scales + panel::scale_offset(token), sizeof scale);
            std::transform(x, x + p.dim, x, [&](float v) { return v * scale; });
        }
        if (p.is_rotated) {
            rotate_row<Isa>(x, p.dim);
        }
        if (p.offset) {
            std::transform(x, x + p.dim, p.offset, x, std::plus<>());
        }
    }
}

}  // namespace kvlane

#pragma once

// A caller's rows to panels of their own format: bits are moved, and none of them changes.

#include <algorithm>
#include <cstring>

#include "formats/panel.hpp"
#include "rows-inl.hpp"

namespace kvlane {

// Words of 32 bits of some columns, to their places in a panel's lines: a granule each, or two elements of f16.
template <class Isa, class Format>
KVLANE_INLINE void store_words(std::byte *to, typename Isa::Vec words) {
    if constexpr (panel::granule<Format> * Format::bytes == sizeof(uint32_t)) {
        Isa::store(format::f32{}, to, words);
    } else {
        uint32_t both[Isa::lanes];
        Isa::store(format::f32{}, reinterpret_cast<std::byte *>(both), words);
        uint16_t lower[Isa::lanes], upper[Isa::lanes];
        for (int i = 0; i < Isa::lanes; ++i) {
            lower[i] = static_cast<uint16_t>(both[i]);
            upper[i] = static_cast<uint16_t>(both[i] >> 16);
        }
        std::memcpy(to, lower, sizeof lower);
        std::memcpy(to + panel::line_bytes(Format::index), upper, sizeof upper);
    }
}

// Keys of a panel's 16 tokens, a row each, and zeros up to a multiple of panel::k_multiple.
template <class Isa, class Format>
static void pack_key_panel(const std::byte *const *rows, int head_dim, std::byte *to) {
    constexpr int lanes = Isa::lanes, block_bytes = lanes * static_cast<int>(sizeof(uint32_t));
    constexpr int word_elements = static_cast<int>(sizeof(uint32_t)) / Format::bytes;
    const int row_bytes = head_dim * Format::bytes;
    const auto padded = static_cast<int>(panel::round_up(head_dim, panel::k_multiple));
    for (int column = 0; column < panel::columns; column += lanes) {
        std::byte *const lines = to + column * panel::granule_bytes(Format::index);
        for (int at = 0, k = 0; k < padded; at += block_bytes) {
            typename Isa::Vec words[lanes];
            const bool is_whole = at + block_bytes <= row_bytes;
            unroll<lanes>([&](auto lane) __attribute__((always_inline)) {
                const std::byte *from = rows[column + lane] + at;
                std::byte rest[block_bytes];
                if (!is_whole) {
                    std::memset(rest, 0, sizeof rest);
                    std::memcpy(rest, from, static_cast<size_t>(std::max(0, row_bytes - at)));
                    from = rest;
                }
                words[lane] = Isa::load(format::f32{}, from);
            });
            Isa::transpose(words);
            for (int i = 0; i < lanes && k < padded; ++i, k += word_elements) {
                store_words<Isa, Format>(lines + panel::offset(Format::index, k, 0), words[i]);
            }
        }
    }
}

// Bytes [at, at + bytes) of the values of n_tokens, a row each: 16 elements, or fewer and zeros.
template <class Format>
static void pack_value_panel(const std::byte *const *rows, int n_tokens, int at, int bytes, std::byte *to) {
    constexpr int granule = panel::granule<Format>, part_bytes = panel::columns * Format::bytes;
    for (int token = 0; token < n_tokens; token += granule, to += granule * part_bytes) {
        std::byte parts[granule][part_bytes];
        unroll<granule>([&](auto e) __attribute__((always_inline)) {
            if (bytes >= part_bytes) {
                std::memcpy(parts[e], rows[token + e] + at, part_bytes);
            } else {
                std::memset(parts[e], 0, part_bytes);
                std::memcpy(parts[e], rows[token + e] + at, static_cast<size_t>(bytes));
            }
        });
        if constexpr (granule == 1) {
            std::memcpy(to, parts, part_bytes);
        } else {
            uint16_t lower[panel::columns], upper[panel::columns];
            std::memcpy(lower, parts[0], sizeof lower);
            std::memcpy(upper, parts[1], sizeof upper);
            uint32_t granules[panel::columns];
            for (int column = 0; column < panel::columns; ++column) {
                granules[column] = lower[column] | uint32_t{upper[column]} << 16;
            }
            std::memcpy(to, granules, sizeof granules);
        }
    }
}

}  // namespace kvlane

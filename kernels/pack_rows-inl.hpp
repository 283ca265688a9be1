#pragma once

// A caller's rows to panels of their own format: bits are moved, and none of them changes.

#include <algorithm>
#include <cstring>

#include "formats/panel.hpp"
#include "rows-inl.hpp"

namespace kvlane {

// Rows that are prefetched while others are packed: of the same tokens, line by line.
struct NextRows {
    const std::byte *const *of;
    int n;
    int bytes;  // of a row

    KVLANE_INLINE void prefetch(int token, int at) const {
        if (at % cache_line_bytes == 0 && token < n && at < bytes) {
            prefetch_lines(of[token] + at, cache_line_bytes);
        }
    }
};

// Words of 32 bits of some columns, to their places in a panel's lines: a granule each, or two elements of f16.
template <class Isa, class Format>
KVLANE_INLINE void store_words(std::byte *to, typename Isa::Vec words) {
    if constexpr (panel::granule<Format> * Format::bytes == sizeof(uint32_t)) {
        Isa::store(format::f32{}, to, words);
    } else {
        Isa::store_halves(to, to + panel::line_bytes(Format::index), words);
    }
}

// Keys of a panel's 16 tokens, a row each, and zeros up to a multiple of panel::k_multiple.
template <class Isa, class Format>
static void pack_key_panel(const std::byte *const *rows, int head_dim, std::byte *to, const NextRows &next) {
    constexpr int lanes = Isa::lanes, word_bytes = sizeof(uint32_t), block_bytes = lanes * word_bytes;
    const int row_bytes = head_dim * Format::bytes;
    const auto padded_bytes = static_cast<int>(panel::round_up(head_dim, panel::k_multiple)) * Format::bytes;
    constexpr int line_bytes = panel::columns * word_bytes;
    for (int column = 0; column < panel::columns; column += lanes) {
        std::byte *const lines = to + column * panel::granule_bytes(Format::index);
        typename Isa::Vec words[lanes];
        int at = 0;
        for (; at + block_bytes <= row_bytes; at += block_bytes) {
            unroll<lanes>([&](auto lane) __attribute__((always_inline)) {
                words[lane] = Isa::load(format::f32{}, rows[column + lane] + at);
                next.prefetch(column + lane, at);
            });
            Isa::transpose(words);
            unroll<lanes>([&](auto i) __attribute__((always_inline)) {
                store_words<Isa, Format>(lines + (at / word_bytes + i) * line_bytes, words[i]);
            });
        }
        for (; at < padded_bytes; at += block_bytes) {
            for (int lane = 0; lane < lanes; ++lane) {
                std::byte rest[block_bytes] = {};
                std::memcpy(rest, rows[column + lane] + at, static_cast<size_t>(std::max(0, row_bytes - at)));
                words[lane] = Isa::load(format::f32{}, rest);
            }
            Isa::transpose(words);
            for (int i = 0; i < lanes && at + i * word_bytes < padded_bytes; ++i) {
                store_words<Isa, Format>(lines + (at / word_bytes + i) * line_bytes, words[i]);
            }
        }
    }
}

// Bytes [at, at + bytes) of the values of n_tokens, a row each: 16 elements, or fewer and zeros.
template <class Format>
static void pack_value_panel(const std::byte *const *rows, int n_tokens, int at, int bytes, std::byte *to,
                             const NextRows &next) {
    constexpr int granule = panel::granule<Format>, part_bytes = panel::columns * Format::bytes;
    for (int token = 0; token < n_tokens; token += granule, to += granule * part_bytes) {
        std::byte parts[granule][part_bytes];
        unroll<granule>([&](auto e) __attribute__((always_inline)) {
            next.prefetch(token + e, at);
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

#pragma once

// Where a tile's panels come from: stored tiles as they are, those of q4 unpacked to bytes; or a caller's rows, packed.

#include "gemm-inl.hpp"
#include "mask.hpp"
#include "pack_rows-inl.hpp"
#include "unpack_q4-inl.hpp"
#include "view.hpp"

namespace kvlane {

// Panels as the micro-kernel reads them.
struct Panels {
    const std::byte *at;
    int64_t bytes;  // from one to the next
};

// body(first token of the tile, run's token, run, tokens) for every piece of needed tokens in consecutive rows.
template <class Body>
static void for_each_piece(const TileSource &s, Body &&body) {
    uint32_t run = s.run;
    int64_t in_run = s.first - s.run_first;  // of the tile's first token
    for (uint64_t left = s.needed; left != 0;) {
        const int token = std::countr_zero(left);
        int64_t at = in_run + token;
        run = run_of(*s.view, run, at);
        in_run = at - token;
        const int n =
            static_cast<int>(std::min<int64_t>(std::countr_one(left >> token), run_at(*s.view, run).n_tokens - at));
        body(token, at, run_at(*s.view, run), n);
        left &= ~(low_bits(n) << token);
    }
}

// A stored tile's panels [first, first + n) of keys, or of values; those of q4 unpacked in `room`.
template <class Isa, class Format, bool Keys>
static Panels stored_panels(const TileSource &s, int first, int n, std::byte *room) {
    const int64_t bytes = Keys ? s.layout.k_panel_bytes : s.layout.v_panel_bytes;
    const std::byte *const at = s.tile + (Keys ? 0 : s.layout.v_panels) + first * bytes;
    if constexpr (Format::group > 0) {
        for (int p = 0; p < n; ++p) {
            unpack_panel<Isa>(at + p * bytes, bytes, room + 2 * p * bytes);
        }
        return {room, 2 * bytes};
    }
    return {at, bytes};
}

static constexpr std::byte zero_row[KVL_MAX_HEAD_DIM * sizeof(float)] = {};
template <bool Keys>
static TileRows tile_rows(const TileSource &s) {
    TileRows rows;
    if (s.needed != ~uint64_t{0}) {
        std::fill_n(rows.of, panel::tile_tokens, zero_row);
    }
    const int64_t stride = Keys ? s.view->k_token_stride_bytes : s.view->v_token_stride_bytes;
    for_each_piece(s, [&](int token, int64_t at, const Run &run, int n_tokens) {
        const std::byte *const row =
            Keys ? k_row(*s.view, *run.span, s.kv_head, at, run.block) : v_row(*s.view, *run.span, s.kv_head, at, run.block);
        for (int i = 0; i < n_tokens; ++i) {
            rows.of[token + i] = row + i * stride;
        }
    });
    return rows;
}

static inline SourceRows rows_of(const TileSource &s) {
    TileSource next = s;
    next.first += panel::tile_tokens;
    next.needed = low_bits(std::clamp<int64_t>(own_tokens(*s.view) - next.first, 0, panel::tile_tokens));
    return {tile_rows<true>(s), tile_rows<false>(s), tile_rows<true>(next)};
}

// Rows of tokens [first, first + n) are prefetched while others are packed and multiplied, half of them each, if they follow
// each other in memory; else at once.
struct RowPrefetch {
    NextRows while_packed;
    Prefetch while_multiplied;
};
static inline RowPrefetch prefetch_rows(const TileRows &rows, int first, int n, int64_t row_bytes) {
    const auto address = [](const std::byte *p) { return reinterpret_cast<uintptr_t>(p); };
    const std::byte *const *const of = rows.of + first;
    if (address(of[n - 1]) - address(of[0]) == static_cast<uintptr_t>((n - 1) * row_bytes)) {
        return {{of, n / 2, static_cast<int>(row_bytes)}, {of[n / 2], (n - n / 2) * row_bytes / Prefetch::streams}};
    }
    for (int i = 0; i < n; ++i) {
        prefetch_lines(of[i], row_bytes);
    }
    return {{of, 0, 0}, {of[0], 0}};
}

// Panels [first, first + n) of a tile of rows, in `room`: keys of 16 tokens each, or 16 elements each of the values of its
// first n_tokens.
template <class Isa, class Format>
static Panels pack_keys(const TileSource &s, const TileRows &rows, int first, int n, std::byte *room, const NextRows &next) {
    const int64_t bytes = s.layout.k_panel_bytes;
    for (int p = 0; p < n; ++p) {
        const int token = p * panel::columns;
        pack_key_panel<Isa, Format>(rows.of + first * panel::columns + token, static_cast<int>(s.view->head_dim),
                                    room + p * bytes, {next.of + token, next.n - token, next.bytes});
    }
    return {room, bytes};
}
// From one panel to the next: not a multiple of a page, or the same lines of all share a cache set.
template <class Format>
static constexpr int64_t packed_value_bytes = (panel::tile_tokens + 2) * panel::columns *Format::bytes;

template <class Isa, class Format>
static Panels pack_values(const TileSource &s, const TileRows &rows, int n_tokens, int first, int n, std::byte *room,
                          const NextRows &next) {
    const auto row_bytes = static_cast<int>(format::row_bytes(Format::index, s.view->v_head_dim));
    for (int p = 0; p < n; ++p) {
        const int at = (first + p) * panel::columns * Format::bytes;
        pack_value_panel<Format>(rows.of, n_tokens, at, row_bytes - at, room + p * packed_value_bytes<Format>, next);
    }
    return {room, packed_value_bytes<Format>};
}

static inline const std::byte *stored_tile(const TileSource &s) {
    int64_t in_run = s.first - s.run_first;
    const Run run = run_at(*s.view, run_of(*s.view, s.run, in_run));
    return tile_of(*s.view, *run.span, s.kv_head, in_run, run.block);
}

// While a stored tile's keys are multiplied its values are prefetched, and while these are summed the memory behind the
// tile: the next tile's keys, or the next KV head's. For one row of f32 the four panels that are read at once are streams
// enough.
template <class Format>
static Prefetch prefetch(const TileSource &s, int n_rows, int64_t offset, int64_t bytes) {
    return {s.tile + offset, Format::bits == 32 && n_rows == 1 ? 0 : bytes / Prefetch::streams};
}

}  // namespace kvlane

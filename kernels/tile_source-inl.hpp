#pragma once

// Where a tile's panels come from: stored tiles as they are, those of q4 dequantized to bytes; or a caller's rows, packed.

#include "mask.hpp"
#include "pack-inl.hpp"
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

// Panels [first, first + n) of keys.
template <class Isa, class Format>
static Panels stage_keys(const TileSource &s, int first, int n, std::byte *room) {
    const int64_t bytes = s.layout.k_panel_bytes;
    if constexpr (Format::group > 0) {
        return {room, unpack_keys<Isa>(s.tile, s.layout, static_cast<int>(s.view->head_dim), first, n, room)};
    }
    if (s.tile) {
        return {s.tile + first * bytes, bytes};
    }
    if constexpr (!Format::is_scaled) {
        std::fill_n(room, n * bytes, std::byte{0});
        const uint64_t tokens = low_bits(n * panel::columns) << first * panel::columns;
        TileSource part = s;
        part.needed &= tokens;
        for_each_piece(part, [&](int token, int64_t at, const Run &run, int n_tokens) {
            pack_as_stored<Isa, Format, true>({.rows = k_row(*s.view, *run.span, s.kv_head, at, run.block),
                                               .stride_bytes = s.view->k_token_stride_bytes,
                                               .n = n_tokens,
                                               .first = token - first * panel::columns,
                                               .dim = static_cast<int>(s.view->head_dim),
                                               .is_rotated = false,
                                               .panels = room,
                                               .panel_bytes = bytes,
                                               .scales = nullptr});
        });
    }
    return {room, bytes};
}

// Panels [first, first + n) of values.
template <class Isa, class Format>
static Panels stage_values(const TileSource &s, int first, int n, std::byte *room) {
    const int64_t bytes = s.layout.v_panel_bytes;
    if constexpr (Format::group > 0) {
        return {room, unpack_values<Isa>(s.tile, s.layout, first, n, room)};
    }
    if (s.tile) {
        return {s.tile + s.layout.v_panels + first * bytes, bytes};
    }
    if constexpr (!Format::is_scaled) {
        std::fill_n(room, n * bytes, std::byte{0});
        const int d = first * panel::columns;
        for_each_piece(s, [&](int token, int64_t at, const Run &run, int n_tokens) {
            pack_as_stored<Isa, Format, false>(
                {.rows = v_row(*s.view, *run.span, s.kv_head, at, run.block) + d * Format::bytes,
                 .stride_bytes = s.view->v_token_stride_bytes,
                 .n = n_tokens,
                 .first = token,
                 .dim = std::min(n * panel::columns, static_cast<int>(s.view->v_head_dim) - d),
                 .is_rotated = false,
                 .panels = room,
                 .panel_bytes = bytes,
                 .scales = nullptr});
        });
    }
    return {room, bytes};
}

static inline const std::byte *stored_tile(const TileSource &s) {
    int64_t in_run = s.first - s.run_first;
    const Run run = run_at(*s.view, run_of(*s.view, s.run, in_run));
    return tile_of(*s.view, *run.span, s.kv_head, in_run, run.block);
}

// work(first, n, panels) for all of n_panels, as many at a time as there is room for.
template <class Stage, class Work>
static void for_each_staged(int n_panels, int64_t staged_bytes, Stage &&stage, Work &&work) {
    const int at_once = staged_bytes == 0 ? n_panels : static_cast<int>(std::max<int64_t>(1, staging_bytes / staged_bytes));
    for (int first = 0; first < n_panels; first += at_once) {
        const int n = std::min(at_once, n_panels - first);
        work(first, n, stage(first, n));
    }
}

}  // namespace kvlane

#pragma once

// Attention to one chunk of one KV head: tile by tile, for as many query rows at a time as the buffers hold.

#include <algorithm>

#include "attend_tile-inl.hpp"
#include "hadamard-inl.hpp"

namespace kvlane {

// The tokens of a chunk that lie in one view of a chain.
struct Part {
    const AttendChunk &chunk;
    const kvl_view *view;
    int64_t view_first;  // position of the view's first token
    int64_t first;       // token of the view
    int64_t n_tokens;
    uint32_t run;
    int64_t run_first;
};

// Calls body(part) for every view that holds tokens of the chunk.
template <class Body>
static void for_each_part(const AttendChunk &c, Body &&body) {
    const int64_t end = c.position + c.n_tokens;
    Part part{c, c.view, c.position - c.first, c.first, 0, c.run, c.run_first};
    while (part.view && part.view_first + part.first < end) {
        part.n_tokens = std::min(own_tokens(*part.view), end - part.view_first) - part.first;
        body(part);
        part.view_first += tokens_before_next(*part.view);
        part.view = part.view->next;
        part.first = std::max<int64_t>(0, c.position - part.view_first);
        part.run = 0;
        part.run_first = 0;
    }
}

// The tokens visible to a query head in the tile that begins at `tile_first`, one bit per token.
static inline uint64_t visible_word(const Part &part, int64_t tile_first, int query, int head) {
    const AttendChunk &c = part.chunk;
    const Query &q = c.queries[query];
    const int64_t first = std::max(tile_first, part.first), position = part.view_first + first;
    const int64_t n =
        std::min({tile_first + panel::tile_tokens, part.first + part.n_tokens, first + q.end - position}) - first;
    const ReadTokens read = read_tokens(*part.view, part.view_first, q.position);
    uint64_t visible = low_bits(n) &
                       (low_bits(c.n_sink_tokens - position) | ~low_bits(q.position + 1 - c.window - position)) &
                       low_bits(read.end - position) & ~low_bits(read.first - position);
    if (c.mask && visible != 0) {
        visible &= unmasked(*c.mask, c.first_query + query, c.first_head + head, position, static_cast<int>(n));
    }
    return visible << (first - tile_first);
}

// The query of a query row in f32, rotated as the keys are; `room` is a buffer for what is converted or rotated.
template <class Isa>
static const float *query_of(const AttendChunk &c, int row, float *room) {
    const auto head_dim = static_cast<int>(c.view->head_dim);
    const Query &query = c.queries[row / c.group];
    const std::byte *const stored = query.rows + row % c.group * query.row_stride_bytes;
    if (query.format == format::index_f32 && !c.rotates_q) {
        return reinterpret_cast<const float *>(stored);
    }
    load_row<Isa>(query.format, stored, head_dim, room);
    if (c.rotates_q) {
        rotate_row<Isa>(room, head_dim);
    }
    return room;
}

template <class Isa, ComputeType K>
static void pack_queries(int group, float unit, ChunkRows &rows) {
    constexpr int element_bytes = K == ComputeType::i8 ? 1 : K == ComputeType::i16 ? 2 : 4;
    const auto head_dim = static_cast<int>(rows.chunk->view->head_dim);
    const int64_t row_bytes = panel::round_up(head_dim, panel::columns) * element_bytes;
    for (int r = 0; r < rows.block.n_rows; ++r) {
        pack_query<Isa, K>(
            query_of<Isa>(*rows.chunk, rows.first + r, rows.rotated_query), head_dim, group, unit,
            {rows.queries + r * row_bytes, rows.query_scales + r, rows.query_initial_sums + r, rows.query_factors + r});
    }
}

template <class Isa>
static void pack_queries(ComputeType k_type, int group, float unit, ChunkRows &rows) {
    if (k_type == ComputeType::f32) {
        pack_queries<Isa, ComputeType::f32>(group, unit, rows);
    } else if (k_type == ComputeType::dequantized) {
        pack_queries<Isa, ComputeType::dequantized>(group, unit, rows);
    } else if (k_type == ComputeType::i16 || !Isa::has_byte_products) {
        pack_queries<Isa, ComputeType::i16>(group, unit, rows);
    } else if constexpr (Isa::has_byte_products) {
        pack_queries<Isa, ComputeType::i8>(group, unit, rows);
    }
}

// x has room for whole vectors, zeros behind its end.
template <class Isa>
static float dot(const float *x, const float *y, int n) {
    auto sum = Isa::broadcast(0);
    for (int i = 0; i < n; i += Isa::lanes) {
        const auto *const at = reinterpret_cast<const std::byte *>(y + i);
        sum = Isa::fma(Isa::load(x + i),
                       n - i < Isa::lanes ? Isa::load_partial(format::f32{}, at, n - i) : Isa::load(format::f32{}, at), sum);
    }
    return Isa::reduce_add(sum);
}

// Sets what the view's key offset c adds to the scores of each query row: scale * q c^T.
template <class Isa>
static void set_offsets(const float *k_offset, ChunkRows &rows) {
    const AttendChunk &c = *rows.chunk;
    const auto head_dim = static_cast<int>(c.view->head_dim);
    std::fill_n(rows.offsets, rows.block.n_rows, 0.0f);
    for (int r = 0; k_offset && r < rows.block.n_rows; ++r) {
        const int row = rows.first + r;
        const Query &query = c.queries[row / c.group];
        load_row<Isa>(query.format, query.rows + row % c.group * query.row_stride_bytes, head_dim, rows.rotated_query);
        rows.offsets[r] = c.scale * dot<Isa>(rows.rotated_query, k_offset, head_dim);
    }
}

// Sets the visible tokens of a tile and the score modifiers for each query row. Returns the tokens visible to any of them.
static inline uint64_t set_visible(const Part &part, int64_t tile_first, ChunkRows &rows) {
    const AttendChunk &c = part.chunk;
    const int64_t position = part.view_first + tile_first;
    const bool by_head = c.mask && differs_by_head(*c.mask);
    uint64_t any = 0;
    for (int r = 0; r < rows.block.n_rows; ++r) {
        const int row = rows.first + r, query = row / c.group, head = row % c.group;
        const bool is_as_before = r > 0 && head != 0 && !by_head;
        rows.visible[r] = is_as_before ? rows.visible[r - 1] : visible_word(part, tile_first, query, head);
        any |= rows.visible[r];
        if (c.slopes) {
            rows.slopes[r] = c.slopes[head];
            rows.distances[r] = position - c.queries[query].position;
        }
        if (c.mask && c.mask->biases) {
            rows.biases[r] = biases_of(*c.mask, c.first_query + query, c.first_head + head) + position;
        }
    }
    return any;
}

// Accumulates the tokens of one part into the query rows. If `is_careful`, hidden values may be NaN or infinite.
template <class Isa>
static void attend_part(const Part &part, bool is_careful, ChunkRows &rows) {
    const AttendChunk &c = part.chunk;
    const kvl_view &view = *part.view;
    const ComputeType k_type = format::is_scaled(view.k_format) ? c.k_type : ComputeType::f32;
    const ComputeType v_type = format::is_scaled(view.v_format) ? c.v_type : ComputeType::f32;
    const ProductKernels &of_keys = *c.kernels->products[view.k_format], &of_values = *c.kernels->products[view.v_format];
    const ScoreFn score = of_keys.score[static_cast<int>(k_type)];
    const SoftmaxFn softmax = c.kernels->softmax[static_cast<int>(v_type)];
    const SumFn sum = of_values.sum[static_cast<int>(v_type)];
    const SumVisibleFn sum_visible = is_careful ? of_values.sum_visible : nullptr;
    SourceRows source_rows;
    TileSource source{.view = &view,
                      .kv_head = c.kv_head,
                      .first = 0,
                      .run = part.run,
                      .run_first = part.run_first,
                      .needed = 0,
                      .tile = nullptr,
                      .rows = has_tiles(view) ? nullptr : &source_rows,
                      .layout = panel::tile_layout(view.k_format, view.head_dim, view.v_format, view.v_head_dim)};
    const auto ld = static_cast<int>(panel::round_up(view.head_dim, panel::columns));
    const int group = format::group_of[view.k_format], key_group = group > 0 ? group : ld;
    pack_queries<Isa>(k_type, key_group, group > 0 ? 1.0f / q4::one : 1, rows);
    set_offsets<Isa>(k_offset_of(view, c.kv_head), rows);
    for (int64_t first = part.first / panel::tile_tokens * panel::tile_tokens; first < part.first + part.n_tokens;
         first += panel::tile_tokens) {
        source.first = first;
        source.needed = set_visible(part, first, rows);
        if (source.needed == 0) {
            continue;
        }
        if (source.rows) {
            source_rows = rows_of(source);
        } else {
            source.tile = stored_tile(source);
        }
        rows.block.n_tokens = static_cast<int>(panel::round_up(std::bit_width(source.needed), panel::columns));
        const auto scales_at = [&](kvl_format format, int64_t offset) {
            return format::is_scaled(format) ? reinterpret_cast<const float *>(source.tile + offset) : nullptr;
        };
        score(source, {rows.queries, ld, key_group, rows.query_scales, rows.query_initial_sums}, rows.block);
        softmax({.scale = c.scale,
                 .query_factors = rows.query_factors,
                 .offsets = rows.offsets,
                 .softcap = c.softcap,
                 .slopes = c.slopes ? rows.slopes : nullptr,
                 .distances = rows.distances,
                 .biases = c.mask && c.mask->biases ? rows.biases : nullptr,
                 .key_scales = scales_at(view.k_format, source.layout.k_scales),
                 .value_scales = scales_at(view.v_format, source.layout.v_scales),
                 .visible = rows.visible},
                rows.block);
        if (sum_visible) {
            sum_visible(source, rows.visible, rows.block);
        } else {
            sum(source, rows.block);
        }
    }
}

template <class Isa>
static void attend_parts(bool is_careful, ChunkRows &rows) {
    RowBlock &block = rows.block;
    for (int r = 0; r < block.n_rows; ++r) {
        block.m[r] = minus_infinity;
        std::fill_n(block.l[r], panel::columns, 0.0f);
    }
    std::fill_n(block.o, block.n_rows * block.ldo, 0.0f);
    for_each_part(*rows.chunk, [&](const Part &part) { attend_part<Isa>(part, is_careful, rows); });
}

// Whether all elements of o are finite.
template <class Isa>
static bool is_finite(const RowBlock &block) {
    auto sum = Isa::broadcast(0);
    for (int i = 0; i < block.n_rows * block.ldo; i += Isa::lanes) {
        sum = Isa::fma(Isa::load(block.o + i), Isa::broadcast(0), sum);
    }
    return Isa::reduce_add(sum) == 0;
}

// Attends query rows [first, first + n) to all tokens of a chunk. Hidden tokens have weight 0, but 0 x NaN and 0 x infinity
// are NaN: if the result is not finite, it is recomputed over visible tokens only.
template <class Isa>
static void attend_rows(const AttendChunk &c, int first, int n) {
    ChunkRows &rows = *c.scratch;
    rows.chunk = &c;
    rows.first = first;
    RowBlock &block = rows.block;
    block.n_rows = n;
    block.ldo = static_cast<int>(partial_stride(c.view->v_head_dim));
    block.o = c.out.o + first * block.ldo;
    attend_parts<Isa>(false, rows);
    if (!is_finite<Isa>(block)) {
        attend_parts<Isa>(true, rows);
    }
    for (int r = 0; r < n; ++r) {
        c.out.m[first + r] = block.m[r];
        c.out.l[first + r] = Isa::reduce_add(Isa::load(block.l[r]));
    }
}

template <class Isa>
void attend_chunk(const AttendChunk &c) {
    const int n_rows = c.n_queries * c.group;
    const auto row_bytes = static_cast<int>(panel::round_up(c.view->head_dim, panel::columns) * sizeof(float));
    const int room = std::min(max_rows, query_bytes / row_bytes);
    const int at_once = room > c.group ? room / c.group * c.group : room;
    for (int row = 0; row < n_rows; row += at_once) {
        attend_rows<Isa>(c, row, std::min(n_rows - row, at_once));
    }
}

}  // namespace kvlane

#include "validate.hpp"

#include <algorithm>
#include <cstddef>

#include "../planes.hpp"

namespace kvlane {

kvl_status check_row_format(kvl_format format, const char *name) {
    KVLANE_TRY(check_format(format, name));
    return !format::is_scaled(format)
               ? KVL_OK
               : fail(KVL_ERROR_FORMAT, "%s is %s; rows must be f32, f16 or bf16", name, name_of_format(format).text);
}

namespace {

// ---- Shapes

// Of a layer or a view; v_head_dim as in force.
template <class Shape>
kvl_status check_shape(const Shape &shape, uint32_t v_head_dim) {
    KVLANE_TRY(check_range(shape.n_kv_heads, 1, KVL_MAX_HEADS, "n_kv_heads"));
    KVLANE_TRY(check_head_dim(shape.head_dim, "head_dim"));
    KVLANE_TRY(check_head_dim(v_head_dim, "v_head_dim"));
    KVLANE_TRY(check_format(shape.k_format, "k_format"));
    KVLANE_TRY(check_format(shape.v_format, "v_format"));
    KVLANE_TRY(check_rotation(shape.k_rotation, "k_rotation"));
    return check_rotation(shape.v_rotation, "v_rotation");
}

// ---- Views

kvl_status check_geometry(uint32_t value, uint32_t expected, const char *name) {
    return value == expected ? KVL_OK
                             : fail(KVL_ERROR_GEOMETRY, "%s is %u; the attention object has %u", name, value, expected);
}

// Rows have no scales.
kvl_status check_rows(const kvl_view &view, kvl_format format, const char *name) {
    return has_tiles(view) || !format::is_scaled(format)
               ? KVL_OK
               : fail(KVL_ERROR_FORMAT, "%s_format is %s; rows must be f32, f16 or bf16, and %s needs KVL_VIEW_TILES", name,
                      name_of_format(format).text, name_of_format(format).text);
}

kvl_status check_stated(kvl_rotation rotation, const char *name) {
    return rotation != KVL_ROTATION_DEFAULT
               ? KVL_OK
               : fail(KVL_ERROR_ROTATION,
                      "%s_rotation is KVL_ROTATION_DEFAULT; a view must say how its rows are rotated: KVL_ROTATION_NONE or "
                      "_HADAMARD",
                      name);
}

// A view's keys or values, as an attention object wants them. Tokens in f16 may stand beside those of q8 and q4, rotated as
// these are.
kvl_status check_stored(kvl_format format, kvl_rotation rotation, kvl_format expected_format, kvl_rotation expected_rotation,
                        const char *name) {
    const bool fits = format == expected_format || format == format::in_f16_window(expected_format);
    if (fits && rotation == expected_rotation) {
        return KVL_OK;
    }
    const Named has = name_of_format(format), wanted = name_of_format(expected_format);
    if (!fits) {
        return fail(KVL_ERROR_GEOMETRY, "%s_format is %s; the attention object has %s%s", name, has.text, wanted.text,
                    format::is_scaled(expected_format) ? ", beside which f16 may stand" : "");
    }
    KVLANE_TRY(check_stated(rotation, name));
    const Named rotated = name_of_rotation(rotation), wanted_rotation = name_of_rotation(expected_rotation);
    if (format != expected_format) {
        return fail(KVL_ERROR_GEOMETRY,
                    "%s_format is %s and %s_rotation %s; the attention object has %s, beside which %s may stand with its "
                    "rotation, %s",
                    name, has.text, name, rotated.text, wanted.text, has.text, wanted_rotation.text);
    }
    return fail(KVL_ERROR_GEOMETRY, "%s_rotation is %s; the attention object has %s", name, rotated.text,
                wanted_rotation.text);
}

// The stride between n rows or tiles: they overlap where it is less than their size, what lies between the first and the
// last must be within an address space, and tiles stay aligned. Of one row or tile a stride is unused.
kvl_status check_stride(const ViewPlane &plane, const kvl_view &view, int64_t stride, int64_t n, const char *between) {
    const int64_t bytes = plane.row_bytes(view), alignment = static_cast<int64_t>(plane.alignment);
    if (n <= 1 || (stride >= bytes && stride <= KVL_MAX_EXTENT_BYTES / (n - 1) && stride % alignment == 0)) {
        return KVL_OK;
    }
    return fail(KVL_ERROR_STRIDE,
                "%s_%s_stride_bytes is %" PRId64 "; it must be from a %s's %" PRId64 " bytes to %" PRId64
                ", KVL_MAX_EXTENT_BYTES / %" PRId64 "%s",
                plane.name, between, stride, plane.record, bytes, KVL_MAX_EXTENT_BYTES / (n - 1), n - 1,
                has_tiles(view) ? ", and a multiple of KVL_TILE_ALIGNMENT, 64" : "");
}

kvl_status check_address(const ViewPlane &plane, const void *first) {
    KVLANE_TRY(check_not_null(first, plane.first_name));
    return reinterpret_cast<uintptr_t>(first) % plane.alignment == 0
               ? KVL_OK
               : fail(KVL_ERROR_ALIGNMENT, "%s is %p; a %s must be aligned to %" PRIuPTR " bytes", plane.first_name, first,
                      plane.record, plane.alignment);
}

kvl_status check_span(const kvl_view &view, const kvl_span &span) {
    KVLANE_TRY(check_range(span.n_tokens, 0, KVL_MAX_TOKENS, "n_tokens"));
    return span.n_tokens == 0
               ? KVL_OK
               : check_planes(view, [&](const ViewPlane &plane) { return check_address(plane, span.*plane.first); });
}

kvl_status check_held(const kvl_view &view, uint64_t n_tokens, const char *holders) {
    return n_tokens >= static_cast<uint64_t>(own_tokens(view))
               ? KVL_OK
               : fail(KVL_ERROR_LENGTH,
                      "len is %" PRId64 ", of which %" PRId64 " are its own; its %s hold %" PRIu64 " tokens", view.len,
                      own_tokens(view), holders, n_tokens);
}

// Tiles of runs that follow each other are whole.
kvl_status check_whole_tiles(const kvl_view &view, int64_t n_tokens, const char *name) {
    return !has_tiles(view) || n_tokens % panel::tile_tokens == 0
               ? KVL_OK
               : fail(KVL_ERROR_LENGTH, "%s is %" PRId64 "; with tiles it must be a multiple of %d", name, n_tokens,
                      panel::tile_tokens);
}

// longest: the most visible tokens of one span.
kvl_status check_spans(const kvl_view &view, int64_t &longest) {
    const int64_t own = own_tokens(view);
    int64_t n_tokens = 0;
    for (uint32_t i = 0; i < view.n_spans && n_tokens < own; ++i) {
        KVLANE_TRY_IN(check_span(view, view.spans[i]), "spans[%u]: ", i);
        longest = std::max(longest, std::min(view.spans[i].n_tokens, own - n_tokens));
        n_tokens += view.spans[i].n_tokens;
        if (n_tokens < own && i + 1 < view.n_spans) {
            KVLANE_TRY_IN(check_whole_tiles(view, view.spans[i].n_tokens, "n_tokens"), "spans[%u]: ", i);
        }
    }
    return check_held(view, static_cast<uint64_t>(n_tokens), "spans");
}

// longest: the most visible tokens of one block.
kvl_status check_blocks(const kvl_view &view, int64_t &longest) {
    if (view.block_tokens < KVL_MIN_BLOCK_TOKENS) {
        return fail(KVL_ERROR_RANGE, "block_tokens is %u; with blocks it must be at least %d", view.block_tokens,
                    KVL_MIN_BLOCK_TOKENS);
    }
    KVLANE_TRY(check_whole_tiles(view, view.block_tokens, "block_tokens"));
    KVLANE_TRY(check_range(view.n_spans, 1, 1, "n_spans, with blocks,"));
    KVLANE_TRY_IN(check_span(view, *view.spans), "spans[0]: ");
    KVLANE_TRY(view.n_blocks == 0 ? KVL_OK : check_not_null(view.blocks, "blocks"));
    KVLANE_TRY(check_held(view, uint64_t{view.n_blocks} * view.block_tokens, "blocks"));
    const int64_t n_blocks = view.spans->n_tokens / view.block_tokens;
    const Blocks blocks = visible_blocks(view);
    if (blocks.begin < blocks.end && n_blocks == 0) {
        return fail(KVL_ERROR_BLOCK, "its span holds %" PRId64 " tokens; blocks of %u need that many at least",
                    view.spans->n_tokens, view.block_tokens);
    }
    if (blocks.begin < blocks.end && (blocks.least < 0 || blocks.most >= n_blocks)) {
        const int32_t *wrong = std::find_if(blocks.begin, blocks.end, [=](int32_t b) { return b < 0 || b >= n_blocks; });
        return fail(KVL_ERROR_BLOCK,
                    "blocks[%td] is %" PRId32 "; it must be from 0 to %" PRId64 ", the last of the span's %" PRId64
                    " tokens",
                    wrong - blocks.begin, *wrong, n_blocks - 1, view.spans->n_tokens);
    }
    KVLANE_TRY(check_planes(view, [&](const ViewPlane &plane) {
        return check_stride(plane, view, view.*plane.block_stride, blocks.most + int64_t{1}, "block");
    }));
    longest = std::min<int64_t>(view.block_tokens, own_tokens(view));
    return KVL_OK;
}

// Where the view's own tokens are; without any, nothing is looked at.
kvl_status check_memory(const kvl_view &view) {
    if (own_tokens(view) == 0) {
        return KVL_OK;
    }
    KVLANE_TRY(view.n_spans == 0 ? KVL_OK : check_not_null(view.spans, "spans"));
    int64_t longest = 0;
    const bool has_blocks = view.block_tokens > 0 || view.n_blocks > 0;
    KVLANE_TRY(has_blocks ? check_blocks(view, longest) : check_spans(view, longest));
    return longest == 0 ? KVL_OK : check_planes(view, [&](const ViewPlane &plane) {
        const int64_t n_rows = (longest + plane.tokens - 1) / plane.tokens;
        KVLANE_TRY(check_stride(plane, view, view.*plane.token_stride, n_rows, "token"));
        return check_stride(plane, view, view.*plane.head_stride, view.n_kv_heads, "head");
    });
}

// The addresses alone of the view's own tokens.
kvl_status check_memory_addresses(const kvl_view &view) {
    int64_t left = own_tokens(view);
    if (left == 0) {
        return KVL_OK;
    }
    KVLANE_TRY(check_not_null(view.spans, "spans"));
    if (view.block_tokens > 0) {
        KVLANE_TRY(check_not_null(view.blocks, "blocks"));
        KVLANE_TRY_IN(check_span(view, *view.spans), "spans[0]: ");
        return KVL_OK;
    }
    for (uint32_t i = 0; i < view.n_spans && left > 0; ++i) {
        KVLANE_TRY_IN(check_span(view, view.spans[i]), "spans[%u]: ", i);
        left -= view.spans[i].n_tokens;
    }
    return KVL_OK;
}

// s.first_kv_head is the least of the view's KV heads that the attention object reads.
kvl_status check_kv_heads(const kvl_attention &a, const kvl_sequence &s, const kvl_view &view) {
    if (!(s.flags & KVL_SEQUENCE_KV_HEADS)) {
        return check_geometry(view.n_kv_heads, a.n_kv_heads, "n_kv_heads");
    }
    KVLANE_TRY(check_range(view.n_kv_heads, a.n_kv_heads, KVL_MAX_HEADS, "n_kv_heads"));
    return check_range(s.first_kv_head, 0, view.n_kv_heads - a.n_kv_heads, "first_kv_head");
}

// A view alone, but for how many tokens it has and where.
kvl_status check_one_view(const kvl_attention &a, const kvl_sequence &s, const kvl_view &view) {
    KVLANE_TRY(check_header(view, KVL_VIEW_TILES));
    KVLANE_TRY(check_reserved(view.reserved));
    KVLANE_TRY(check_kv_heads(a, s, view));
    KVLANE_TRY(check_geometry(view.head_dim, a.head_dim, "head_dim"));
    KVLANE_TRY(check_geometry(view.v_head_dim, a.v_head_dim, "v_head_dim"));
    KVLANE_TRY(check_stored(view.k_format, view.k_rotation, a.k_format, a.k_rotation, "k"));
    KVLANE_TRY(check_stored(view.v_format, view.v_rotation, a.v_format, a.v_rotation, "v"));
    KVLANE_TRY(check_rows(view, view.k_format, "k"));
    return check_rows(view, view.v_format, "v");
}

// Tokens that the view before holds too; three views that follow each other hold none together.
kvl_status check_overlap(const kvl_view &view, bool is_first) {
    const int64_t most = is_first ? 0 : tokens_before_next(view);
    if (view.n_overlap < 0 || view.n_overlap > most) {
        return fail(KVL_ERROR_RANGE, "n_overlap is %" PRId64 "; it must be from 0 to %" PRId64 ", %s", view.n_overlap, most,
                    is_first ? "as no view is before this one" : "its tokens before those of the next view");
    }
    return view.n_overlap == 0 ? KVL_OK : check_range(view.n_recent, 0, KVL_MAX_TOKENS, "n_recent");
}

// A chain of views: each holds a token at least that no other holds, or that the next one alone holds too, so that the chain
// ends.
kvl_status check_chain(const kvl_attention &a, const kvl_sequence &s) {
    const kvl_view *const first = s.view;
    KVLANE_TRY(check_not_null(first, "view"));
    KVLANE_TRY_IN(check_one_view(a, s, *first), "view[0]: ");
    KVLANE_TRY_IN(check_range(first->len, 0, KVL_MAX_TOKENS, "len"), "view[0]: ");
    uint32_t i = 0;
    for (const kvl_view *view = first; view; view = view->next, ++i) {
        if (const kvl_view *const next = view->next) {
            KVLANE_TRY_IN(check_one_view(a, s, *next), "view[%u]: ", i + 1);
            const int n_alone = next->n_overlap > 0 ? 0 : 1;
            if (view->len < n_alone + 1) {
                return fail(KVL_ERROR_RANGE,
                            "view[%u]: len is %" PRId64 "; before a next view it must be at least %d, one of its own", i,
                            view->len, n_alone + 1);
            }
            KVLANE_TRY_IN(check_range(next->len, 1, view->len - n_alone, "len"), "view[%u]: ", i + 1);
        }
        KVLANE_TRY_IN(check_overlap(*view, view == first), "view[%u]: ", i);
    }
    return KVL_OK;
}

// A chain, and the memory of its tokens: by check_memory or check_memory_addresses.
using MemoryCheck = kvl_status(const kvl_view &);
kvl_status check_view(const kvl_attention &a, const kvl_sequence &s, MemoryCheck *check_memory_of) {
    KVLANE_TRY(check_chain(a, s));
    uint32_t i = 0;
    for (const kvl_view *view = s.view; view; view = view->next, ++i) {
        KVLANE_TRY_IN(check_memory_of(*view), "view[%u]: ", i);
    }
    return KVL_OK;
}

// Packed tiles, whatever their tokens.
kvl_status check_tiles(const kvl_view &view) {
    KVLANE_TRY(check_header(view, KVL_VIEW_TILES));
    if (!has_tiles(view)) {
        return fail(KVL_ERROR_FLAGS, "flags is 0x%x; it must have KVL_VIEW_TILES, 0x%x", view.flags, KVL_VIEW_TILES);
    }
    KVLANE_TRY(check_reserved(view.reserved));
    KVLANE_TRY(check_shape(view, view.v_head_dim));
    KVLANE_TRY(check_stated(view.k_rotation, "k"));
    return check_stated(view.v_rotation, "v");
}

// ---- Sequences

kvl_status check_sequence_range(const kvl_view &view, const kvl_range &range) {
    KVLANE_TRY(check_reserved(range.reserved));
    KVLANE_TRY(check_range(range.view_first, 0, KVL_MAX_TOKENS - view.len, "view_first"));
    KVLANE_TRY(check_range(range.first, range.view_first, range.view_first + view.len, "first"));
    KVLANE_TRY(check_range(range.end, range.first, range.view_first + view.len, "end"));
    KVLANE_TRY(check_not_null(range.out.m, "out.m"));
    KVLANE_TRY(check_not_null(range.out.l, "out.l"));
    return check_not_null(range.out.o, "out.o");
}

kvl_status check_len_of(const kvl_sequence &s) {
    return s.len >= 0 && s.len <= s.view->len
               ? KVL_OK
               : fail(KVL_ERROR_LENGTH, "len is %" PRId64 "; it must be from 0 to the view's %" PRId64, s.len, s.view->len);
}

// A stride between n rows of queries or outputs; 0 selects the default. Of one row it is unused.
kvl_status check_row_stride(int64_t stride, int64_t n, int64_t row_bytes, int64_t element_bytes, const char *name) {
    const int64_t most = n > 1 ? KVL_MAX_EXTENT_BYTES / (n - 1) : 0;
    return n <= 1 || stride == 0 || (stride >= row_bytes && stride <= most && stride % element_bytes == 0)
               ? KVL_OK
               : fail(KVL_ERROR_STRIDE,
                      "%s_stride_bytes is %" PRId64 "; it must be 0, or a multiple of %" PRId64 " from a row's %" PRId64
                      " bytes to %" PRId64 ", KVL_MAX_EXTENT_BYTES / %" PRId64,
                      name, stride, element_bytes, row_bytes, most, n - 1);
}

// Rows of queries or outputs, in a format that callers may have.
struct CallerRows {
    const char *format_name, *token_name, *head_name;
    kvl_format format;
    uint32_t dim;
    int64_t token_stride, head_stride;
};

kvl_status check_caller_rows(const CallerRows &rows, int64_t n_tokens, uint32_t n_heads) {
    KVLANE_TRY(check_row_format(rows.format, rows.format_name));
    const int64_t bytes = format::row_bytes(rows.format, rows.dim), element = format::bits_of[rows.format] / 8;
    KVLANE_TRY(check_row_stride(rows.head_stride, n_heads, bytes, element, rows.head_name));
    const int64_t of_heads = n_heads * (n_heads > 1 && rows.head_stride ? rows.head_stride : bytes);
    return check_row_stride(rows.token_stride ? rows.token_stride : of_heads, n_tokens, bytes, element, rows.token_name);
}

// Of a sequence or a merge.
template <class Desc>
kvl_status check_output_rows(const kvl_attention &a, const Desc &desc, uint32_t n_queries) {
    const CallerRows out{"out_format",
                         "out_token",
                         "out_head",
                         desc.out_format,
                         a.v_head_dim,
                         desc.out_token_stride_bytes,
                         desc.out_head_stride_bytes};
    const CallerRows lse{"", "lse_token", "lse_head", KVL_F32, 1, desc.lse_token_stride_bytes, desc.lse_head_stride_bytes};
    KVLANE_TRY(check_not_null(desc.out, "out"));
    KVLANE_TRY(check_caller_rows(out, n_queries, a.n_query_heads));
    return desc.lse ? check_caller_rows(lse, n_queries, a.n_query_heads) : KVL_OK;
}

kvl_status check_rows_of(const kvl_attention &a, const kvl_sequence &s, uint32_t n_queries) {
    const CallerRows q{"q_format",           "q_token", "q_head", s.q_format, a.head_dim, s.q_token_stride_bytes,
                       s.q_head_stride_bytes};
    KVLANE_TRY(check_not_null(s.q, "q"));
    KVLANE_TRY(check_caller_rows(q, n_queries, a.n_query_heads));
    return s.range ? KVL_OK : check_output_rows(a, s, n_queries);
}

// A stride between n of a mask's rows, whose elements are so large; it may be 0. Of one row it is unused.
kvl_status check_mask_stride(int64_t stride, int64_t element_bytes, uint32_t n, const char *name) {
    const int64_t most = n == 1 ? 0 : KVL_MAX_EXTENT_BYTES / (n - 1);
    return n == 1 || (stride >= 0 && stride <= most && stride % element_bytes == 0)
               ? KVL_OK
               : fail(KVL_ERROR_STRIDE,
                      "%s_stride_bytes is %" PRId64 "; it must be 0 or a multiple of %" PRId64 " up to %" PRId64
                      ", KVL_MAX_EXTENT_BYTES / %u",
                      name, stride, element_bytes, most, n - 1);
}

kvl_status check_mask_alignment(const void *rows, uintptr_t element_bytes, const char *name) {
    return reinterpret_cast<uintptr_t>(rows) % element_bytes == 0
               ? KVL_OK
               : fail(KVL_ERROR_MASK, "%s are at %p; they must be aligned to %" PRIuPTR " bytes", name, rows, element_bytes);
}

kvl_status check_mask(const kvl_attention &a, const kvl_mask &mask, int64_t n_masked, uint32_t n_queries) {
    KVLANE_TRY(check_reserved(mask.reserved));
    if (mask.n_tokens < n_masked || mask.n_tokens > KVL_MAX_TOKENS) {
        return fail(KVL_ERROR_MASK, "n_tokens is %" PRId64 "; it must be from %" PRId64 ", the tokens it masks, to %" PRId64,
                    mask.n_tokens, n_masked, KVL_MAX_TOKENS);
    }
    KVLANE_TRY(check_mask_alignment(mask.bits, sizeof *mask.bits, "bits"));
    KVLANE_TRY(check_mask_alignment(mask.biases, sizeof *mask.biases, "biases"));
    if (mask.bits) {
        KVLANE_TRY(check_mask_stride(mask.bits_stride_bytes, sizeof *mask.bits, n_queries, "bits"));
        KVLANE_TRY(check_mask_stride(mask.bits_head_stride_bytes, sizeof *mask.bits, a.n_query_heads, "bits_head"));
    }
    if (mask.biases) {
        KVLANE_TRY(check_mask_stride(mask.biases_stride_bytes, sizeof *mask.biases, n_queries, "biases"));
        KVLANE_TRY(check_mask_stride(mask.biases_head_stride_bytes, sizeof *mask.biases, a.n_query_heads, "biases_head"));
    }
    return KVL_OK;
}

// s: of this version.
kvl_status check_sequence(const kvl_attention &a, const kvl_sequence &s, MemoryCheck *check_memory_of) {
    const uint32_t n_queries = std::max(1u, s.n_queries);
    int64_t n_masked = s.len;
    KVLANE_TRY(check_reserved(s.reserved));
    KVLANE_TRY(check_view(a, s, check_memory_of));
    if (s.range) {
        KVLANE_TRY(check_range(s.len, 0, KVL_MAX_TOKENS, "len, with a range,"));
        KVLANE_TRY_IN(check_header(*s.range, 0), "range: ");
        KVLANE_TRY_IN(check_sequence_range(*s.view, read_desc(*s.range)), "range: ");
        n_masked = std::min(s.len, s.range->end);
    } else {
        KVLANE_TRY(check_len_of(s));
    }
    KVLANE_TRY(check_range(s.causal_offset, -KVL_MAX_TOKENS, KVL_MAX_TOKENS, "causal_offset"));
    if (s.mask) {
        KVLANE_TRY_IN(check_header(*s.mask, 0), "mask: ");
        KVLANE_TRY_IN(check_mask(a, read_desc(*s.mask), n_masked, n_queries), "mask: ");
    }
    return check_rows_of(a, s, n_queries);
}

}  // namespace

kvl_status check_layer_shape(const kvl_layer_desc &layer) {
    return check_shape(layer, layer.v_head_dim ? layer.v_head_dim : layer.head_dim);
}

kvl_status check_token_rows(const kvl_rows &rows, uint32_t n_kv_heads, uint32_t head_dim, uint32_t v_head_dim) {
    KVLANE_TRY(check_reserved(rows.reserved));
    KVLANE_TRY(check_not_null(rows.k, "k"));
    KVLANE_TRY(check_not_null(rows.v, "v"));
    KVLANE_TRY(check_caller_rows(
        {"k_format", "k_token", "k_head", rows.k_format, head_dim, rows.k_token_stride_bytes, rows.k_head_stride_bytes},
        rows.n_tokens, n_kv_heads));
    return check_caller_rows(
        {"v_format", "v_token", "v_head", rows.v_format, v_head_dim, rows.v_token_stride_bytes, rows.v_head_stride_bytes},
        rows.n_tokens, n_kv_heads);
}

kvl_status check_merge_rows(const kvl_attention &a, const kvl_merge_desc &desc, uint32_t n_queries) {
    return check_output_rows(a, desc, n_queries);
}

kvl_status check_tile_pool(const kvl_view &pool) {
    KVLANE_TRY(check_tiles(pool));
    if (pool.block_tokens == 0) {
        return fail(KVL_ERROR_RANGE, "block_tokens is 0; a pool has blocks of a multiple of %d tokens", panel::tile_tokens);
    }
    KVLANE_TRY(check_whole_tiles(pool, pool.block_tokens, "block_tokens"));
    KVLANE_TRY(check_range(pool.n_spans, 1, 1, "n_spans"));
    KVLANE_TRY(check_not_null(pool.spans, "spans"));
    KVLANE_TRY_IN(check_span(pool, *pool.spans), "spans[0]: ");
    const int64_t n_blocks = pool.spans->n_tokens / pool.block_tokens;
    KVLANE_TRY(check_stride(tile_plane, pool, pool.k_block_stride_bytes, n_blocks, "block"));
    KVLANE_TRY(check_stride(tile_plane, pool, pool.k_token_stride_bytes, pool.block_tokens / panel::tile_tokens, "token"));
    return check_stride(tile_plane, pool, pool.k_head_stride_bytes, pool.n_kv_heads, "head");
}

kvl_status check_writable_tiles(const kvl_view &view) {
    KVLANE_TRY(check_tiles(view));
    KVLANE_TRY(check_range(view.len, 0, KVL_MAX_TOKENS, "len"));
    if (view.next) {
        KVLANE_TRY_IN(check_range(view.next->len, 0, view.len, "len"), "next: ");
    }
    return check_memory(view);
}

kvl_status check_addresses(const kvl_attention &a, const kvl_sequence &s) {
    return check_sequence(a, s, check_memory_addresses);
}

kvl_status check_sequences(const kvl_attention *attention, const DescArray<kvl_sequence> &sequences) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(sequences.n == 0 ? KVL_OK : check_not_null(sequences.first, "sequences"));
    for (uint32_t i = 0; i < sequences.n; ++i) {
        KVLANE_TRY_IN(sequences.check(i, known_sequence_flags), "sequences[%u]: ", i);
        KVLANE_TRY_IN(check_sequence(*attention, sequences[i], check_memory), "sequences[%u]: ", i);
    }
    return KVL_OK;
}

}  // namespace kvlane

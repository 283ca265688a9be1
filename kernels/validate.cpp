#include "validate.hpp"

#include <algorithm>
#include <cstddef>
#include <tuple>

#include "error.hpp"
#include "view.hpp"

namespace kvlane {
namespace {

// ---- Views

// One of a view's planes, as its fields are named.
struct Plane {
    const char *name;
    const char *first_name;
    const void *kvl_span::*first;
    const std::byte *(*row)(const kvl_view &, const kvl_span &, uint32_t kv_head, int64_t token, int64_t block);
    int64_t kvl_view::*token_stride, kvl_view::*head_stride, kvl_view::*block_stride;
};

constexpr Plane k_plane = {"k",
                           "view: span's k",
                           &kvl_span::k,
                           k_row,
                           &kvl_view::k_token_stride_bytes,
                           &kvl_view::k_head_stride_bytes,
                           &kvl_view::k_block_stride_bytes};
constexpr Plane v_plane = {"v",
                           "view: span's v",
                           &kvl_span::v,
                           v_row,
                           &kvl_view::v_token_stride_bytes,
                           &kvl_view::v_head_stride_bytes,
                           &kvl_view::v_block_stride_bytes};
constexpr Plane k_scale_plane = {"k_scale",
                                 "view: span's k_scales",
                                 &kvl_span::k_scales,
                                 k_scale,
                                 &kvl_view::k_scale_token_stride_bytes,
                                 &kvl_view::k_scale_head_stride_bytes,
                                 &kvl_view::k_scale_block_stride_bytes};
constexpr Plane v_scale_plane = {"v_scale",
                                 "view: span's v_scales",
                                 &kvl_span::v_scales,
                                 v_scale,
                                 &kvl_view::v_scale_token_stride_bytes,
                                 &kvl_view::v_scale_head_stride_bytes,
                                 &kvl_view::v_scale_block_stride_bytes};

// check(plane, bytes of its rows) for every plane that the view has.
template <class Check>
kvl_status check_planes(const kvl_view &view, Check &&check) {
    KVLANE_TRY(check(k_plane, format::row_bytes(view.k_format, view.head_dim)));
    KVLANE_TRY(check(v_plane, format::row_bytes(view.v_format, view.v_head_dim)));
    if (format::is_scaled(view.k_format)) {
        KVLANE_TRY(check(k_scale_plane, format::entry_bytes(view.k_format, view.head_dim)));
    }
    return format::is_scaled(view.v_format) ? check(v_scale_plane, format::entry_bytes(view.v_format, view.v_head_dim))
                                            : KVL_OK;
}

kvl_status check_geometry(uint32_t value, uint32_t expected, const char *name) {
    return value == expected
               ? KVL_OK
               : fail(KVL_ERROR_GEOMETRY, "view: %s is %u; the attention object has %u", name, value, expected);
}

// Integers may be joined by tokens that are kept finer.
kvl_status check_stored(kvl_format value, kvl_format expected, const char *name) {
    return value == format::finer_of(expected) ? KVL_OK : check_geometry(value, expected, name);
}

// Rows overlap where one of their strides is less than they are long. That between what there is one of is unused.
kvl_status check_stride(int64_t stride, int64_t row_bytes, int64_t n, const char *plane, const char *of) {
    return n <= 1 || stride >= row_bytes
               ? KVL_OK
               : fail(KVL_ERROR_STRIDE,
                      "view: %s_%s_stride_bytes is %" PRId64 "; it must be at least a row's %" PRId64 " bytes", plane, of,
                      stride, row_bytes);
}

kvl_status check_span(const kvl_view &view, const kvl_span &span) {
    KVLANE_TRY(check_range(span.n_tokens, 0, KVL_MAX_TOKENS, "view: span's n_tokens"));
    return span.n_tokens == 0 ? KVL_OK : check_planes(view, [&](const Plane &plane, int64_t) {
        return check_not_null(span.*plane.first, plane.first_name);
    });
}

kvl_status check_held(const kvl_view &view, int64_t n_tokens, const char *holders) {
    return n_tokens >= own_tokens(view)
               ? KVL_OK
               : fail(KVL_ERROR_LENGTH,
                      "view: len is %" PRId64 ", of which %" PRId64 " are its own; its %s hold %" PRId64 " tokens", view.len,
                      own_tokens(view), holders, n_tokens);
}

// longest: the most visible tokens of one span.
kvl_status check_spans(const kvl_view &view, int64_t &longest) {
    const int64_t own = own_tokens(view);
    int64_t n_tokens = 0;
    for (uint32_t i = 0; i < view.n_spans && n_tokens < own; ++i) {
        KVLANE_TRY(check_span(view, view.spans[i]));
        longest = std::max(longest, std::min(view.spans[i].n_tokens, own - n_tokens));
        n_tokens += view.spans[i].n_tokens;
    }
    return check_held(view, n_tokens, "spans");
}

// Blocks that hold the view's own tokens.
struct Blocks {
    const int32_t *begin, *end;
    int32_t least, most;
};

Blocks visible_blocks(const kvl_view &view) {
    const int64_t n = (own_tokens(view) + view.block_tokens - 1) / view.block_tokens;
    Blocks blocks{view.blocks, view.blocks + n, 0, 0};
    if (n > 0) {
        blocks.least = blocks.most = *view.blocks;
    }
    for (const int32_t *block = blocks.begin; block < blocks.end; ++block) {
        blocks.least = std::min(blocks.least, *block);
        blocks.most = std::max(blocks.most, *block);
    }
    return blocks;
}

// longest: the most visible tokens of one block.
kvl_status check_blocks(const kvl_view &view, int64_t &longest) {
    if (view.block_tokens < KVL_MIN_BLOCK_TOKENS) {
        return fail(KVL_ERROR_RANGE, "view: block_tokens is %u; with blocks it must be at least %d", view.block_tokens,
                    KVL_MIN_BLOCK_TOKENS);
    }
    KVLANE_TRY(check_range(view.n_spans, 1, 1, "view: n_spans, with blocks,"));
    KVLANE_TRY(check_span(view, *view.spans));
    KVLANE_TRY(view.n_blocks == 0 ? KVL_OK : check_not_null(view.blocks, "view: blocks"));
    KVLANE_TRY(check_held(view, int64_t{view.n_blocks} * view.block_tokens, "blocks"));
    const int64_t n_blocks = view.spans->n_tokens / view.block_tokens;
    const Blocks blocks = visible_blocks(view);
    if (blocks.begin < blocks.end && (blocks.least < 0 || blocks.most >= n_blocks)) {
        const int32_t *wrong = std::find_if(blocks.begin, blocks.end, [=](int32_t b) { return b < 0 || b >= n_blocks; });
        return fail(KVL_ERROR_BLOCK,
                    "view: blocks[%td] is %" PRId32 "; it must be from 0 to %" PRId64 ", the last of the span's %" PRId64
                    " tokens",
                    wrong - blocks.begin, *wrong, n_blocks - 1, view.spans->n_tokens);
    }
    KVLANE_TRY(check_planes(view, [&](const Plane &plane, int64_t row_bytes) {
        return check_stride(view.*plane.block_stride, row_bytes, blocks.most + int64_t{1}, plane.name, "block");
    }));
    longest = std::min<int64_t>(view.block_tokens, own_tokens(view));
    return KVL_OK;
}

// Where the view's tokens are, of which it may have none.
kvl_status check_memory(const kvl_view &view) {
    KVLANE_TRY(view.n_spans == 0 ? KVL_OK : check_not_null(view.spans, "view: spans"));
    int64_t longest = 0;
    const bool has_blocks = view.block_tokens > 0 || view.n_blocks > 0;
    KVLANE_TRY(has_blocks ? check_blocks(view, longest) : check_spans(view, longest));
    return longest == 0 ? KVL_OK : check_planes(view, [&](const Plane &plane, int64_t row_bytes) {
        KVLANE_TRY(check_stride(view.*plane.token_stride, row_bytes, longest, plane.name, "token"));
        return check_stride(view.*plane.head_stride, row_bytes, view.n_kv_heads, plane.name, "head");
    });
}

// Of a view alone, not of its next ones.
kvl_status check_part(const kvl_attention &a, const kvl_view &view) {
    KVLANE_TRY(check_desc(&view, 0, "view"));
    KVLANE_TRY(check_reserved(view.reserved, "view"));
    KVLANE_TRY(check_geometry(view.n_kv_heads, a.n_kv_heads, "n_kv_heads"));
    KVLANE_TRY(check_geometry(view.head_dim, a.head_dim, "head_dim"));
    KVLANE_TRY(check_geometry(view.v_head_dim, a.v_head_dim, "v_head_dim"));
    KVLANE_TRY(check_stored(view.k_format, a.k_format, "k_format"));
    KVLANE_TRY(check_stored(view.v_format, a.v_format, "v_format"));
    KVLANE_TRY(check_geometry(format::rotation_of(view.k_rotation, a.k_format, true), a.k_rotation, "k_rotation"));
    return check_geometry(format::rotation_of(view.v_rotation, a.v_format, false), a.v_rotation, "v_rotation");
}

// Every view in the row has tokens of its own, so that the row ends.
kvl_status check_view(const kvl_attention &a, const kvl_view *view) {
    KVLANE_TRY(check_not_null(view, "view"));
    KVLANE_TRY(check_part(a, *view));
    KVLANE_TRY(check_range(view->len, 0, KVL_MAX_TOKENS, "view: len"));
    for (; view->next; view = view->next) {
        KVLANE_TRY(check_part(a, *view->next));
        KVLANE_TRY(check_range(view->next->len, 1, view->len - 1, "view: next's len"));
        KVLANE_TRY(check_memory(*view));
    }
    return check_memory(*view);
}

kvl_status check_sequence_range(const kvl_sequence &s) {
    const kvl_range &range = *s.range;
    KVLANE_TRY(check_desc(&range, 0, "range"));
    KVLANE_TRY(check_reserved(range.reserved, "range"));
    KVLANE_TRY(check_range(s.len, 0, KVL_MAX_TOKENS, "sequence: len, with a range,"));
    KVLANE_TRY(check_range(range.view_first, 0, KVL_MAX_TOKENS - s.view->len, "range: view_first"));
    KVLANE_TRY(check_range(range.first, range.view_first, range.view_first + s.view->len, "range: first"));
    KVLANE_TRY(check_range(range.end, range.first, range.view_first + s.view->len, "range: end"));
    KVLANE_TRY(check_not_null(range.out.m, "range: out's m"));
    KVLANE_TRY(check_not_null(range.out.l, "range: out's l"));
    return check_not_null(range.out.o, "range: out's o");
}

kvl_status check_whole(const kvl_sequence &s) {
    if (s.len < 0 || s.len > s.view->len) {
        return fail(KVL_ERROR_LENGTH, "sequence: len is %" PRId64 "; it must be from 0 to the view's %" PRId64, s.len,
                    s.view->len);
    }
    return check_not_null(s.out, "sequence: out");
}

kvl_status check_mask_stride(int64_t stride, int64_t unit, uint32_t n_queries, const char *name) {
    return n_queries == 1 || (stride >= 0 && stride % unit == 0)
               ? KVL_OK
               : fail(KVL_ERROR_MASK, "mask: %s is %" PRId64 "; it must be 0 or a positive multiple of %" PRId64, name,
                      stride, unit);
}

kvl_status check_mask(const kvl_sequence &s) {
    const kvl_mask &mask = *s.mask;
    KVLANE_TRY(check_desc(&mask, 0, "mask"));
    KVLANE_TRY(check_reserved(mask.reserved, "mask"));
    const int64_t end = s.range ? std::min(s.len, s.range->end) : s.len;
    if (mask.n_tokens < end || mask.n_tokens > KVL_MAX_TOKENS) {
        return fail(KVL_ERROR_MASK,
                    "mask: n_tokens is %" PRId64 "; it must be from %" PRId64 ", what is asked about, to %" PRId64,
                    mask.n_tokens, end, KVL_MAX_TOKENS);
    }
    KVLANE_TRY(mask.bits ? check_mask_stride(mask.bits_stride_bytes, sizeof *mask.bits, queries_of(s), "bits_stride_bytes")
                         : KVL_OK);
    return mask.biases
               ? check_mask_stride(mask.biases_stride_bytes, sizeof *mask.biases, queries_of(s), "biases_stride_bytes")
               : KVL_OK;
}

kvl_status check_sequence(const kvl_attention &a, const kvl_sequence &s) {
    KVLANE_TRY(check_desc(&s, 0, "sequence"));
    KVLANE_TRY(check_view(a, s.view));
    KVLANE_TRY(s.range ? check_sequence_range(s) : check_whole(s));
    if (s.n_queries > 1 && s.n_queries > s.len) {
        return fail(KVL_ERROR_LENGTH, "sequence: n_queries is %u; it must be at most its len, %" PRId64, s.n_queries, s.len);
    }
    KVLANE_TRY(s.mask ? check_mask(s) : KVL_OK);
    return check_not_null(s.q, "sequence: q");
}

// ---- Overlaps

// Addresses [begin, end); none where these are equal, and then 0.
struct Range {
    uintptr_t begin = 0;
    uintptr_t end = 0;

    bool meets(const Range &other) const { return begin < other.end && other.begin < end; }
    void cover(const Range &other) {
        if (other.end > 0) {
            *this = end > 0 ? Range{std::min(begin, other.begin), std::max(end, other.end)} : other;
        }
    }
};

Range range_at(const void *first, uint64_t bytes) {
    const auto begin = reinterpret_cast<uintptr_t>(first);
    return bytes > 0 ? Range{begin, begin + bytes} : Range{};
}

uint64_t rows_of(const kvl_attention &a, const kvl_sequence &s) { return uint64_t{queries_of(s)} * a.n_query_heads; }

Range query_of(const kvl_attention &a, const kvl_sequence &s) {
    return range_at(s.q, rows_of(a, s) * a.head_dim * sizeof(float));
}

// What a call writes of one kind.
struct Outputs {
    const char *name;
    float *(*first)(const kvl_sequence &);  // null: none
    bool has_dim;                           // v_head_dim elements a row, not one
    Range hull = {};                        // of those met so far: what lies outside needs no comparison with each

    Range of(const kvl_attention &a, const kvl_sequence &s) const {
        const float *const at = first(s);
        return range_at(at, at ? rows_of(a, s) * (has_dim ? a.v_head_dim : 1) * sizeof(float) : 0);
    }
};

struct Written {
    const kvl_attention &attention;
    const kvl_sequence *sequences;
    Range workspace;
    Outputs outputs[5] = {
        {"out", [](const kvl_sequence &s) { return s.range ? nullptr : s.out; }, true},
        {"lse", [](const kvl_sequence &s) { return s.range ? nullptr : s.lse; }, false},
        {"range's m", [](const kvl_sequence &s) { return s.range ? s.range->out.m : nullptr; }, false},
        {"range's l", [](const kvl_sequence &s) { return s.range ? s.range->out.l : nullptr; }, false},
        {"range's o", [](const kvl_sequence &s) { return s.range ? s.range->out.o : nullptr; }, true},
    };
};

kvl_status overlap(const char *written, uint32_t i, const Range &at, const char *name, uint32_t of, const Range &with) {
    return fail(KVL_ERROR_OVERLAP,
                "sequences[%" PRIu32 "]: %s is from 0x%" PRIxPTR " to 0x%" PRIxPTR
                "; it may overlap nothing, and sequences[%" PRIu32 "]'s %s is from 0x%" PRIxPTR " to 0x%" PRIxPTR,
                i, written, at.begin, at.end, of, name, with.begin, with.end);
}

// Of the outputs of the first n sequences.
kvl_status check_clear_of(const Written &w, const Outputs &outputs, uint32_t n, const Range &range, uint32_t of,
                          const char *name) {
    for (uint32_t i = 0; range.meets(outputs.hull) && i < n; ++i) {
        const Range output = outputs.of(w.attention, w.sequences[i]);
        if (range.meets(output)) {
            return overlap(outputs.name, i, output, name, of, range);
        }
    }
    return KVL_OK;
}

kvl_status check_clear_of_workspace(const Written &w, const Range &range, uint32_t of, const char *name) {
    return range.meets(w.workspace)
               ? fail(KVL_ERROR_OVERLAP,
                      "workspace is from 0x%" PRIxPTR " to 0x%" PRIxPTR "; it may overlap nothing, and sequences[%" PRIu32
                      "]'s %s is from 0x%" PRIxPTR " to 0x%" PRIxPTR,
                      w.workspace.begin, w.workspace.end, of, name, range.begin, range.end)
               : KVL_OK;
}

// That a sequence's outputs are clear of those before it, of its own others and of the workspace. Outputs of one kind that
// stand in the order of their sequences, or against it, need no comparison with each other.
kvl_status check_outputs(Written &w, uint32_t i) {
    for (Outputs &outputs : w.outputs) {
        const Range range = outputs.of(w.attention, w.sequences[i]);
        for (const Outputs &others : w.outputs) {
            KVLANE_TRY(check_clear_of(w, others, &others < &outputs ? i + 1 : i, range, i, outputs.name));
        }
        outputs.hull.cover(range);
        KVLANE_TRY(check_clear_of_workspace(w, range, i, outputs.name));
    }
    return KVL_OK;
}

kvl_status check_read(const Written &w, uint32_t n_sequences, const Range &range, uint32_t of, const char *name) {
    for (const Outputs &outputs : w.outputs) {
        KVLANE_TRY(check_clear_of(w, outputs, n_sequences, range, of, name));
    }
    return check_clear_of_workspace(w, range, of, name);
}

// Of a mask: rows of all queries, with what is between them.
kvl_status check_mask_apart(const Written &w, uint32_t n_sequences, uint32_t of) {
    const kvl_sequence &s = w.sequences[of];
    const kvl_mask &mask = *s.mask;
    const auto rows_at = [&](const void *first, int64_t stride, int64_t row_bytes) {
        return range_at(first, first ? static_cast<uint64_t>((int64_t{queries_of(s)} - 1) * stride + row_bytes) : 0);
    };
    const Range bits = rows_at(mask.bits, mask.bits_stride_bytes, (mask.n_tokens + 63) / 64 * int64_t{sizeof *mask.bits});
    KVLANE_TRY(check_read(w, n_sequences, bits, of, "mask's bits"));
    const Range biases = rows_at(mask.biases, mask.biases_stride_bytes, mask.n_tokens * int64_t{sizeof *mask.biases});
    return check_read(w, n_sequences, biases, of, "mask's biases");
}

// The rows of a span's visible tokens, or of blocks, with what is between them.
kvl_status check_rows(const Written &w, uint32_t n_sequences, uint32_t of, const kvl_view &view, const kvl_span &span,
                      int64_t n_tokens, int64_t first_block, int64_t last_block) {
    return check_planes(view, [&](const Plane &plane, int64_t row_bytes) {
        const std::byte *first = plane.row(view, span, 0, 0, first_block);
        const std::byte *last = plane.row(view, span, view.n_kv_heads - 1, n_tokens - 1, last_block);
        return check_read(w, n_sequences, range_at(first, static_cast<uint64_t>(last - first + row_bytes)), of, plane.name);
    });
}

kvl_status check_view_apart(const Written &w, uint32_t n_sequences, uint32_t of, const kvl_view &view) {
    int64_t left = own_tokens(view);
    if (left > 0 && view.block_tokens > 0) {
        const Blocks blocks = visible_blocks(view);
        return check_rows(w, n_sequences, of, view, *view.spans, std::min<int64_t>(view.block_tokens, left), blocks.least,
                          blocks.most);
    }
    for (const kvl_span *span = view.spans; left > 0; ++span) {
        const int64_t n_tokens = std::min(span->n_tokens, left);
        KVLANE_TRY(n_tokens == 0 ? KVL_OK : check_rows(w, n_sequences, of, view, *span, n_tokens, 0, 0));
        left -= n_tokens;
    }
    return KVL_OK;
}

}  // namespace

kvl_status check_sequences(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(n_sequences == 0 ? KVL_OK : check_not_null(sequences, "sequences"));
    for (uint32_t i = 0; i < n_sequences; ++i) {
        KVLANE_TRY(check_sequence(*attention, sequences[i]));
    }
    return KVL_OK;
}

kvl_status check_overlaps(const kvl_attention &attention, const kvl_sequence *sequences, uint32_t n_sequences,
                          const void *workspace, uint64_t workspace_bytes) {
    Written w{attention, sequences, range_at(workspace, workspace_bytes)};
    for (uint32_t i = 0; i < n_sequences; ++i) {
        KVLANE_TRY(check_outputs(w, i));
    }
    for (uint32_t i = 0; i < n_sequences; ++i) {
        KVLANE_TRY(check_read(w, n_sequences, query_of(attention, sequences[i]), i, "q"));
        KVLANE_TRY(sequences[i].mask ? check_mask_apart(w, n_sequences, i) : KVL_OK);
        for (const kvl_view *view = sequences[i].view; view; view = view->next) {
            KVLANE_TRY(check_view_apart(w, n_sequences, i, *view));
        }
    }
    return KVL_OK;
}

kvl_status check_merge_overlaps(const kvl_attention &attention, const kvl_partial *partials, uint32_t n_partials,
                                uint32_t n_queries, const float *out, const float *lse) {
    const uint64_t rows = uint64_t{n_queries} * attention.n_query_heads;
    const uint64_t row_bytes = rows * sizeof(float), o_bytes = row_bytes * attention.v_head_dim;
    const Range of_out = range_at(out, o_bytes), of_lse = range_at(lse, lse ? row_bytes : 0);
    if (of_out.meets(of_lse)) {
        return fail(KVL_ERROR_OVERLAP,
                    "out is from 0x%" PRIxPTR " to 0x%" PRIxPTR "; it may not overlap lse, from 0x%" PRIxPTR, of_out.begin,
                    of_out.end, of_lse.begin);
    }
    for (uint32_t i = 0; i < n_partials; ++i) {
        for (const auto &[name, first, bytes] :
             {std::tuple{"m", partials[i].m, row_bytes}, {"l", partials[i].l, row_bytes}, {"o", partials[i].o, o_bytes}}) {
            const Range range = range_at(first, bytes);
            if (range.meets(of_out) || range.meets(of_lse)) {
                return fail(KVL_ERROR_OVERLAP,
                            "partials[%" PRIu32 "]: %s is from 0x%" PRIxPTR " to 0x%" PRIxPTR "; it may not overlap %s", i,
                            name, range.begin, range.end, range.meets(of_out) ? "out" : "lse");
            }
        }
    }
    return KVL_OK;
}

}  // namespace kvlane

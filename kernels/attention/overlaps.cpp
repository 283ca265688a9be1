// Outputs are sorted by address; what is read is then looked up among them. All of it grows as n log n.

#include "overlaps.hpp"

#include <algorithm>
#include <array>
#include <tuple>

#include "../mask.hpp"
#include "../planes.hpp"

namespace kvlane {
namespace {

// Addresses [begin, end); none where these are equal, and then 0.
struct Range {
    uintptr_t begin = 0;
    uintptr_t end = 0;

    bool meets(const Range &other) const { return begin < other.end && other.begin < end; }
};

Range range_at(const void *first, uint64_t bytes) {
    const auto begin = reinterpret_cast<uintptr_t>(first);
    return bytes > 0 ? Range{begin, begin + bytes} : Range{};
}

template <class T>
Range array_at(const T *first, uint64_t n) {
    return range_at(first, first ? n * sizeof(T) : 0);
}

template <class Desc>
Range desc_at(const Desc *desc) {
    return range_at(desc, desc ? desc->struct_size : 0);
}

Range range_of(const Sequences &sequences) { return range_at(sequences.array().first, sequences.array().bytes()); }

// visit(range) for each contiguous piece of rows [n_queries][n_heads], up to the first failure.
template <class Visit>
kvl_status visit_pieces(const StridedRows &rows, uint32_t n_queries, uint32_t n_heads, Visit &&visit) {
    if (!rows.first) {
        return KVL_OK;
    }
    const bool heads_follow = rows.head_stride == rows.row_bytes;
    const int64_t token_bytes = heads_follow ? n_heads * rows.row_bytes : rows.row_bytes;
    const bool tokens_follow = rows.token_stride == token_bytes;
    const int64_t piece_bytes = tokens_follow ? n_queries * token_bytes : token_bytes;
    for (uint32_t query = 0; query < (tokens_follow ? 1 : n_queries); ++query) {
        for (uint32_t head = 0; head < (heads_follow ? 1 : n_heads); ++head) {
            KVLANE_TRY(visit(range_at(rows.at(query, head), static_cast<uint64_t>(piece_bytes))));
        }
    }
    return KVL_OK;
}

// From the first row to the last.
Range rows_extent(const StridedRows &rows, int64_t n_tokens, uint32_t n_heads) {
    const std::byte *last = rows.at(n_tokens - 1, n_heads - 1);
    return range_at(rows.first, static_cast<uint64_t>(last - rows.first + rows.row_bytes));
}

// m or l of the partial states of a range.
StridedRows partial_rows(const kvl_attention &a, const Sequence &s, float *kvl_partial::*part) {
    return consecutive_rows(s.range ? s.range->out.*part : nullptr, 1, a.n_query_heads);
}

// What a call writes of one kind.
struct OutputKind {
    const char *name;
    StridedRows (*rows)(const kvl_attention &, const Sequence &);  // `first` may be null: none
};

constexpr OutputKind output_kinds[] = {
    {"out", [](const kvl_attention &, const Sequence &s) { return s.range ? StridedRows{} : s.out; }},
    {"lse", [](const kvl_attention &, const Sequence &s) { return s.lse; }},
    {"range's out.m", [](const kvl_attention &a, const Sequence &s) { return partial_rows(a, s, &kvl_partial::m); }},
    {"range's out.l", [](const kvl_attention &a, const Sequence &s) { return partial_rows(a, s, &kvl_partial::l); }},
    {"range's out.o", [](const kvl_attention &, const Sequence &s) { return s.range ? s.out : StridedRows{}; }},
};

// visit(range, kind) for each contiguous piece of a sequence's outputs.
template <class Visit>
kvl_status visit_outputs(const kvl_attention &a, const Sequence &s, Visit &&visit) {
    for (uint32_t kind = 0; kind < std::size(output_kinds); ++kind) {
        KVLANE_TRY(visit_pieces(output_kinds[kind].rows(a, s), s.n_queries, a.n_query_heads,
                                [&](const Range &range) { return visit(range, kind); }));
    }
    return KVL_OK;
}

// visit(range, name) for the rows of tokens, and what is between them, by plane.
template <class Visit>
kvl_status visit_rows(const kvl_view &view, const kvl_span &span, int64_t n_tokens, int64_t first_block, int64_t last_block,
                      Visit &&visit) {
    return check_planes(view, [&](const ViewPlane &plane) {
        const std::byte *first = plane.row(view, span, 0, 0, first_block);
        const std::byte *last = plane.row(view, span, view.n_kv_heads - 1, n_tokens - 1, last_block);
        return visit(range_at(first, static_cast<uint64_t>(last - first + plane.row_bytes(view))), plane.name);
    });
}

// The same for all own tokens of a view.
template <class Visit>
kvl_status visit_tokens(const kvl_view &view, Visit &&visit) {
    int64_t left = own_tokens(view);
    if (left > 0 && view.block_tokens > 0) {
        const Blocks blocks = visible_blocks(view);
        return visit_rows(view, *view.spans, std::min<int64_t>(view.block_tokens, left), blocks.least, blocks.most, visit);
    }
    for (const kvl_span *span = view.spans; left > 0; ++span) {
        const int64_t n_tokens = std::min(span->n_tokens, left);
        KVLANE_TRY(n_tokens == 0 ? KVL_OK : visit_rows(view, *span, n_tokens, 0, 0, visit));
        left -= n_tokens;
    }
    return KVL_OK;
}

// What says where a view's own tokens are.
struct ViewArrays {
    Range view, spans, blocks;

    explicit ViewArrays(const kvl_view &v) : view(desc_at(&v)) {
        int64_t left = own_tokens(v);
        if (left > 0 && v.block_tokens > 0) {
            spans = array_at(v.spans, 1);
            blocks = array_at(v.blocks, static_cast<uint64_t>(n_visible_blocks(v)));
            return;
        }
        const kvl_span *end = v.spans;
        for (; left > 0; ++end) {
            left -= end->n_tokens;
        }
        spans = array_at(v.spans, static_cast<uint64_t>(end - v.spans));
    }

    template <class Visit>
    kvl_status visit(Visit &&visit_one) const {
        KVLANE_TRY(visit_one(view, "view"));
        KVLANE_TRY(visit_one(spans, "view's spans"));
        return visit_one(blocks, "view's blocks");
    }
};

Range offset_range(const kvl_view &view) {
    return array_at(k_offset_of(view, 0), uint64_t{view.n_kv_heads} * view.head_dim);
}

template <class Visit>
kvl_status visit_view(const kvl_view &view, Visit &&visit) {
    KVLANE_TRY(ViewArrays(view).visit(visit));
    KVLANE_TRY(visit(offset_range(view), "view's k_offset"));
    return visit_tokens(view, visit);
}

// Rows of all queries, with what is between them.
template <class Visit>
kvl_status visit_mask(const kvl_mask &mask, uint32_t n_queries, uint32_t n_heads, Visit &&visit) {
    const auto rows_at = [&](const void *first, int64_t stride, int64_t head_stride, int64_t row_bytes) {
        const auto between = [](uint32_t n, int64_t bytes) { return n > 1 ? static_cast<uint64_t>((n - 1) * bytes) : 0; };
        const uint64_t bytes = between(n_queries, stride) + between(n_heads, head_stride) + static_cast<uint64_t>(row_bytes);
        return range_at(first, first ? bytes : 0);
    };
    const int64_t n_words = (mask.n_tokens + word_tokens - 1) / word_tokens;
    KVLANE_TRY(
        visit(rows_at(mask.bits, mask.bits_stride_bytes, mask.bits_head_stride_bytes, n_words * int64_t{sizeof *mask.bits}),
              "mask's bits"));
    return visit(rows_at(mask.biases, mask.biases_stride_bytes, mask.biases_head_stride_bytes,
                         mask.n_tokens * int64_t{sizeof *mask.biases}),
                 "mask's biases");
}

// visit(range, name) for all that a sequence has read, up to the first failure.
template <class Visit>
kvl_status visit_reads(const kvl_attention &a, const Sequence &s, Visit &&visit) {
    KVLANE_TRY(visit_pieces(s.q, s.n_queries, a.n_query_heads, [&](const Range &range) { return visit(range, "q"); }));
    KVLANE_TRY(visit(desc_at(s.described->range), "range"));
    KVLANE_TRY(visit(desc_at(s.described->mask), "mask"));
    KVLANE_TRY(s.mask ? visit_mask(*s.mask, s.n_queries, a.n_query_heads, visit) : KVL_OK);
    uint32_t index = 0;
    for (const kvl_view *view = s.view; view; view = view->next, ++index) {
        KVLANE_TRY_IN(visit_view(*view, visit), "view[%" PRIu32 "]: ", index);
    }
    return KVL_OK;
}

// In the words of an error: a sequence's, or the call's own.
struct Whose {
    explicit Whose(uint32_t sequence, const char *name) {
        std::snprintf(text, sizeof text, "sequences[%" PRIu32 "]'s %s", sequence, name);
    }
    char text[48];
};

kvl_status overlap(const char *written, const Range &at, const char *other, const Range &with) {
    return fail(KVL_ERROR_OVERLAP,
                "%s is from 0x%" PRIxPTR " to 0x%" PRIxPTR "; it may overlap nothing, and %s is from 0x%" PRIxPTR
                " to 0x%" PRIxPTR,
                written, at.begin, at.end, other, with.begin, with.end);
}

// Memory that the call writes for itself.
struct OwnMemory {
    Range workspace, n_tasks;
};

kvl_status check_clear_of(const OwnMemory &own, const kvl_attention &a, const Sequences &sequences) {
    for (uint32_t i = 0; i < sequences.n(); ++i) {
        const Sequence s = sequences[i];
        const auto check = [&](const Range &range, const char *name) {
            KVLANE_TRY(range.meets(own.workspace) ? overlap("workspace", own.workspace, Whose(i, name).text, range)
                                                  : KVL_OK);
            return range.meets(own.n_tasks) ? overlap("n_tasks", own.n_tasks, Whose(i, name).text, range) : KVL_OK;
        };
        KVLANE_TRY(visit_reads(a, s, check));
        KVLANE_TRY(
            visit_outputs(a, s, [&](const Range &range, uint32_t kind) { return check(range, output_kinds[kind].name); }));
    }
    return KVL_OK;
}

// Outputs in the order of their addresses, none of which overlaps another.
struct SortedOutputs {
    const Output *begin;
    const Output *end;

    // Null where there is none.
    const Output *find(const Range &range) const {
        const Output *first =
            std::partition_point(begin, end, [&](const Output &output) { return output.end <= range.begin; });
        return first < end && first->begin < range.end ? first : nullptr;
    }
};

kvl_status fail_output(const Output &output, const char *other, const Range &with) {
    return overlap(Whose(output.sequence, output_kinds[output.kind].name).text, {output.begin, output.end}, other, with);
}

kvl_status sort_outputs(const kvl_attention &a, std::span<const Sequence> sequences, Output *outputs,
                        SortedOutputs &sorted) {
    Output *end = outputs;
    for (uint32_t i = 0; i < sequences.size(); ++i) {
        KVLANE_TRY(visit_outputs(a, sequences[i], [&](const Range &range, uint32_t kind) {
            *end++ = {range.begin, range.end, i, kind};
            return KVL_OK;
        }));
    }
    std::sort(outputs, end, [](const Output &x, const Output &y) { return x.begin < y.begin; });
    const Output *second =
        std::adjacent_find(outputs, end, [](const Output &x, const Output &y) { return y.begin < x.end; });
    if (second != end) {
        const Output &first = *second++;
        return fail_output(first, Whose(second->sequence, output_kinds[second->kind].name).text,
                           {second->begin, second->end});
    }
    sorted = {outputs, end};
    return KVL_OK;
}

// One of the arrays of a partial.
struct PartialArray {
    float *kvl_partial::*array;
    const char *name, *name_of_out;
    Range range;
};

std::array<PartialArray, 3> arrays_of(const kvl_partial &partial, uint64_t n_rows, uint32_t v_head_dim) {
    return {{{&kvl_partial::m, "its m", "out.m", array_at(partial.m, n_rows)},
             {&kvl_partial::l, "its l", "out.l", array_at(partial.l, n_rows)},
             {&kvl_partial::o, "its o", "out.o", array_at(partial.o, n_rows * v_head_dim)}}};
}

}  // namespace

uint64_t n_outputs(const kvl_attention &a, const Sequence &s) {
    uint64_t n = 0;
    (void)visit_outputs(a, s, [&](const Range &, uint32_t) { return ++n, KVL_OK; });
    return n;
}

uint64_t max_outputs(const kvl_attention &a, uint32_t n_queries) {
    return std::max<uint64_t>(3, 2 * uint64_t{n_queries} * a.n_query_heads);  // a range's, or each row of out and lse
}

kvl_status check_own_memory(const kvl_attention &a, const Sequences &sequences, const uint32_t *n_tasks,
                            const void *workspace, uint64_t workspace_bytes) {
    const OwnMemory own{range_at(workspace, workspace_bytes), array_at(n_tasks, 1)};
    const Range of_sequences = range_of(sequences);
    KVLANE_TRY(own.workspace.meets(own.n_tasks) ? overlap("workspace", own.workspace, "n_tasks", own.n_tasks) : KVL_OK);
    for (const auto &[name, range] : {std::pair{"workspace", own.workspace}, {"n_tasks", own.n_tasks}}) {
        KVLANE_TRY(range.meets(of_sequences) ? overlap(name, range, "sequences", of_sequences) : KVL_OK);
    }
    return check_clear_of(own, a, sequences);
}

kvl_status check_outputs(const kvl_attention &a, const Sequences &described, std::span<const Sequence> sequences,
                         Output *scratch) {
    const Range of_sequences = range_of(described);
    SortedOutputs outputs;
    KVLANE_TRY(sort_outputs(a, sequences, scratch, outputs));
    if (const Output *output = outputs.find(of_sequences)) {
        return fail_output(*output, "sequences", of_sequences);
    }
    for (uint32_t i = 0; i < sequences.size(); ++i) {
        KVLANE_TRY(visit_reads(a, sequences[i], [&](const Range &range, const char *name) {
            const Output *output = outputs.find(range);
            return output ? fail_output(*output, Whose(i, name).text, range) : KVL_OK;
        }));
    }
    return KVL_OK;
}

kvl_status check_write_overlaps(const kvl_view &view, int64_t n_tokens, const StridedRows &k, const StridedRows &v) {
    const Range of_k = rows_extent(k, n_tokens, view.n_kv_heads), of_v = rows_extent(v, n_tokens, view.n_kv_heads);
    const Range of_offset = offset_range(view);
    const ViewArrays arrays(view);
    return visit_tokens(view, [&](const Range &tiles, const char *) {
        const auto check = [&](const Range &read, const char *name) {
            return tiles.meets(read) ? overlap("memory of tiles", tiles, name, read) : KVL_OK;
        };
        KVLANE_TRY(check(of_k, "k"));
        KVLANE_TRY(check(of_v, "v"));
        KVLANE_TRY(check(of_offset, "k_offset"));
        return arrays.visit(check);
    });
}

kvl_status check_slot_overlaps(const kvl_view &pool, const int64_t *slots, int64_t n_tokens, const StridedRows &k,
                               const StridedRows &v) {
    const int64_t n_blocks = pool.spans->n_tokens / pool.block_tokens;
    const std::pair<const char *, Range> read[] = {{"k", rows_extent(k, n_tokens, pool.n_kv_heads)},
                                                   {"v", rows_extent(v, n_tokens, pool.n_kv_heads)},
                                                   {"slots", array_at(slots, static_cast<uint64_t>(n_tokens))},
                                                   {"pool", desc_at(&pool)},
                                                   {"pool's spans", array_at(pool.spans, 1)},
                                                   {"pool's k_offset", offset_range(pool)}};
    return n_blocks == 0
               ? KVL_OK
               : visit_rows(pool, *pool.spans, pool.block_tokens, 0, n_blocks - 1, [&](const Range &tiles, const char *) {
                     for (const auto &[name, range] : read) {
                         KVLANE_TRY(tiles.meets(range) ? overlap("memory of tiles", tiles, name, range) : KVL_OK);
                     }
                     return KVL_OK;
                 });
}

kvl_status check_merge_overlaps(const kvl_attention &a, const kvl_merge_desc &desc, const MergedRows &to,
                                uint32_t n_queries) {
    const uint64_t rows = uint64_t{n_queries} * a.n_query_heads;
    const Range of_out = rows_extent(to.out, n_queries, a.n_query_heads);
    const Range of_lse = to.lse.first ? rows_extent(to.lse, n_queries, a.n_query_heads) : Range{};
    KVLANE_TRY(of_out.meets(of_lse) ? overlap("out", of_out, "lse", of_lse) : KVL_OK);
    const auto check = [&](const Range &range, const char *name) {
        KVLANE_TRY(range.meets(of_out) ? overlap("out", of_out, name, range) : KVL_OK);
        return range.meets(of_lse) ? overlap("lse", of_lse, name, range) : KVL_OK;
    };
    KVLANE_TRY(check(array_at(desc.partials, desc.n_partials), "partials"));
    for (uint32_t i = 0; i < desc.n_partials; ++i) {
        for (const PartialArray &array : arrays_of(desc.partials[i], rows, a.v_head_dim)) {
            KVLANE_TRY_IN(check(array.range, array.name), "partials[%" PRIu32 "]: ", i);
        }
    }
    return KVL_OK;
}

kvl_status check_merge_partials_overlaps(const kvl_attention &a, std::span<const kvl_partial> partials, uint32_t n_rows,
                                         const kvl_partial &out) {
    const std::array<PartialArray, 3> written = arrays_of(out, n_rows, a.v_head_dim);
    for (const PartialArray &array : written) {
        const auto check = [&](const Range &range, const char *name) {
            return range.meets(array.range) ? overlap(array.name_of_out, array.range, name, range) : KVL_OK;
        };
        KVLANE_TRY(check(array_at(partials.data(), partials.size()), "partials"));
        for (const PartialArray *other = written.data(); other < &array; ++other) {
            KVLANE_TRY(check(other->range, other->name_of_out));
        }
        for (uint32_t i = 0; i < partials.size(); ++i) {
            for (const PartialArray &read : arrays_of(partials[i], n_rows, a.v_head_dim)) {
                const bool is_in_place = read.array == array.array && read.range.begin == array.range.begin;
                KVLANE_TRY_IN(is_in_place ? KVL_OK : check(read.range, read.name), "partials[%" PRIu32 "]: ", i);
            }
        }
    }
    return KVL_OK;
}

}  // namespace kvlane

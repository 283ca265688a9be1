// Outputs are sorted by address; what is read is then looked up among them. All of it grows as n log n.

#include "overlaps.hpp"

#include <algorithm>
#include <tuple>

#include "../error.hpp"
#include "../planes.hpp"
#include "validate.hpp"

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

uint64_t rows_of(const kvl_attention &a, const kvl_sequence &s) { return uint64_t{queries_of(s)} * a.n_query_heads; }

// What a call writes of one kind.
struct OutputKind {
    const char *name;
    float *(*first)(const kvl_sequence &);  // null: none
    bool has_dim;                           // v_head_dim elements a row, not one

    Range of(const kvl_attention &a, const kvl_sequence &s) const {
        return array_at(first(s), rows_of(a, s) * (has_dim ? a.v_head_dim : 1));
    }
};

constexpr OutputKind output_kinds[max_outputs] = {
    {"out", [](const kvl_sequence &s) { return s.range ? nullptr : s.out; }, true},
    {"lse", [](const kvl_sequence &s) { return s.range ? nullptr : s.lse; }, false},
    {"range's out.m", [](const kvl_sequence &s) { return s.range ? s.range->out.m : nullptr; }, false},
    {"range's out.l", [](const kvl_sequence &s) { return s.range ? s.range->out.l : nullptr; }, false},
    {"range's out.o", [](const kvl_sequence &s) { return s.range ? s.range->out.o : nullptr; }, true},
};

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

    explicit ViewArrays(const kvl_view &v) : view(array_at(&v, 1)) {
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

template <class Visit>
kvl_status visit_view(const kvl_view &view, Visit &&visit) {
    KVLANE_TRY(ViewArrays(view).visit(visit));
    return visit_tokens(view, visit);
}

// Rows of all queries, with what is between them.
template <class Visit>
kvl_status visit_mask(const kvl_mask &mask, uint32_t n_queries, Visit &&visit) {
    const auto rows_at = [&](const void *first, int64_t stride, int64_t row_bytes) {
        const int64_t between = n_queries > 1 ? (int64_t{n_queries} - 1) * stride : 0;
        return range_at(first, first ? static_cast<uint64_t>(between + row_bytes) : 0);
    };
    const Range bits = rows_at(mask.bits, mask.bits_stride_bytes, (mask.n_tokens + 63) / 64 * int64_t{sizeof *mask.bits});
    KVLANE_TRY(visit(array_at(&mask, 1), "mask"));
    KVLANE_TRY(visit(bits, "mask's bits"));
    return visit(rows_at(mask.biases, mask.biases_stride_bytes, mask.n_tokens * int64_t{sizeof *mask.biases}),
                 "mask's biases");
}

// visit(range, name) for all that a sequence has read, up to the first failure.
template <class Visit>
kvl_status visit_reads(const kvl_attention &a, const kvl_sequence &s, Visit &&visit) {
    KVLANE_TRY(visit(array_at(s.q, rows_of(a, s) * a.head_dim), "q"));
    KVLANE_TRY(visit(array_at(s.range, 1), "range"));
    KVLANE_TRY(s.mask ? visit_mask(*s.mask, queries_of(s), visit) : KVL_OK);
    uint32_t i = 0;
    for (const kvl_view *view = s.view; view; view = view->next, ++i) {
        KVLANE_TRY_IN(visit_view(*view, visit), "view[%" PRIu32 "]: ", i);
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

kvl_status check_clear_of(const OwnMemory &own, const kvl_attention &a, const kvl_sequence *sequences,
                          uint32_t n_sequences) {
    for (uint32_t i = 0; i < n_sequences; ++i) {
        const kvl_sequence &s = sequences[i];
        const auto check = [&](const Range &range, const char *name) {
            KVLANE_TRY(range.meets(own.workspace) ? overlap("workspace", own.workspace, Whose(i, name).text, range)
                                                  : KVL_OK);
            return range.meets(own.n_tasks) ? overlap("n_tasks", own.n_tasks, Whose(i, name).text, range) : KVL_OK;
        };
        KVLANE_TRY(visit_reads(a, s, check));
        for (const OutputKind &kind : output_kinds) {
            KVLANE_TRY(check(kind.of(a, s), kind.name));
        }
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

kvl_status sort_outputs(const kvl_attention &a, const kvl_sequence *sequences, uint32_t n_sequences, Output *outputs,
                        SortedOutputs &sorted) {
    Output *end = outputs;
    for (uint32_t i = 0; i < n_sequences; ++i) {
        for (uint32_t kind = 0; kind < max_outputs; ++kind) {
            const Range range = output_kinds[kind].of(a, sequences[i]);
            if (range.end > 0) {
                *end++ = {range.begin, range.end, i, kind};
            }
        }
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

}  // namespace

kvl_status check_overlaps(const kvl_attention &a, const kvl_sequence *sequences, uint32_t n_sequences,
                          const uint32_t *n_tasks, const void *workspace, uint64_t workspace_bytes, Output *scratch) {
    const OwnMemory own{range_at(workspace, workspace_bytes), array_at(n_tasks, 1)};
    const Range of_sequences = array_at(sequences, n_sequences);
    KVLANE_TRY(own.workspace.meets(own.n_tasks) ? overlap("workspace", own.workspace, "n_tasks", own.n_tasks) : KVL_OK);
    for (const auto &[name, range] : {std::pair{"workspace", own.workspace}, {"n_tasks", own.n_tasks}}) {
        KVLANE_TRY(range.meets(of_sequences) ? overlap(name, range, "sequences", of_sequences) : KVL_OK);
    }
    KVLANE_TRY(check_clear_of(own, a, sequences, n_sequences));
    SortedOutputs outputs;
    KVLANE_TRY(sort_outputs(a, sequences, n_sequences, scratch, outputs));
    if (const Output *output = outputs.find(of_sequences)) {
        return fail_output(*output, "sequences", of_sequences);
    }
    for (uint32_t i = 0; i < n_sequences; ++i) {
        KVLANE_TRY(visit_reads(a, sequences[i], [&](const Range &range, const char *name) {
            const Output *output = outputs.find(range);
            return output ? fail_output(*output, Whose(i, name).text, range) : KVL_OK;
        }));
    }
    return KVL_OK;
}

kvl_status check_write_overlaps(const kvl_view &view, const float *k, size_t k_len, const float *v, size_t v_len) {
    const Range of_k = array_at(k, k_len), of_v = array_at(v, v_len);
    const ViewArrays arrays(view);
    return visit_tokens(view, [&](const Range &tiles, const char *) {
        const auto check = [&](const Range &read, const char *name) {
            return tiles.meets(read) ? overlap("memory of tiles", tiles, name, read) : KVL_OK;
        };
        KVLANE_TRY(check(of_k, "k"));
        KVLANE_TRY(check(of_v, "v"));
        return arrays.visit(check);
    });
}

kvl_status check_merge_overlaps(const kvl_attention &attention, const kvl_partial *partials, uint32_t n_partials,
                                uint32_t n_queries, const float *out, const float *lse) {
    const uint64_t rows = uint64_t{n_queries} * attention.n_query_heads;
    const Range of_out = array_at(out, rows * attention.v_head_dim), of_lse = array_at(lse, rows);
    KVLANE_TRY(of_out.meets(of_lse) ? overlap("out", of_out, "lse", of_lse) : KVL_OK);
    const auto check = [&](const Range &range, const char *name) {
        KVLANE_TRY(range.meets(of_out) ? overlap("out", of_out, name, range) : KVL_OK);
        return range.meets(of_lse) ? overlap("lse", of_lse, name, range) : KVL_OK;
    };
    KVLANE_TRY(check(array_at(partials, n_partials), "partials"));
    for (uint32_t i = 0; i < n_partials; ++i) {
        const kvl_partial &p = partials[i];
        KVLANE_TRY_IN(check(array_at(p.m, rows), "its m"), "partials[%" PRIu32 "]: ", i);
        KVLANE_TRY_IN(check(array_at(p.l, rows), "its l"), "partials[%" PRIu32 "]: ", i);
        KVLANE_TRY_IN(check(array_at(p.o, rows * attention.v_head_dim), "its o"), "partials[%" PRIu32 "]: ", i);
    }
    return KVL_OK;
}

}  // namespace kvlane

// Calls of a plan: sequences that differ from the plan's in addresses alone.

#include <functional>
#include <string_view>

#include "plan.hpp"
#include "prefix.hpp"
#include "validate.hpp"

namespace kvlane {
namespace {

uint64_t hash_of(const void *bytes, size_t n) {
    return std::hash<std::string_view>{}({static_cast<const char *>(bytes), n});
}

// A hash of all that a chain of views says but addresses: equal for views that differ in these alone.
uint64_t shape_of_views(const kvl_view *first) {
    uint64_t shape = 0;
    const auto add = [&](uint64_t hash) { shape = shape * 31 + hash; };
    for (const kvl_view *view = first; view; view = view->next) {
        kvl_view fields = read_desc(*view);
        fields.spans = nullptr;
        fields.next = nullptr;
        fields.blocks = nullptr;
        fields.k_offset = nullptr;
        add(hash_of(&fields, sizeof fields));
        int64_t left = own_tokens(*view);
        for (uint32_t i = 0; i < view->n_spans && left > 0; ++i) {
            add(hash_of(&view->spans[i].n_tokens, sizeof view->spans[i].n_tokens));
            left -= view->spans[i].n_tokens;
        }
    }
    return shape;
}

kvl_status check_planned(int64_t value, int64_t planned, const char *name) {
    return value == planned ? KVL_OK
                            : fail(KVL_ERROR_PLAN, "%s is %" PRId64 "; the plan has %" PRId64, name, value, planned);
}

kvl_status check_planned_rows(const StridedRows &rows, const StridedRows &planned, const char *format, const char *token,
                              const char *head) {
    KVLANE_TRY(check_planned(rows.format, planned.format, format));
    KVLANE_TRY(check_planned(rows.token_stride, planned.token_stride, token));
    return check_planned(rows.head_stride, planned.head_stride, head);
}

kvl_status check_planned_mask(const kvl_mask &mask, const kvl_mask &planned) {
    KVLANE_TRY(check_planned(mask.n_tokens, planned.n_tokens, "n_tokens"));
    KVLANE_TRY(check_planned(mask.bits != nullptr, planned.bits != nullptr, "whether there are bits"));
    KVLANE_TRY(check_planned(mask.biases != nullptr, planned.biases != nullptr, "whether there are biases"));
    KVLANE_TRY(check_planned(mask.bits_stride_bytes, planned.bits_stride_bytes, "bits_stride_bytes"));
    KVLANE_TRY(check_planned(mask.biases_stride_bytes, planned.biases_stride_bytes, "biases_stride_bytes"));
    KVLANE_TRY(check_planned(mask.bits_head_stride_bytes, planned.bits_head_stride_bytes, "bits_head_stride_bytes"));
    return check_planned(mask.biases_head_stride_bytes, planned.biases_head_stride_bytes, "biases_head_stride_bytes");
}

kvl_status check_planned_range(const kvl_range &range, const kvl_range &planned) {
    KVLANE_TRY(check_planned(range.view_first, planned.view_first, "view_first"));
    KVLANE_TRY(check_planned(range.first, planned.first, "first"));
    return check_planned(range.end, planned.end, "end");
}

kvl_status check_planned_sequence(const Sequence &s, const Sequence &planned) {
    KVLANE_TRY(check_planned(s.first_kv_head, planned.first_kv_head, "first_kv_head"));
    KVLANE_TRY(check_planned(s.len, planned.len, "len"));
    KVLANE_TRY(check_planned(s.n_queries, planned.n_queries, "n_queries"));
    KVLANE_TRY(check_planned(s.is_causal, planned.is_causal, "causal order"));
    KVLANE_TRY(check_planned(s.first_position, planned.first_position, "position of the first query"));
    KVLANE_TRY(check_planned(s.range.has_value(), planned.range.has_value(), "whether there is a range"));
    KVLANE_TRY(check_planned(s.mask.has_value(), planned.mask.has_value(), "whether there is a mask"));
    KVLANE_TRY(check_planned(s.lse.first != nullptr, planned.lse.first != nullptr, "whether there is an lse"));
    KVLANE_TRY(check_planned_rows(s.q, planned.q, "q_format", "q_token_stride_bytes", "q_head_stride_bytes"));
    KVLANE_TRY(check_planned_rows(s.out, planned.out, "out_format", "out_token_stride_bytes", "out_head_stride_bytes"));
    KVLANE_TRY(check_planned_rows(s.lse, planned.lse, "lse's format", "lse_token_stride_bytes", "lse_head_stride_bytes"));
    if (s.range) {
        KVLANE_TRY_IN(check_planned_range(*s.range, *planned.range), "range: ");
    }
    if (s.mask) {
        KVLANE_TRY_IN(check_planned_mask(*s.mask, *planned.mask), "mask: ");
    }
    return KVL_OK;
}

// Sequences of which the plan reads a prefix for all from the first one's memory.
kvl_status check_shared(const Call &call, const Sequences &sequences, uint32_t i) {
    const SequencePlan &plan = call.plans[i];
    if (i == plan.leader || plan.n_shared == 0) {
        return KVL_OK;
    }
    const int64_t n_shared = common_tokens(sequences[plan.leader], sequences[i]) / chunk_tokens;
    return n_shared >= plan.n_shared
               ? KVL_OK
               : fail(KVL_ERROR_PLAN,
                      "view shares %" PRId64 " chunks with that of sequences[%u]; in the plan they share %" PRId64, n_shared,
                      plan.leader, plan.n_shared);
}

}  // namespace

void keep_as_plan(Call &call) {
    call.is_planned = true;
    for (uint32_t i = 0; i < call.n_sequences; ++i) {
        call.plans[i].views = shape_of_views(call.sequences[i].view);
    }
}

kvl_status check_planned_sequences(const Call &call, const DescArray<kvl_sequence> &sequences) {
    KVLANE_TRY(check_planned(sequences.n, call.n_sequences, "n_sequences"));
    KVLANE_TRY(sequences.n == 0 ? KVL_OK : check_not_null(sequences.first, "sequences"));
    const Sequences read(*call.attention, sequences);
    for (uint32_t i = 0; i < sequences.n; ++i) {
        KVLANE_TRY_IN(sequences.check(i, known_sequence_flags), "sequences[%u]: ", i);
        KVLANE_TRY_IN(check_addresses(*call.attention, sequences[i]), "sequences[%u]: ", i);
        KVLANE_TRY_IN(check_planned_sequence(read[i], call.sequences[i]), "sequences[%u]: ", i);
        if (shape_of_views(read[i].view) != call.plans[i].views) {
            return fail(KVL_ERROR_PLAN,
                        "sequences[%u]: view, or one behind it, differs from the plan's in more than addresses", i);
        }
        KVLANE_TRY_IN(check_shared(call, read, i), "sequences[%u]: ", i);
    }
    return KVL_OK;
}

void rebind(Call &call, const Sequences &sequences) {
    Place *place = call.places;
    for (uint32_t i = 0; i < call.n_sequences; ++i) {
        call.sequences[i] = sequences[i];
        const kvl_view *view = call.sequences[i].view;
        uint32_t index = 0;
        const int64_t n_places = visible_to_any(*call.attention, call.sequences[i]).n_chunks();
        for (const Place *const end = place + n_places; place < end; ++place) {
            for (; index < place->view_index; ++index) {
                view = view->next;
            }
            place->view = view;
        }
    }
}

}  // namespace kvlane

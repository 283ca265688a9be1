// The keys and values that a call reads, in bytes.

#include "../error.hpp"
#include "../planes.hpp"
#include "prefix.hpp"
#include "validate.hpp"
#include "visible.hpp"

using namespace kvlane;

namespace {

// Whether the visible values are what keys begin with.
bool values_are_keys(const kvl_view &view) {
    if (has_tiles(view) || view.k_format != view.v_format || view.v_head_dim > view.head_dim) {
        return false;
    }
    bool are_keys = true;
    int64_t left = own_tokens(view);
    for (uint32_t i = 0; are_keys && left > 0; ++i) {
        const Run run = run_at(view, i);
        const int64_t n = std::min(left, run.n_tokens);
        are_keys = n == 0 || same_rows(view, run, k_plane, view, run, v_plane, n);
        left -= n;
    }
    return are_keys;
}

// Of one KV head's key and value, padding not counted.
int64_t read_bytes(const kvl_view &view) {
    const auto of = [](kvl_format format, uint32_t dim) {
        return format::row_bytes(format, dim) + format::entry_bytes(format, dim);
    };
    const int64_t of_key = of(view.k_format, view.head_dim);
    return values_are_keys(view) ? of_key : of_key + of(view.v_format, view.v_head_dim);
}

// Of all KV heads.
int64_t count_visible_of_heads(const kvl_attention &a, const Sequence &s, const kvl_view &view, int64_t view_first) {
    if (!s.mask || !differs_by_head(*s.mask)) {
        return count_visible(a, s, view, view_first, 0) * a.n_kv_heads;
    }
    int64_t seen = 0;
    for (uint32_t kv_head = 0; kv_head < a.n_kv_heads; ++kv_head) {
        seen += count_visible(a, s, view, view_first, kv_head);
    }
    return seen;
}

}  // namespace

kvl_status kvl_attend_bytes(const kvl_attention *attention, const kvl_sequence *described, uint32_t n_sequences,
                            uint64_t *bytes) {
    KVLANE_TRY(check_not_null(bytes, "bytes"));
    KVLANE_TRY(check_sequences(attention, {described, n_sequences}));
    const Sequences sequences(*attention, {described, n_sequences});
    uint64_t sum = 0;  // written at the end: bytes may lie in what is read
    Sharers sharers{0, 0};
    for (uint32_t i = 0; i < n_sequences; ++i) {
        const Sequence s = sequences[i];
        if (i == sharers.end) {
            sharers = sharers_from(*attention, sequences, n_sequences, i);
        } else {  // all but the first find these read
            sum -= static_cast<uint64_t>(sharers.n_chunks * chunk_tokens * attention->n_kv_heads * read_bytes(*s.view));
        }
        int64_t first = view_first_of(s);
        for (const kvl_view *view = s.view; view; view = view->next) {
            sum += static_cast<uint64_t>(count_visible_of_heads(*attention, s, *view, first) * read_bytes(*view));
            first += tokens_before_next(*view);
        }
    }
    *bytes = sum;
    return KVL_OK;
}

// Merging of partial states, one after another: by a call those of its items, by kvl_merge those of a caller.

#include "merge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "../error.hpp"
#include "overlaps.hpp"

using namespace kvlane;

namespace {

kvl_status check_partial(const kvl_partial &partial, uint32_t index) {
    const char *const null = !partial.m ? "m" : !partial.l ? "l" : !partial.o ? "o" : nullptr;
    return null ? fail(KVL_ERROR_NULL, "partials[%u]: %s is null; it must point to something", index, null) : KVL_OK;
}

constexpr uint32_t rows_at_once = 64;

// Rows of one query, n_rows of its heads from first_head on; `first` of all.
void merge_rows(const kvl_attention &a, std::span<const kvl_partial> partials, uint64_t first, uint32_t first_head,
                uint32_t n_rows, float *out, float *lse) {
    float m[rows_at_once], l[rows_at_once];
    const PartialRows rows{m, l, out + first * a.v_head_dim, a.v_head_dim};
    const auto n = static_cast<int>(n_rows);
    clear_rows(rows, n_rows, a.v_head_dim, a.sink_logits ? &a.sink_logits[first_head] : nullptr);
    for (const kvl_partial &partial : partials) {
        a.kernels->merge(rows, {partial.m + first, partial.l + first, partial.o + first * a.v_head_dim, a.v_head_dim}, n,
                         a.v_head_dim);
    }
    a.kernels->finish_rows(rows, n, a.v_head_dim, a.v_rotation == KVL_ROTATION_HADAMARD, lse ? lse + first : nullptr);
}

}  // namespace

void kvlane::clear_rows(const PartialRows &rows, uint32_t n_rows, uint32_t v_head_dim, const float *sinks) {
    for (uint32_t r = 0; r < n_rows; ++r) {
        rows.m[r] = sinks ? sinks[r] : -std::numeric_limits<float>::infinity();
        rows.l[r] = std::isinf(rows.m[r]) ? 0.0f : 1.0f;
        std::fill_n(rows.o + r * rows.o_stride, v_head_dim, 0.0f);
    }
}

kvl_status kvl_merge(const kvl_attention *attention, const kvl_partial *partials, uint32_t n_partials, uint32_t n_queries,
                     float *out, float *lse) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(check_not_null(partials, "partials"));
    KVLANE_TRY(check_range(n_partials, 1, UINT32_MAX, "n_partials"));
    KVLANE_TRY(check_range(n_queries, 1, INT32_MAX / attention->n_query_heads, "n_queries"));
    for (uint32_t i = 0; i < n_partials; ++i) {
        KVLANE_TRY(check_partial(partials[i], i));
    }
    KVLANE_TRY(check_not_null(out, "out"));
    KVLANE_TRY(check_merge_overlaps(*attention, partials, n_partials, n_queries, out, lse));
    const uint32_t n_heads = attention->n_query_heads;
    for (uint32_t query = 0; query < n_queries; ++query) {
        for (uint32_t head = 0; head < n_heads; head += rows_at_once) {
            merge_rows(*attention, {partials, n_partials}, uint64_t{query} * n_heads + head, head,
                       std::min(rows_at_once, n_heads - head), out, lse);
        }
    }
    return KVL_OK;
}

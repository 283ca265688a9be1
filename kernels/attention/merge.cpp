// Partial states that a caller has, merged.

#include "../error.hpp"
#include "overlaps.hpp"

using namespace kvlane;

namespace {

kvl_status check_partial(const kvl_partial &partial, uint32_t index) {
    const char *const null = !partial.m ? "m" : !partial.l ? "l" : !partial.o ? "o" : nullptr;
    return null ? fail(KVL_ERROR_NULL, "partials[%u]: %s is null; it must point to something", index, null) : KVL_OK;
}

}  // namespace

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
    attention->kernels->merge({.partials = partials,
                               .stride = 1,
                               .n_partials = n_partials,
                               .n_shared = 0,
                               .shared_row = 0,
                               .o_stride = attention->v_head_dim,
                               .n_queries = static_cast<int>(n_queries),
                               .group = static_cast<int>(attention->n_query_heads),
                               .v_head_dim = attention->v_head_dim,
                               .query_stride = attention->n_query_heads,
                               .out = out,
                               .lse = lse,
                               .whole = {},
                               .rotates_out = attention->v_rotation == KVL_ROTATION_HADAMARD,
                               .sinks = attention->sink_logits.get()});
    return KVL_OK;
}

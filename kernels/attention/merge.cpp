// Merging of partial states, one after another: by a call those of its items, by kvl_merge and its like those of a caller.

#include "merge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "overlaps.hpp"
#include "validate.hpp"

using namespace kvlane;

namespace {

kvl_status check_partial(const kvl_partial &partial) {
    KVLANE_TRY(check_not_null(partial.m, "m"));
    KVLANE_TRY(check_not_null(partial.l, "l"));
    return check_not_null(partial.o, "o");
}

kvl_status check_partials(const kvl_partial *partials, uint32_t n_partials) {
    KVLANE_TRY(check_not_null(partials, "partials"));
    KVLANE_TRY(check_range(n_partials, 1, UINT32_MAX, "n_partials"));
    for (uint32_t i = 0; i < n_partials; ++i) {
        KVLANE_TRY_IN(check_partial(partials[i]), "partials[%" PRIu32 "]: ", i);
    }
    return KVL_OK;
}

// desc: of this version.
kvl_status check_merge(const kvl_attention &a, const kvl_merge_desc &desc) {
    const uint32_t n_queries = std::max(1u, desc.n_queries);
    KVLANE_TRY(check_partials(desc.partials, desc.n_partials));
    KVLANE_TRY(check_range(n_queries, 1, INT32_MAX / a.n_query_heads, "n_queries"));
    KVLANE_TRY(check_merge_rows(a, desc, n_queries));
    return check_merge_overlaps(a, desc, output_rows(a, desc, n_queries), n_queries);
}

// The state of one query row.
struct RowState {
    float m, l;
    alignas(KVL_WORKSPACE_ALIGNMENT) float o[KVL_MAX_HEAD_DIM + panel::columns];

    PartialRows rows() { return {&m, &l, o, 0}; }
};

// Sets the state to that of row `index` of all partials. sink: the sink logit to include, may be null.
void merge_row(const kvl_attention &a, std::span<const kvl_partial> partials, uint64_t index, const float *sink,
               RowState &row) {
    clear_rows(row.rows(), 1, a.v_head_dim, sink);
    for (const kvl_partial &partial : partials) {
        a.kernels->merge(row.rows(), {partial.m + index, partial.l + index, partial.o + index * a.v_head_dim, 0}, 1,
                         a.v_head_dim);
    }
}

void merge(const kvl_attention &a, const kvl_merge_desc &desc) {
    const uint32_t n_queries = std::max(1u, desc.n_queries);
    const MergedRows to = output_rows(a, desc, n_queries);
    RowState row;
    for (uint32_t query = 0; query < n_queries; ++query) {
        for (uint32_t head = 0; head < a.n_query_heads; ++head) {
            merge_row(a, {desc.partials, desc.n_partials}, uint64_t{query} * a.n_query_heads + head,
                      a.sink_logits ? &a.sink_logits[head] : nullptr, row);
            a.kernels->finish_rows(row.rows(), 1, a.v_head_dim, a.v_rotation == KVL_ROTATION_HADAMARD,
                                   {.out = to.out.at(query, head),
                                    .out_stride_bytes = 0,
                                    .format = to.out.format,
                                    .lse = to.lse.first ? to.lse.at(query, head) : nullptr,
                                    .lse_stride_bytes = 0});
        }
    }
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
    KVLANE_TRY(check_range(n_queries, 1, UINT32_MAX, "n_queries"));
    kvl_merge_desc desc = kvl_merge_desc_init();
    desc.n_queries = n_queries;
    desc.partials = partials;
    desc.n_partials = n_partials;
    desc.out = out;
    desc.lse = lse;
    KVLANE_TRY(check_merge(*attention, desc));
    merge(*attention, desc);
    return KVL_OK;
}

kvl_status kvl_merge_batch(const kvl_attention *attention, const kvl_merge_desc *merges, uint32_t n_merges) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(n_merges == 0 ? KVL_OK : check_not_null(merges, "merges"));
    const DescArray<kvl_merge_desc> array{merges, n_merges};
    for (uint32_t i = 0; i < n_merges; ++i) {
        KVLANE_TRY_IN(array.check(i, 0), "merges[%u]: ", i);
        KVLANE_TRY_IN(check_merge(*attention, array[i]), "merges[%u]: ", i);
    }
    for (uint32_t i = 0; i < n_merges; ++i) {
        merge(*attention, array[i]);
    }
    return KVL_OK;
}

kvl_status kvl_merge_partials(const kvl_attention *attention, const kvl_partial *partials, uint32_t n_partials,
                              uint32_t n_rows, kvl_partial out) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(check_partials(partials, n_partials));
    KVLANE_TRY(check_range(n_rows, 1, INT32_MAX, "n_rows"));
    KVLANE_TRY_IN(check_partial(out), "out: ");
    KVLANE_TRY(check_merge_partials_overlaps(*attention, {partials, n_partials}, n_rows, out));
    RowState row;
    for (uint64_t i = 0; i < n_rows; ++i) {
        merge_row(*attention, {partials, n_partials}, i, nullptr, row);
        out.m[i] = row.m;
        out.l[i] = row.l;
        std::copy_n(row.o, attention->v_head_dim, out.o + i * attention->v_head_dim);
    }
    return KVL_OK;
}

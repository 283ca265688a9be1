#pragma once

// A call's sequences as its caller describes them, and as the call sees them: with defaults resolved, and all descriptors of
// this version.

#include <optional>

#include "../descriptor.hpp"
#include "../strided_rows.hpp"
#include "attention.hpp"

namespace kvlane {

inline constexpr uint32_t known_sequence_flags = KVL_SEQUENCE_NON_CAUSAL | KVL_SEQUENCE_KV_HEADS;

// A sequence with defaults resolved, and its range and mask.
struct Sequence {
    const kvl_sequence *described;
    const kvl_view *view;
    uint32_t first_kv_head;  // of the view
    int64_t len;
    uint32_t n_queries;
    bool is_causal;
    int64_t first_position;  // of the first query
    StridedRows q, out;      // with a range, out is that of the partial states
    StridedRows lse;         // `first` may be null
    std::optional<kvl_range> range;
    std::optional<kvl_mask> mask;

    int64_t position(uint32_t query) const { return first_position + query; }
};

// The elements of an array of kvl_sequence, with their headers, ranges' and masks' headers checked.
class Sequences {
public:
    Sequences(const kvl_attention &attention, const DescArray<kvl_sequence> &array) : attention_(attention), array_(array) {}

    uint32_t n() const { return array_.n; }
    const DescArray<kvl_sequence> &array() const { return array_; }
    Sequence operator[](uint32_t i) const;

private:
    const kvl_attention &attention_;
    DescArray<kvl_sequence> array_;
};

// Where a merge's outputs go; `first` of lse may be null.
struct MergedRows {
    StridedRows out, lse;
};

inline MergedRows output_rows(const kvl_attention &a, const kvl_merge_desc &desc, uint32_t n_queries) {
    return {strided_rows(desc.out, desc.out_format, a.v_head_dim, n_queries, a.n_query_heads, desc.out_token_stride_bytes,
                         desc.out_head_stride_bytes),
            strided_rows(desc.lse, KVL_F32, 1, n_queries, a.n_query_heads, desc.lse_token_stride_bytes,
                         desc.lse_head_stride_bytes)};
}

}  // namespace kvlane

#include "sequence.hpp"

namespace kvlane {
Sequence Sequences::operator[](uint32_t i) const {
    const kvl_attention &a = attention_;
    const kvl_sequence s = array_[i];
    const uint32_t n_queries = std::max(1u, s.n_queries);
    Sequence sequence{.described = &array_.raw(i),
                      .view = s.view,
                      .first_kv_head = s.flags & KVL_SEQUENCE_KV_HEADS ? s.first_kv_head : 0,
                      .len = s.len,
                      .n_queries = n_queries,
                      .is_causal = !(s.flags & KVL_SEQUENCE_NON_CAUSAL),
                      .first_position = s.len - n_queries + s.causal_offset,
                      .q = strided_rows(s.q, s.q_format, a.head_dim, n_queries, a.n_query_heads, s.q_token_stride_bytes,
                                        s.q_head_stride_bytes),
                      .out = s.range ? consecutive_rows(read_desc(*s.range).out.o, a.v_head_dim, a.n_query_heads)
                                     : strided_rows(s.out, s.out_format, a.v_head_dim, n_queries, a.n_query_heads,
                                                    s.out_token_stride_bytes, s.out_head_stride_bytes),
                      .lse = strided_rows(s.range ? nullptr : s.lse, KVL_F32, 1, n_queries, a.n_query_heads,
                                          s.lse_token_stride_bytes, s.lse_head_stride_bytes),
                      .range = {},
                      .mask = {}};
    if (s.range) {
        sequence.range = read_desc(*s.range);
    }
    if (s.mask) {
        sequence.mask = read_desc(*s.mask);
    }
    return sequence;
}

}  // namespace kvlane

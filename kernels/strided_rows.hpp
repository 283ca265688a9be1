#pragma once

// Rows of queries, outputs, keys or values in a caller's memory: [tokens][heads], in f32, f16 or bf16.

#include <cstddef>
#include <cstdint>

#include "formats.hpp"

namespace kvlane {

struct StridedRows {
    std::byte *first;
    kvl_format format;
    int64_t row_bytes;
    int64_t token_stride;  // bytes, as the next
    int64_t head_stride;

    std::byte *at(int64_t token, uint32_t head) const { return first + token * token_stride + head * head_stride; }

    StridedRows from(int64_t token) const {
        StridedRows rows = *this;
        rows.first = at(token, 0);
        return rows;
    }
};

// Strides of 0 are those of consecutive rows, and so is one that separates nothing.
inline StridedRows strided_rows(const void *first, kvl_format format, uint32_t dim, int64_t n_tokens, uint32_t n_heads,
                                int64_t token_stride, int64_t head_stride) {
    const int64_t row_bytes = format::row_bytes(format, dim);
    head_stride = n_heads > 1 && head_stride ? head_stride : row_bytes;
    token_stride = n_tokens > 1 && token_stride ? token_stride : n_heads * head_stride;
    return {static_cast<std::byte *>(const_cast<void *>(first)), format, row_bytes, token_stride, head_stride};
}

// f32 rows that follow each other.
inline StridedRows consecutive_rows(const float *first, uint32_t dim, uint32_t n_heads) {
    return strided_rows(first, KVL_F32, dim, 1, n_heads, 0, 0);
}

// Validated rows of keys and values.
inline StridedRows k_rows(const kvl_rows &rows, uint32_t n_kv_heads, uint32_t head_dim) {
    return strided_rows(rows.k, rows.k_format, head_dim, rows.n_tokens, n_kv_heads, rows.k_token_stride_bytes,
                        rows.k_head_stride_bytes);
}
inline StridedRows v_rows(const kvl_rows &rows, uint32_t n_kv_heads, uint32_t v_head_dim) {
    return strided_rows(rows.v, rows.v_format, v_head_dim, rows.n_tokens, n_kv_heads, rows.v_token_stride_bytes,
                        rows.v_head_stride_bytes);
}

}  // namespace kvlane

#pragma once

// Where a layer's planes lie in the reservation: [kv_head][token][head_dim] of K, then of V.

#include <algorithm>
#include <cstdint>

#include "../kernels/formats.hpp"
#include "memory.hpp"

namespace kvlane {

// One of a layer's two planes.
struct PlaneLayout {
    int64_t offset;  // from the reservation's start
    int64_t token_stride_bytes;
    int64_t head_stride_bytes;
};

struct LayerLayout {
    PlaneLayout k;
    PlaneLayout v;
    int64_t offset;
    int64_t bytes;
};

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Rows start on a cache line where that costs at most an eighth of the bandwidth, else on 16 bytes.
inline int64_t token_stride_of(int64_t row_bytes) {
    const int64_t on_line = round_up(row_bytes, 64);
    return on_line - row_bytes <= row_bytes / 8 ? on_line : round_up(row_bytes, 16);
}

inline PlaneLayout plane_at(int64_t offset, kvl_format format, uint32_t dim, int64_t max_tokens) {
    const int64_t token_stride = token_stride_of(format::row_bytes(format, dim));
    const int64_t bytes = token_stride * max_tokens;
    return {offset, token_stride, round_up(bytes, bytes >= huge_page_bytes ? huge_page_bytes : 64)};
}

inline LayerLayout layer_at(int64_t offset, const kvl_layer_desc &layer, int64_t max_tokens) {
    const PlaneLayout k = plane_at(offset, layer.k_format, layer.head_dim, max_tokens);
    const int64_t v_offset = offset + layer.n_kv_heads * k.head_stride_bytes;
    const PlaneLayout v = plane_at(v_offset, layer.v_format, layer.v_head_dim, max_tokens);
    return {k, v, offset, v_offset + layer.n_kv_heads * v.head_stride_bytes - offset};
}

}  // namespace kvlane

#pragma once

// Where a layer's planes lie in the reservation: [kv_head][token][head_dim] of K, then of V, then their scales, then what
// is kept finer of both.

#include <algorithm>
#include <cstdint>

#include "../kernels/formats.hpp"
#include "finer_tokens.hpp"
#include "memory.hpp"

namespace kvlane {

// One of a layer's planes.
struct PlaneLayout {
    int64_t offset;  // from the reservation's start
    int64_t token_stride_bytes;
    int64_t head_stride_bytes;
};

struct LayerLayout {
    PlaneLayout k = {};
    PlaneLayout v = {};
    PlaneLayout k_scales = {};  // of no bytes where the format has none
    PlaneLayout v_scales = {};
    PlaneLayout k_finer = {};  // f16, beside integers only; of as many rows as are kept finer
    PlaneLayout v_finer = {};
    int64_t offset = 0;
    int64_t bytes = 0;
};

// Rows start on a cache line where that costs at most an eighth of the bandwidth, else on 16 bytes.
inline int64_t token_stride_of(int64_t row_bytes) {
    const int64_t on_line = round_up(row_bytes, 64);
    return on_line - row_bytes <= row_bytes / 8 ? on_line : round_up(row_bytes, 16);
}

inline PlaneLayout plane_at(int64_t offset, int64_t token_stride, int64_t n_rows) {
    const int64_t bytes = token_stride * n_rows;
    return {offset, token_stride, round_up(bytes, bytes >= huge_page_bytes ? huge_page_bytes : 64)};
}

inline LayerLayout layer_at(int64_t offset, const kvl_layer_desc &layer, int64_t max_tokens, int64_t n_finer_rows) {
    LayerLayout layout{.offset = offset};
    int64_t end = offset;
    const auto add_plane = [&](PlaneLayout &plane, int64_t token_stride, int64_t n_rows) {
        plane = plane_at(end, token_stride, n_rows);
        end += layer.n_kv_heads * plane.head_stride_bytes;
    };
    const auto add_finer = [&](PlaneLayout &plane, kvl_format format, uint32_t dim) {
        if (format::is_scaled(format)) {
            add_plane(plane, token_stride_of(format::row_bytes(format::finer_of(format), dim)), n_finer_rows);
        }
    };
    add_plane(layout.k, token_stride_of(format::row_bytes(layer.k_format, layer.head_dim)), max_tokens);
    add_plane(layout.v, token_stride_of(format::row_bytes(layer.v_format, layer.v_head_dim)), max_tokens);
    add_plane(layout.k_scales, format::entry_bytes(layer.k_format, layer.head_dim), max_tokens);
    add_plane(layout.v_scales, format::entry_bytes(layer.v_format, layer.v_head_dim), max_tokens);
    add_finer(layout.k_finer, layer.k_format, layer.head_dim);
    add_finer(layout.v_finer, layer.v_format, layer.v_head_dim);
    // The next layer's planes start on a huge page where this one's do.
    layout.bytes = round_up(end - offset, end - offset >= huge_page_bytes ? huge_page_bytes : 64);
    return layout;
}

}  // namespace kvlane

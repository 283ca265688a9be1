#pragma once

// Where a view's rows lie: the only place that multiplies strides.

#include <cstddef>

#include "kvlane/kvlane.h"

namespace kvlane {

static inline const std::byte *k_row(const kvl_view &view, const kvl_span &span, uint32_t kv_head, int64_t token) {
    return static_cast<const std::byte *>(span.k) + kv_head * view.k_head_stride_bytes + token * view.k_token_stride_bytes;
}

static inline const std::byte *v_row(const kvl_view &view, const kvl_span &span, uint32_t kv_head, int64_t token) {
    return static_cast<const std::byte *>(span.v) + kv_head * view.v_head_stride_bytes + token * view.v_token_stride_bytes;
}

static inline const std::byte *k_scale(const kvl_view &view, const kvl_span &span, uint32_t kv_head, int64_t token) {
    return static_cast<const std::byte *>(span.k_scales) + kv_head * view.k_scale_head_stride_bytes +
           token * view.k_scale_token_stride_bytes;
}

static inline const std::byte *v_scale(const kvl_view &view, const kvl_span &span, uint32_t kv_head, int64_t token) {
    return static_cast<const std::byte *>(span.v_scales) + kv_head * view.v_scale_head_stride_bytes +
           token * view.v_scale_token_stride_bytes;
}

}  // namespace kvlane

#pragma once

// Where a view's rows lie: the only place that multiplies strides.
// A view that has a next one holds the first of the tokens only, the other the rest.

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

// Visible tokens of this view alone.
static inline int64_t own_tokens(const kvl_view &view) { return view.len - (view.next ? view.next->len : 0); }

}  // namespace kvlane

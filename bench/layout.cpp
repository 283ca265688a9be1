#include "layout.hpp"

#include <algorithm>
#include <numeric>
#include <random>

namespace bench {
namespace {

constexpr uint32_t block_tokens_of(Layout layout) {
    return layout == Layout::blocks_16 ? 16 : layout == Layout::blocks_256 ? 256 : 0;
}

// A plane's strides, whose rows stand one behind the other.
void arrange(Layout layout, uint32_t n_kv_heads, int64_t &token_stride, int64_t &head_stride, int64_t &block_stride) {
    const int64_t row_bytes = token_stride;
    if (layout == Layout::token_major) {
        token_stride = n_kv_heads * row_bytes;
        head_stride = row_bytes;
    } else if (const uint32_t block_tokens = block_tokens_of(layout)) {
        head_stride = block_tokens * row_bytes;
        block_stride = n_kv_heads * head_stride;
    }
}

}  // namespace

LaidOut::LaidOut(Layout layout, int64_t n_tokens) : layout_(layout) {
    if (const uint32_t block_tokens = block_tokens_of(layout)) {
        blocks_.resize(static_cast<size_t>(n_tokens / block_tokens));
        std::iota(blocks_.begin(), blocks_.end(), 0);
        std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(1));
    }
}

kvl_view LaidOut::view(kvl_view v) {
    if (layout_ == Layout::latent) {
        spans_[0] = *v.spans;
        spans_[0].v = spans_[0].k;
        v.spans = spans_;
        v.v_head_dim = latent_v_head_dim;
        v.v_token_stride_bytes = v.k_token_stride_bytes;
        v.v_head_stride_bytes = v.k_head_stride_bytes;
        return v;
    }
    v.blocks = blocks_.data();
    v.n_blocks = static_cast<uint32_t>(blocks_.size());
    v.block_tokens = block_tokens_of(layout_);
    arrange(layout_, v.n_kv_heads, v.k_token_stride_bytes, v.k_head_stride_bytes, v.k_block_stride_bytes);
    arrange(layout_, v.n_kv_heads, v.v_token_stride_bytes, v.v_head_stride_bytes, v.v_block_stride_bytes);
    arrange(layout_, v.n_kv_heads, v.k_scale_token_stride_bytes, v.k_scale_head_stride_bytes, v.k_scale_block_stride_bytes);
    arrange(layout_, v.n_kv_heads, v.v_scale_token_stride_bytes, v.v_scale_head_stride_bytes, v.v_scale_block_stride_bytes);
    return v;
}

kvl_view LaidOut::view_behind(const kvl_view &other, int64_t n_tokens, kvl_view v) {
    spans_[0] = *other.spans;
    spans_[0].n_tokens = n_tokens;
    spans_[1] = *v.spans;
    v.spans = spans_;
    v.n_spans = 2;
    v.len += n_tokens;
    return v;
}

}  // namespace bench

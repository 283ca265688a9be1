#include "layout.hpp"

#include <algorithm>
#include <numeric>
#include <random>

#include "buffers.hpp"

namespace bench {
namespace {

constexpr uint32_t block_tokens_of(Layout layout) {
    return layout == Layout::blocks_16 ? 16 : layout == Layout::blocks_256 ? 256 : 0;
}

}  // namespace

LaidOut::LaidOut(const Shape &shape, int64_t n_tokens) : shape_(shape), n_tokens_(n_tokens) {
    if (const uint32_t block_tokens = block_tokens_of(shape.layout)) {
        blocks_.resize(static_cast<size_t>(n_tokens / block_tokens));
        std::iota(blocks_.begin(), blocks_.end(), 0);
        std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(1));
    }
}

kvl_view LaidOut::in_blocks(kvl_view view) const {
    view.blocks = blocks_.data();
    view.n_blocks = static_cast<uint32_t>(blocks_.size());
    view.block_tokens = block_tokens_of(shape_.layout);
    return view;
}

kvl_view LaidOut::rows(const void *k, const void *v) {
    const auto row = static_cast<int64_t>(shape_.row_bytes());
    const int64_t n_heads = shape_.model.n_kv_heads, block_tokens = block_tokens_of(shape_.layout);
    const bool by_token = shape_.layout == Layout::token_major;
    spans_[0] = {k, shape_.layout == Layout::latent ? k : v, n_tokens_};
    kvl_view view{};
    view.struct_size = sizeof view;
    view.n_kv_heads = shape_.model.n_kv_heads;
    view.head_dim = shape_.model.head_dim;
    view.v_head_dim = shape_.v_head_dim();
    view.k_format = static_cast<kvl_format>(shape_.k_format);
    view.v_format = static_cast<kvl_format>(shape_.v_format);
    view.k_token_stride_bytes = by_token ? n_heads * row : row;
    view.k_head_stride_bytes = by_token ? row : (block_tokens > 0 ? block_tokens : n_tokens_) * row;
    view.k_block_stride_bytes = n_heads * block_tokens * row;
    view.v_token_stride_bytes = view.k_token_stride_bytes;
    view.v_head_stride_bytes = view.k_head_stride_bytes;
    view.v_block_stride_bytes = view.k_block_stride_bytes;
    view.len = n_tokens_;
    view.spans = spans_;
    view.n_spans = 1;
    view.k_rotation = view.v_rotation = KVL_ROTATION_NONE;
    return in_blocks(view);
}

kvl_view LaidOut::tiles(kvl_view v) const {
    v.k_block_stride_bytes = block_tokens_of(shape_.layout) / tile_tokens * v.k_token_stride_bytes;
    return in_blocks(v);
}

kvl_view LaidOut::tiles_behind(const kvl_view &other, int64_t n_tokens, kvl_view v) {
    spans_[0] = *other.spans;
    spans_[0].n_tokens = n_tokens;
    spans_[1] = *v.spans;
    v.spans = spans_;
    v.n_spans = 2;
    v.len += n_tokens;
    return v;
}

}  // namespace bench

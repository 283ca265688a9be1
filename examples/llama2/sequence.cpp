#include "sequence.hpp"

namespace llama2 {
namespace {

kvlane::Layer cache_layer(const Config &config, const CacheFormat &format) {
    return {.n_kv_heads = config.n_kv_heads,
            .head_dim = config.head_dim(),
            .k_format = format.k,
            .v_format = format.v,
            .k_rotation = format.rotation,
            .v_rotation = format.rotation,
            .n_first_f16 = format.n_first_f16,
            .n_recent_f16 = format.n_recent_f16};
}

}  // namespace

// Caches of one capacity have the same strides, as the spans of one view must.
Sequence::Sequence(const Config &config, const CacheFormat &format, const Sequence *prefix)
    : prefix_(prefix), cache_(config.n_layers, cache_layer(config, format), config.seq_len) {}

kvl_view Sequence::view(uint32_t layer) {
    kvl_view view = cache_.view(layer);
    if (prefix_) {
        const kvl_view first = prefix_->cache_.view(layer);
        spans_ = {*first.spans, *view.spans};
        spans_[0].n_tokens = first.len;  // of the many that it has room for
        view.spans = spans_.data();
        view.n_spans = 2;
        view.len += first.len;
    }
    return view;
}

}  // namespace llama2

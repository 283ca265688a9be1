#include "sequence.hpp"

namespace llama2 {
namespace {

kvlane::Layer cache_layer(const Config &config, const CacheFormat &format) {
    return {.n_kv_heads = config.n_kv_heads,
            .head_dim = config.head_dim,
            .k_format = format.k,
            .v_format = format.v,
            .k_rotation = format.rotation,
            .v_rotation = format.rotation,
            .n_first_f16 = format.n_first_f16,
            .n_recent_f16 = format.n_recent_f16};
}

}  // namespace

CacheFormat cache_format(const std::string &name) {
    const size_t plus = name.find('+');
    return {.k = kvlane::format_from_name(name.substr(0, plus)),
            .v = kvlane::format_from_name(plus == std::string::npos ? name : name.substr(plus + 1))};
}

Sequence::Sequence(const Config &config, const CacheFormat &format, const Sequence *prefix)
    : prefix_(prefix), cache_(config.n_layers, cache_layer(config, format), config.seq_len) {}

kvl_view Sequence::view(uint32_t layer) {
    if (!prefix_) {
        return cache_.view(layer);
    }
    own_ = cache_.view(layer);
    kvl_view view = prefix_->cache_.view(layer);
    view.len += own_.len;
    view.next = own_.len > 0 ? &own_ : nullptr;
    return view;
}

}  // namespace llama2

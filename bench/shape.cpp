#include "shape.hpp"

#include <cmath>
#include <stdexcept>

#include "buffers.hpp"

namespace bench {

const Model &model_of(const std::string &name) {
    std::string known;
    for (const Model &model : models) {
        if (name == model.name) {
            return model;
        }
        known += std::string(" ") + model.name;
    }
    throw std::invalid_argument("--model is \"" + name + "\"; the models are" + known);
}

std::string Shape::format_name() const {
    const std::string k = kvl_format_name(static_cast<kvl_format>(k_format));
    const std::string v = kvl_format_name(static_cast<kvl_format>(v_format));
    return k == v ? k : k + "+" + v;
}

bool Shape::has_rows() const { return layout >= Layout::head_major && !is_quantized(); }

uint64_t Shape::row_bytes() const { return model.head_dim * element_bytes(k_format); }

kvlane::Layer Shape::layer() const {
    kvlane::Layer layer{
        .n_kv_heads = model.n_kv_heads, .head_dim = model.head_dim, .k_format = k_format, .v_format = v_format};
    if (layout == Layout::f16_window) {
        layer.n_first_f16 = n_first_f16;
        layer.n_recent_f16 = n_recent_f16;
    }
    return layer;
}

uint64_t Shape::bytes_per_token() const {
    const uint32_t planes = layout == Layout::latent ? 1 : 2;
    return has_rows() ? planes * model.n_kv_heads * row_bytes() : kvlane::Cache(1, layer(), 1).info(0).bytes_per_token;
}

std::vector<int64_t> Shape::lengths() const {
    if (n_sequences == 1) {
        return {ctx};
    }
    if (layout == Layout::prefix) {
        std::vector<int64_t> lengths(n_sequences, own_tokens);
        lengths.front() = max_len();
        return lengths;
    }
    // From the shortest up to ctx in equal ratios, long and short ones mixed.
    constexpr double shortest = 100;
    constexpr uint32_t step = 7;  // has no factor in common with a power of two
    std::vector<int64_t> lengths;
    for (uint32_t i = 0; i < n_sequences; ++i) {
        const double place = static_cast<double>(i * step % n_sequences) / (n_sequences - 1);
        lengths.push_back(std::llround(shortest * std::pow(static_cast<double>(ctx) / shortest, place)));
    }
    return lengths;
}

}  // namespace bench

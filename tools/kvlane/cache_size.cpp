#include "cache_size.hpp"

#include <algorithm>
#include <stdexcept>

#include "../../cache/f16_window.hpp"
#include "../../kernels/formats.hpp"

namespace tool {
namespace {

namespace format = kvlane::format;

kvlane::Layer layer_of(const ModelGeometry &model, const CacheOptions &options) {
    return {.n_kv_heads = model.n_kv_heads,
            .head_dim = model.head_dim,
            .v_head_dim = model.v_head_dim,
            .k_format = options.k_format,
            .v_format = options.v_format};
}

// The same layer's tokens that are kept in f16.
kvlane::Layer in_f16_window(kvlane::Layer layer) {
    const auto stored = [](kvlane::Format f) { return kvlane::Format{format::in_f16_window(static_cast<kvl_format>(f))}; };
    layer.k_format = stored(layer.k_format);
    layer.v_format = stored(layer.v_format);
    return layer;
}

TokenBytes bytes_per_token(const kvlane::Layer &layer) {
    const kvl_view tile = kvlane::tile_layout(layer, KVL_TILE_TOKENS);
    const auto of_heads = [&](int64_t bytes) { return static_cast<uint64_t>(bytes) * tile.n_kv_heads; };
    TokenBytes bytes;
    bytes.k = of_heads(format::row_bytes(tile.k_format, tile.head_dim));
    bytes.v = of_heads(format::row_bytes(tile.v_format, tile.v_head_dim));
    bytes.scales =
        of_heads(format::entry_bytes(tile.k_format, tile.head_dim) + format::entry_bytes(tile.v_format, tile.v_head_dim));
    bytes.padding = of_heads(tile.k_token_stride_bytes / KVL_TILE_TOKENS) - bytes.sum();
    return bytes;
}

// The window after the sequence's tokens have been appended, in one piece or in many.
kvlane::F16Window filled_window(const CacheOptions &options) {
    if (options.n_first_f16 == 0 && options.n_recent_f16 == 0) {
        return {};
    }
    kvlane::F16Window window(options.n_first_f16, options.n_recent_f16);
    window.quantize(window.cut(options.n_tokens));
    window.advance(options.n_tokens);
    return window;
}

// Tokens from `first` on that the next query reads in the layer's formats, or in f16.
int64_t n_read(const kvlane::F16Window &window, int64_t first, int64_t n_tokens, bool in_f16) {
    if (!window.is_used()) {
        return in_f16 ? 0 : n_tokens - first;
    }
    const int64_t cut = window.cut(n_tokens);
    const int64_t n_quantized = std::max<int64_t>(0, cut - std::max(first, window.n_first()));
    return in_f16 ? n_tokens - first - n_quantized : n_quantized;
}

uint64_t workspace_bytes(const ModelGeometry &model, const CacheOptions &options) {
    const kvlane::Attention attention({.n_query_heads = model.n_query_heads,
                                       .n_kv_heads = model.n_kv_heads,
                                       .head_dim = model.head_dim,
                                       .v_head_dim = model.v_head_dim,
                                       .k_format = options.k_format,
                                       .v_format = options.v_format});
    size_t bytes;
    kvlane::check(kvl_attention_workspace_size(attention.get(), options.n_sequences, options.n_tokens, options.n_queries,
                                               options.n_threads, &bytes));
    return bytes;
}

// Bytes that one token of one sequence reads in all layers.
uint64_t read_bytes(const ModelGeometry &model, int64_t n_tokens, const kvlane::F16Window &window, const TokenBytes &stored,
                    const TokenBytes &in_f16) {
    const auto of_layer = [&](int64_t first) {
        const auto n = [&](bool is_f16) { return static_cast<uint64_t>(n_read(window, first, n_tokens, is_f16)); };
        return n(false) * (stored.sum() - stored.padding) + n(true) * (in_f16.sum() - in_f16.padding);
    };
    const int64_t first_in_window = model.window > 0 ? std::max<int64_t>(0, n_tokens - model.window) : 0;
    return (model.n_layers - model.n_window_layers) * of_layer(0) + model.n_window_layers * of_layer(first_in_window);
}

// In double, because such a product may not fit into 64 bits.
void check_fits(const CacheSize &size, const TokenBytes &in_f16, const ModelGeometry &model, int64_t n_tokens) {
    constexpr double most = 1ll << 47;
    const double of_layer = static_cast<double>(size.n_stored_tokens) * static_cast<double>(size.per_token.sum()) +
                            static_cast<double>(size.n_f16_tokens) * static_cast<double>(in_f16.sum());
    if (model.n_layers * of_layer > most) {
        throw std::runtime_error("--ctx is " + std::to_string(n_tokens) +
                                 "; a cache has at most 2^47 bytes, which that many tokens of this model exceed");
    }
}

}  // namespace

CacheSize size_of_cache(const ModelGeometry &model, const CacheOptions &options) {
    const kvlane::Layer layer = layer_of(model, options);
    const TokenBytes stored = bytes_per_token(layer), in_f16 = bytes_per_token(in_f16_window(layer));
    const kvlane::F16Window window = filled_window(options);
    CacheSize size{};
    size.per_token = stored;
    for (const kvlane::Section &section : window.sections(options.n_tokens)) {
        (section.is_f16 ? size.n_f16_tokens : size.n_stored_tokens) += section.end - section.first;
    }
    check_fits(size, in_f16, model, options.n_tokens);
    size.f16_window = static_cast<uint64_t>(size.n_f16_tokens) * in_f16.sum();
    size.sequence_bytes = model.n_layers * (static_cast<uint64_t>(size.n_stored_tokens) * stored.sum() + size.f16_window);
    size.bytes = options.n_sequences * size.sequence_bytes;
    size.read_bytes = options.n_sequences * read_bytes(model, options.n_tokens, window, stored, in_f16);
    size.workspace_bytes = workspace_bytes(model, options);
    return size;
}

}  // namespace tool

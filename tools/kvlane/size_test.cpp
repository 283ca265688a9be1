// The sizes that are computed against those of caches that are made and filled.

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "cache_size.hpp"

namespace {

using kvlane::Format;

kvlane::Cache filled_cache(const tool::ModelGeometry &model, const tool::CacheOptions &options, int64_t at_once) {
    kvlane::Cache cache(model.n_layers,
                        {.n_kv_heads = model.n_kv_heads,
                         .head_dim = model.head_dim,
                         .v_head_dim = model.v_head_dim,
                         .k_format = options.k_format,
                         .v_format = options.v_format,
                         .n_first_f16 = options.n_first_f16,
                         .n_recent_f16 = options.n_recent_f16},
                        options.n_tokens);
    while (cache.len() < options.n_tokens) {
        const int64_t n = std::min(at_once, options.n_tokens - cache.len());
        const std::vector<float> k(static_cast<size_t>(n) * model.n_kv_heads * model.head_dim, 1.0f);
        const std::vector<float> v(static_cast<size_t>(n) * model.n_kv_heads * model.v_head_dim, 1.0f);
        for (uint32_t layer = 0; layer < model.n_layers; ++layer) {
            cache.append(layer, k, v);
        }
        cache.advance(n);
    }
    return cache;
}

// What kvl_attend_bytes counts for one query of a layer.
uint64_t bytes_of_call(const kvlane::Cache &cache, const tool::ModelGeometry &model, int64_t window) {
    kvlane::Geometry geometry = kvlane::geometry_of(cache, 0, model.n_query_heads);
    geometry.window = window;
    const kvlane::Attention attention(geometry);
    const kvl_view view = cache.view(0);
    const std::vector<float> q(size_t{model.n_query_heads} * model.head_dim);
    std::vector<float> out(size_t{model.n_query_heads} * model.v_head_dim);
    const kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = view.len, .q = q.data(), .out = out.data()};
    uint64_t bytes;
    kvlane::check(kvl_attend_bytes(attention.get(), &sequence, 1, &bytes));
    return bytes;
}

void check_size(const tool::ModelGeometry &model, const tool::CacheOptions &options) {
    const tool::CacheSize size = tool::size_of_cache(model, options);
    for (const int64_t at_once : {int64_t{1}, options.n_tokens}) {
        CAPTURE(at_once);
        const kvlane::Cache cache = filled_cache(model, options, at_once);
        CHECK(size.per_token.sum() == cache.info(0).bytes_per_token);
        CHECK(size.sequence_bytes == cache.bytes());
        CHECK(size.bytes == options.n_sequences * cache.bytes());
        const uint64_t of_full = bytes_of_call(cache, model, 0), of_window = bytes_of_call(cache, model, model.window);
        CHECK(size.read_bytes == options.n_sequences * ((model.n_layers - model.n_window_layers) * of_full +
                                                        model.n_window_layers * of_window));
    }
}

}  // namespace

TEST_CASE("a cache has the bytes that are computed: every pair of formats, with padding and without") {
    for (const auto &dims : {std::pair{64u, 64u}, {80u, 80u}, {33u, 7u}, {576u, 512u}}) {
        for (kvl_format k = 0; kvl_format_name(k); ++k) {
            for (kvl_format v = 0; kvl_format_name(v); ++v) {
                CAPTURE(dims.first);
                CAPTURE(k);
                CAPTURE(v);
                check_size({"", 2, 4, 2, dims.first, dims.second, 1, 50},
                           {.k_format = Format{k}, .v_format = Format{v}, .n_tokens = 130, .n_sequences = 3});
            }
        }
    }
}

TEST_CASE("a cache that keeps tokens in f16 has the bytes that are computed, at every length around a tile's") {
    for (const int64_t n_first : {0, 1, 64, 200}) {
        for (const int64_t n_recent : {0, 64, 100}) {
            if (n_first == 0 && n_recent == 0) {
                continue;
            }
            for (const int64_t n_tokens : {1, 63, 64, 65, 127, 128, 191, 192, 200, 320, 383, 450}) {
                CAPTURE(n_first);
                CAPTURE(n_recent);
                CAPTURE(n_tokens);
                check_size({"", 3, 4, 2, 64, 32, 2, 100}, {.k_format = Format::q8,
                                                           .v_format = Format::bf16,
                                                           .n_first_f16 = n_first,
                                                           .n_recent_f16 = n_recent,
                                                           .n_tokens = n_tokens});
            }
        }
    }
}

TEST_CASE("the parts of a token's bytes are those of its formats") {
    const tool::CacheSize size =
        tool::size_of_cache({"", 1, 4, 2, 80, 40}, {.k_format = Format::q4, .v_format = Format::q8, .n_tokens = 1});
    CHECK(size.per_token.k == 2 * 40);
    CHECK(size.per_token.v == 2 * 40);
    CHECK(size.per_token.scales == 2 * (4 + 3) + 2 * 4);  // groups of 32 elements have a multiplier
}

// Each family of the table in docs/models.md, with its true shape and rules, against the oracle.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "answers.hpp"
#include "row_memory.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;

namespace {

using Floats = std::vector<float>;

struct Family {
    const char *name;
    uint32_t n_query_heads;
    uint32_t n_kv_heads;
    uint32_t head_dim;
    int64_t window = 0;
    float softcap = 0;
    bool has_slopes = false;
    bool has_sink_logits = false;
    float scale = 0;
    uint32_t v_head_dim = 0;       // 0: as head_dim
    bool values_are_keys = false;  // a value is the first v_head_dim elements of its key
};

// clang-format off
constexpr Family families[] = {
    {.name = "Llama 2 7B", .n_query_heads = 32, .n_kv_heads = 32, .head_dim = 128},
    {.name = "Llama 3 8B", .n_query_heads = 32, .n_kv_heads = 8, .head_dim = 128},
    {.name = "Llama 4 Scout", .n_query_heads = 40, .n_kv_heads = 8, .head_dim = 128},
    {.name = "Mistral 7B", .n_query_heads = 32, .n_kv_heads = 8, .head_dim = 128, .window = 4096},
    {.name = "Mixtral 8x7B", .n_query_heads = 32, .n_kv_heads = 8, .head_dim = 128},
    {.name = "Qwen2.5 0.5B", .n_query_heads = 14, .n_kv_heads = 2, .head_dim = 64},
    {.name = "Qwen3 30B-A3B", .n_query_heads = 32, .n_kv_heads = 4, .head_dim = 128},
    {.name = "Gemma 2 2B", .n_query_heads = 8, .n_kv_heads = 4, .head_dim = 256, .window = 4096, .softcap = 50},
    {.name = "Gemma 3 4B", .n_query_heads = 8, .n_kv_heads = 4, .head_dim = 256, .window = 1024},
    {.name = "Phi-3 mini", .n_query_heads = 32, .n_kv_heads = 32, .head_dim = 96, .window = 2047},
    {.name = "Phi-4", .n_query_heads = 40, .n_kv_heads = 10, .head_dim = 128},
    {.name = "gpt-oss 20B", .n_query_heads = 64, .n_kv_heads = 8, .head_dim = 64, .window = 128, .has_sink_logits = true},
    {.name = "DeepSeek V3", .n_query_heads = 128, .n_kv_heads = 1, .head_dim = 576, .scale = 0.0721688f, .v_head_dim = 512,
     .values_are_keys = true},
    {.name = "Falcon 7B", .n_query_heads = 71, .n_kv_heads = 1, .head_dim = 64},
    {.name = "MPT 7B", .n_query_heads = 32, .n_kv_heads = 32, .head_dim = 128, .has_slopes = true},
    {.name = "BLOOM 560M", .n_query_heads = 16, .n_kv_heads = 16, .head_dim = 64, .has_slopes = true},
    {.name = "StarCoder", .n_query_heads = 48, .n_kv_heads = 1, .head_dim = 128},
    {.name = "StarCoder2 7B", .n_query_heads = 36, .n_kv_heads = 4, .head_dim = 128, .window = 4096},
    {.name = "SmolLM2 135M", .n_query_heads = 9, .n_kv_heads = 3, .head_dim = 64},
};
// clang-format on

// 2^(-8 (h + 1) / n): exact for powers of two, and near enough for others here.
Floats alibi_slopes(uint32_t n) {
    Floats slopes(n);
    for (uint32_t h = 0; h < n; ++h) {
        slopes[h] = std::exp2(-8.0f * static_cast<float>(h + 1) / static_cast<float>(n));
    }
    return slopes;
}

kvlane::Geometry geometry_of(const Family &f, Format format, const Floats &slopes, const Floats &logits) {
    kvlane::Geometry g{.n_query_heads = f.n_query_heads,
                       .n_kv_heads = f.n_kv_heads,
                       .head_dim = f.head_dim,
                       .v_head_dim = f.v_head_dim,
                       .k_format = format,
                       .v_format = format,
                       .scale = f.scale,
                       .window = f.window,
                       .softcap = f.softcap,
                       .precision = kvlane::Precision::exact};
    g.alibi_slopes = f.has_slopes ? std::span<const float>(slopes) : std::span<const float>();
    g.sink_logits = f.has_sink_logits ? std::span<const float>(logits) : std::span<const float>();
    return g;
}

// The first v_head_dim of every head_dim elements.
Floats beginnings(const Floats &rows, size_t head_dim, size_t v_head_dim) {
    Floats values;
    for (size_t at = 0; at < rows.size(); at += head_dim) {
        values.insert(values.end(), rows.begin() + static_cast<std::ptrdiff_t>(at),
                      rows.begin() + static_cast<std::ptrdiff_t>(at + v_head_dim));
    }
    return values;
}

void check(const Family &f, Format format, int64_t len) {
    INFO(std::string(f.name) << ", " << std::string(test::name_of(format)) << ", len " << len);
    const uint32_t v_head_dim = f.v_head_dim ? f.v_head_dim : f.head_dim;
    const Floats slopes = alibi_slopes(f.n_query_heads), logits = test::random_values(f.n_query_heads, 9);
    const kvlane::Geometry g = geometry_of(f, format, slopes, logits);
    Cache cache(1, {f.n_kv_heads, f.head_dim, f.values_are_keys ? 1 : v_head_dim, format, format}, len,
                KVL_CACHE_NO_HUGE_PAGES);
    test::fill_random(cache, len, 1);
    const Floats k = cache.read_k(0), v = f.values_are_keys ? beginnings(k, f.head_dim, v_head_dim) : cache.read_v(0);
    std::optional<test::RowMemory> keys;  // values of tiles lie apart from keys
    kvl_view view = f.values_are_keys ? keys.emplace(cache).view() : cache.view(0);
    kvl_span span = view.spans[0];
    if (f.values_are_keys) {
        span.v = span.k;
        view.v_head_dim = v_head_dim;
        view.v_token_stride_bytes = view.k_token_stride_bytes;
        view.v_head_stride_bytes = view.k_head_stride_bytes;
        view.spans = &span;
    }
    const Floats q = test::random_values(size_t{f.n_query_heads} * f.head_dim, 7);
    const test::Answer got = test::attend(Attention(g), view, len, q);
    CHECK(test::relative_error(got.out, test::expected(g, len, q, k, v).out) <= 4e-6);

    Floats out(got.out.size());
    const kvl_sequence sequence =
        kvlane::Sequence{.view = &view, .len = len, .n_queries = 1, .q = q.data(), .out = out.data()};
    uint64_t bytes = 0;
    kvlane::check(kvl_attend_bytes(Attention(g).get(), &sequence, 1, &bytes));
    const auto row = [&](uint32_t dim) {
        return test::row_bytes(static_cast<kvl_format>(format), dim) +
               test::entry_bytes(static_cast<kvl_format>(format), dim);
    };
    const int64_t n_seen = f.window > 0 ? std::min(len, f.window) : len;
    const uint64_t of_token = f.n_kv_heads * (row(f.head_dim) + (f.values_are_keys ? 0 : row(v_head_dim)));
    CHECK(bytes == static_cast<uint64_t>(n_seen) * of_token);
}

}  // namespace

TEST_CASE("models: every family's attention equals the oracle, in f16 past its window and in q8 within it") {
    for (const Family &f : families) {
        check(f, Format::f16, std::max<int64_t>(300, f.window + 100));
        if (!f.values_are_keys) {  // keys of q8 are rotated, values are not
            check(f, Format::q8, 300);
        }
    }
}

TEST_CASE("models: latent attention equals the oracle for 16 to 128 heads, and counts what is both key and value once") {
    for (const uint32_t n_query_heads : {16u, 20u, 64u, 128u}) {
        for (const Format format : {Format::f32, Format::f16, Format::bf16}) {
            check({.name = "latent",
                   .n_query_heads = n_query_heads,
                   .n_kv_heads = 1,
                   .head_dim = 576,
                   .scale = 0.0721688f,
                   .v_head_dim = 512,
                   .values_are_keys = true},
                  format, n_query_heads == 128 ? 100 : 600);
        }
    }
}

TEST_CASE("models: the table in docs/models.md has the shape of every family, and no other") {
    std::ifstream file(KVLANE_MODELS_PAGE);
    const std::string page{std::istreambuf_iterator<char>(file), {}};
    const size_t begin = page.find("## Table"), end = page.find("\n\nA model that is not listed", begin);
    REQUIRE(end != std::string::npos);
    const std::string section = page.substr(begin, end - begin);
    for (const Family &f : families) {
        const std::string row = std::string("\n| ") + f.name + " | " + std::to_string(f.n_query_heads) + " / " +
                                std::to_string(f.n_kv_heads) + " / " + std::to_string(f.head_dim) + " |";
        CAPTURE(row);
        CHECK(section.find(row) != std::string::npos);
    }
    constexpr size_t heading_rows = 2;
    size_t rows = 0;
    for (size_t at = section.find("\n|"); at != std::string::npos; at = section.find("\n|", at + 1)) {
        ++rows;
    }
    CHECK(rows == heading_rows + std::size(families));
}

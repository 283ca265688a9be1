// Queries, outputs and new tokens as callers have them: any strides, and f16 and bf16. Every result has the bits that
// consecutive f32 rows give.

#include <doctest/doctest.h>

#include <cstring>

#include "answers.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Geometry;
using test::Answer;
using test::cache_of;

namespace {

using Floats = std::vector<float>;
using Bytes = std::vector<std::byte>;

constexpr Format row_formats[] = {Format::f32, Format::f16, Format::bf16};

size_t element_bytes(Format format) { return format == Format::f32 ? 4 : 2; }

// What a caller's rounding to bf16, to nearest and ties to even, gives.
uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The same to f16, for normal numbers and 0.
uint16_t to_f16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude < 0x38800000) {  // below the least normal number: a multiple of 2^-24
        return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::lrint(std::abs(x) * 16777216.0f)));
    }
    return static_cast<uint16_t>(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

void store(Format format, float x, std::byte *to) {
    if (format == Format::f32) {
        std::memcpy(to, &x, sizeof x);
        return;
    }
    const uint16_t half = format == Format::f16 ? to_f16(x) : to_bf16(x);
    std::memcpy(to, &half, sizeof half);
}

// Rows [n_tokens][n_heads][dim] in memory of their own.
struct Rows {
    Format format;
    int64_t n_tokens, n_heads, dim, token_stride, head_stride;
    Bytes memory;

    std::byte *at(int64_t token, int64_t head, int64_t d) {
        return &memory[static_cast<size_t>(token * token_stride + head * head_stride) +
                       static_cast<size_t>(d) * element_bytes(format)];
    }
};

enum class Layout { consecutive, head_major, padded };

// `unused` fills what is between rows.
Rows rows_of(Layout layout, Format format, int64_t n_tokens, int64_t n_heads, int64_t dim, std::byte unused) {
    const auto size = static_cast<int64_t>(element_bytes(format));
    Rows rows{format, n_tokens, n_heads, dim, n_heads * dim * size, dim * size, {}};
    if (layout == Layout::head_major) {
        rows.token_stride = dim * size;
        rows.head_stride = n_tokens * dim * size;
    } else if (layout == Layout::padded) {
        rows.head_stride = (dim + 3) * size;
        rows.token_stride = n_heads * rows.head_stride + 5 * size;
    }
    rows.memory.assign(
        static_cast<size_t>((n_tokens - 1) * rows.token_stride + (n_heads - 1) * rows.head_stride + dim * size), unused);
    return rows;
}

// Stores values [n_tokens, n_heads, dim], each rounded to the format.
void fill(Rows &rows, const Floats &values) {
    for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
        store(rows.format, values[static_cast<size_t>(i)],
              rows.at(i / rows.dim / rows.n_heads, i / rows.dim % rows.n_heads, i % rows.dim));
    }
}

// The values as they are after rounding to the format.
Floats rounded(Format format, const Floats &values) {
    Floats result = values;
    for (float &x : result) {
        uint32_t bits;
        if (format == Format::bf16) {
            bits = uint32_t{to_bf16(x)} << 16;
            std::memcpy(&x, &bits, sizeof x);
        } else if (format == Format::f16) {
            const uint16_t half = to_f16(x);
            const float magnitude = (half & 0x7c00) == 0
                                        ? std::ldexp(static_cast<float>(half & 0x3ff), -24)
                                        : std::ldexp(static_cast<float>(1024 + (half & 0x3ff)), (half >> 10 & 31) - 25);
            x = half & 0x8000 ? -magnitude : magnitude;
        }
    }
    return result;
}

constexpr Layout layouts[] = {Layout::consecutive, Layout::head_major, Layout::padded};

constexpr uint32_t n_kv_heads = 2, group = 3, n_query_heads = n_kv_heads * group, head_dim = 40, v_head_dim = 24;
constexpr uint32_t n_queries = 5;
constexpr int64_t len = 700;

Geometry geometry(Format k_format = Format::f16, Format v_format = Format::f16) {
    return {.n_query_heads = n_query_heads,
            .n_kv_heads = n_kv_heads,
            .head_dim = head_dim,
            .v_head_dim = v_head_dim,
            .k_format = k_format,
            .v_format = v_format};
}

// One call with f32 queries and outputs that follow each other.
Answer plain(const Geometry &g, const Cache &cache, const Floats &q) {
    return test::attend(Attention(g), cache.view(0), len, q, n_queries);
}

Floats queries() { return test::random_values(size_t{n_queries} * n_query_heads * head_dim, 7); }

kvlane::Sequence sequence_of(const kvl_view &view, Rows &q, Rows &out, Rows &lse) {
    return {.view = &view,
            .len = len,
            .n_queries = n_queries,
            .q = q.memory.data(),
            .out = out.memory.data(),
            .lse = reinterpret_cast<float *>(lse.memory.data()),
            .q_format = q.format,
            .out_format = out.format,
            .q_token_stride_bytes = q.token_stride,
            .q_head_stride_bytes = q.head_stride,
            .out_token_stride_bytes = out.token_stride,
            .out_head_stride_bytes = out.head_stride,
            .lse_token_stride_bytes = lse.token_stride,
            .lse_head_stride_bytes = lse.head_stride};
}

kvlane::Rows rows_of(Rows &k, Rows &v) {
    return {.n_tokens = k.n_tokens,
            .k = k.memory.data(),
            .v = v.memory.data(),
            .k_format = k.format,
            .v_format = v.format,
            .k_token_stride_bytes = k.token_stride,
            .k_head_stride_bytes = k.head_stride,
            .v_token_stride_bytes = v.token_stride,
            .v_head_stride_bytes = v.head_stride};
}

kvlane::Layer layer(Format format) {
    return {
        .n_kv_heads = n_kv_heads, .head_dim = head_dim, .v_head_dim = v_head_dim, .k_format = format, .v_format = format};
}

}  // namespace

TEST_CASE("layouts: queries and outputs of any strides and format have the bits of consecutive f32 rows") {
    const std::byte unused{0xa5};
    for (const Format stored : {Format::f32, Format::q8, Format::q4}) {  // queries as they are, quantized, rotated too
        const Geometry g = geometry(stored, stored);
        const Cache cache = cache_of(g, len);
        const kvl_view view = cache.view(0);
        const Attention attention(g);
        for (const Layout layout : layouts) {
            for (const Format format : row_formats) {
                kvlane::Workspace workspace = attention.workspace(1, len, n_queries, 1, format);
                INFO("format " << std::string(test::name_of(format)) << ", layout " << static_cast<int>(layout));
                const Answer expected = plain(g, cache, rounded(format, queries()));
                Rows q = rows_of(layout, format, n_queries, n_query_heads, head_dim, unused);
                Rows out = rows_of(layout, format, n_queries, n_query_heads, v_head_dim, unused);
                Rows lse = rows_of(layout, Format::f32, n_queries, n_query_heads, 1, unused);
                Rows want_out = out, want_lse = lse;
                fill(q, queries());
                fill(want_out, expected.out);
                fill(want_lse, expected.lse);
                attention.attend(sequence_of(view, q, out, lse), workspace);
                CHECK(out.memory == want_out.memory);  // what lies between rows too
                CHECK(lse.memory == want_lse.memory);
            }
        }
    }
}

TEST_CASE("layouts: outputs of several sequences may lie between each other, [head][token][dim]") {
    const Geometry g = geometry();
    const Cache cache = cache_of(g, len);
    const kvl_view view = cache.view(0);
    const Attention attention(g);
    const Floats q = queries();
    const Answer expected = plain(g, cache, q);
    constexpr int64_t row = v_head_dim * sizeof(float);
    Floats out(expected.out.size());  // [n_query_heads][n_queries][v_head_dim], a sequence for each query
    std::vector<kvl_sequence> sequences;
    for (uint32_t i = 0; i < n_queries; ++i) {
        sequences.push_back(kvlane::Sequence{.view = &view,
                                             .len = len - n_queries + 1 + i,
                                             .q = q.data() + i * n_query_heads * head_dim,
                                             .out = out.data() + i * v_head_dim,
                                             .out_head_stride_bytes = n_queries * row});
    }
    kvlane::Workspace workspace = attention.workspace(n_queries, len);
    attention.attend(sequences, workspace);
    for (uint32_t i = 0; i < n_queries; ++i) {
        for (uint32_t head = 0; head < n_query_heads; ++head) {
            const auto *got = &out[(head * n_queries + i) * v_head_dim];
            CHECK(test::same_bits({got, v_head_dim}, {&expected.out[(i * n_query_heads + head) * v_head_dim], v_head_dim}));
        }
    }
    sequences[1].out = out.data() + v_head_dim - 1;  // an element of the first one's
    CHECK_THROWS_WITH(attention.attend(sequences, workspace), doctest::Contains("sequences[0]'s out"));
}

TEST_CASE("layouts: rows that one sequence's own strides lay over each other are refused") {
    const Geometry g = geometry();
    const Cache cache = cache_of(g, len);
    const kvl_view view = cache.view(0);
    const Attention attention(g);
    const Floats q = queries();
    Floats out(q.size());
    kvlane::Workspace workspace = attention.workspace(1, len, n_queries);
    constexpr int64_t row = v_head_dim * sizeof(float);
    CHECK_THROWS_WITH(attention.attend({.view = &view,
                                        .len = len,
                                        .n_queries = n_queries,
                                        .q = q.data(),
                                        .out = out.data(),
                                        .out_token_stride_bytes = row,
                                        .out_head_stride_bytes = row},
                                       workspace),
                      doctest::Contains("sequences[0]'s out"));
}

TEST_CASE("layouts: appended rows of any strides and format are stored with the bits of consecutive f32 rows") {
    constexpr int64_t n_tokens = 150;
    const Floats k = test::random_values(n_tokens * n_kv_heads * head_dim, 1);
    const Floats v = test::random_values(n_tokens * n_kv_heads * v_head_dim, 2);
    for (const Format stored : test::all_formats()) {
        for (const Layout layout : layouts) {
            for (const Format format : row_formats) {
                INFO("rows in " << std::string(test::name_of(format)) << ", stored in "
                                << std::string(test::name_of(stored)));
                Rows k_rows = rows_of(layout, format, n_tokens, n_kv_heads, head_dim, std::byte{0xff});
                Rows v_rows = rows_of(layout, format, n_tokens, n_kv_heads, v_head_dim, std::byte{0xff});
                fill(k_rows, k);
                fill(v_rows, v);
                Cache expected(1, layer(stored), n_tokens), cache(1, layer(stored), n_tokens);
                expected.append(0, rounded(format, k), rounded(format, v));
                cache.append(0, rows_of(k_rows, v_rows));
                CHECK(test::same_bits(cache.read_k(0), expected.read_k(0)));
                CHECK(test::same_bits(cache.read_v(0), expected.read_v(0)));
            }
        }
    }
}

TEST_CASE("layouts: an exact conversion to f32 of rows in any format") {
    const Floats values = test::random_values(3 * 1500, 5);
    for (const Format format : row_formats) {
        Rows rows = rows_of(Layout::padded, format, 3, 1, 1500, std::byte{0xff});
        fill(rows, values);
        Floats converted(values.size());
        kvlane::check(kvl_rows_to_f32(static_cast<kvl_format>(format), rows.memory.data(), 3, 1500, rows.token_stride,
                                      converted.data()));
        CHECK(test::same_bits(converted, rounded(format, values)));
    }
}

TEST_CASE("layouts: infinity, NaN and overflow in queries and outputs are those of the formats") {
    Cache cache(1, {.n_kv_heads = 1, .head_dim = 16, .k_format = Format::f32, .v_format = Format::f32}, 8);
    Floats k(16, 0), v(16, 1);
    v[0] = 70000;  // over f16's largest number
    v[1] = INFINITY;
    v[2] = -INFINITY;
    v[3] = NAN;
    v[4] = 3.4e38f;  // rounds to infinity in bf16
    v[5] = 1e-8f;    // to 0 in f16
    cache.append(0, k, v);
    cache.advance();
    const kvl_view view = cache.view(0);
    const Attention attention(
        {.n_query_heads = 1, .n_kv_heads = 1, .head_dim = 16, .k_format = Format::f32, .v_format = Format::f32});
    for (const Format format : {Format::f16, Format::bf16}) {
        const std::vector<uint16_t> q(16, 0);
        std::vector<uint16_t> out(16);
        Floats read(16);
        kvlane::Workspace workspace = attention.workspace(1, 8, 1, 1, format);
        attention.attend(
            {.view = &view, .len = 1, .q = q.data(), .out = out.data(), .q_format = format, .out_format = format},
            workspace);
        kvlane::check(kvl_rows_to_f32(static_cast<kvl_format>(format), out.data(), 1, 16, 0, read.data()));
        CHECK(read[0] == (format == Format::f16 ? INFINITY : 70144.0f));
        CHECK(read[1] == INFINITY);
        CHECK(read[2] == -INFINITY);
        CHECK(std::isnan(read[3]));
        CHECK(read[4] == INFINITY);
        CHECK((read[5] == 0) == (format == Format::f16));
        CHECK(read[6] == 1);
    }
    for (const uint16_t half : {uint16_t{0x7c00}, uint16_t{0x7e00}}) {  // infinity and NaN of f16, as a query
        const std::vector<uint16_t> q(16, half);
        Floats out(16), lse(1);
        kvlane::Workspace workspace = attention.workspace(1, 8);
        attention.attend(
            {.view = &view, .len = 1, .q = q.data(), .out = out.data(), .lse = lse.data(), .q_format = Format::f16},
            workspace);
        CHECK(std::isnan(lse[0]));  // times keys of 0
    }
}

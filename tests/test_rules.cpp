// Score rules: what a query sees, and how its scores become weights, against the oracle and alone.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "rules.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Geometry;
using test::Answer;
using test::attend;
using test::bound;
using test::cache_of;
using test::of_heads;
using test::queries_of;

namespace {

using Floats = std::vector<float>;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float quiet_nan = std::numeric_limits<float>::quiet_NaN();

Geometry geometry_of(Format format, uint32_t group = 3, uint32_t head_dim = 64) {
    Geometry g{.n_query_heads = 2 * group, .n_kv_heads = 2, .head_dim = head_dim, .k_format = format, .v_format = format};
    g.precision = test::usual_precision(g);
    return g;
}

void check_against_oracle(const Geometry &g, const Cache &cache, int64_t len) {
    const Floats q = queries_of(g);
    const Answer got = attend(Attention(g), cache.view(0), len, q);
    const oracle::Answer want = test::expected(g, len, q, cache.read_k(0), cache.read_v(0));
    const int64_t n_visible = g.window > 0 ? std::min(len, g.window + g.n_sink_tokens) : len;
    test::check_near(g, got.out, got.lse, want, n_visible);
}

}  // namespace

TEST_CASE("rules: each alone and together equal the oracle, for every format and group, at lengths around every bound") {
    constexpr uint32_t groups[] = {1, 4, 9};
    size_t i = 0;
    for (const Format format : test::all_formats()) {
        for (const test::NamedRules &rule : test::rules) {
            Geometry g = geometry_of(format, groups[i++ % std::size(groups)]);
            const Floats slopes = of_heads(g.n_query_heads, 0.5f, 0.7f), logits = of_heads(g.n_query_heads, 4, -0.9f);
            rule.apply(g, slopes, logits);
            const Cache cache = cache_of(g, 1500);
            for (const int64_t len : {0, 1, 64, 65, 299, 300, 301, 369, 371, 512, 513, 700, 1024, 1500}) {
                INFO(std::string(rule.name) << ", " << std::string(test::name_of(format)) << ", " << g.n_query_heads
                                            << " query heads, len " << len);
                check_against_oracle(g, cache, len);
            }
        }
    }
}

TEST_CASE("rules: they hold for any head_dim, scale and pair of formats") {
    const Floats slopes = of_heads(6, 0.25f, 0.5f), logits = of_heads(6, 1, 0.5f);
    for (const uint32_t head_dim : {1u, 40u, 80u, 256u}) {
        for (const auto &formats :
             {std::pair{Format::f16, Format::q8}, {Format::q4, Format::f32}, {Format::bf16, Format::f16}}) {
            const Format k = formats.first, v = formats.second;
            Geometry g = geometry_of(k, 3, head_dim);
            g.v_format = v;
            g.v_head_dim = 2 * head_dim - 1;
            g.scale = 0.3f;
            g.window = 100;
            g.n_sink_tokens = 3;
            g.softcap = 5;
            g.alibi_slopes = slopes;
            g.sink_logits = logits;
            INFO("head_dim " << head_dim << ", " << std::string(test::name_of(k)) << "+" << std::string(test::name_of(v)));
            check_against_oracle(g, cache_of(g, 700), 700);
        }
    }
}

TEST_CASE("rules: tokens that are kept in f16 beside integers are seen by position") {
    for (const int64_t window : {40, 200, 500}) {
        Geometry g = geometry_of(Format::q8);
        g.window = window;
        g.n_sink_tokens = 10;
        const Floats slopes = of_heads(g.n_query_heads, 0.1f, 0.5f);
        g.alibi_slopes = slopes;
        Cache cache(1,
                    {.n_kv_heads = 2,
                     .head_dim = 64,
                     .k_format = Format::q8,
                     .v_format = Format::q8,
                     .n_first_f16 = 64,
                     .n_recent_f16 = 128},
                    700);
        test::fill_random(cache, 700, 1);
        INFO("window " << window);
        check_against_oracle(g, cache, 700);
    }
}

TEST_CASE("rules: what is outside of the window is not read") {
    constexpr int64_t len = 1400;
    for (const Format format : {Format::f32, Format::f16, Format::q8}) {
        Geometry g = geometry_of(format);
        g.window = 200;
        g.n_sink_tokens = 5;
        const Cache clean = cache_of(g, len);
        Floats k = test::random_values(static_cast<size_t>(len) * 128, 1), v = test::random_values(k.size(), 2);
        std::fill(k.begin() + 5 * 128, k.end() - 200 * 128, quiet_nan);
        std::fill(v.begin() + 5 * 128, v.end() - 200 * 128, infinity);
        Cache spoilt(1, {2, 64, 0, format, format}, len);
        spoilt.append(0, k, v);
        spoilt.advance(len);
        const Floats q = queries_of(g);
        CHECK(attend(Attention(g), spoilt.view(0), len, q) == attend(Attention(g), clean.view(0), len, q));

        uint64_t bytes = 0, row_bytes = 0;
        const kvl_view view = clean.view(0);
        Floats out(q.size());
        kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = len, .q = q.data(), .out = out.data()};
        kvlane::check(kvl_attend_bytes(Attention(g).get(), &sequence, 1, &bytes));
        sequence.len = 1;
        kvlane::check(kvl_attend_bytes(Attention(g).get(), &sequence, 1, &row_bytes));
        CHECK(bytes == 205 * row_bytes);
    }
}

TEST_CASE("rules: those that change nothing give the bits of none") {
    constexpr int64_t len = 700;
    for (const Format format : test::all_formats()) {
        const Geometry plain = geometry_of(format);
        const Cache cache = cache_of(plain, len);
        const Floats q = queries_of(plain);
        const Answer want = attend(Attention(plain), cache.view(0), len, q);
        Geometry wide = plain;
        wide.window = len;
        CHECK(attend(Attention(wide), cache.view(0), len, q) == want);
        wide.window = 100;
        wide.n_sink_tokens = len - 100;
        CHECK(attend(Attention(wide), cache.view(0), len, q) == want);
        const Floats none(plain.n_query_heads, -infinity);
        Geometry no_sink = plain;
        no_sink.sink_logits = none;
        CHECK(attend(Attention(no_sink), cache.view(0), len, q) == want);
    }
}

TEST_CASE("rules: the bits do not depend on threads or on the other rows of the group") {
    constexpr int64_t len = 1500;
    const Floats slopes = of_heads(24, 0.5f, 0.8f), logits = of_heads(24, 3, 0.7f);
    for (const Format format : test::all_formats()) {
        Geometry g = geometry_of(format, 12);
        g.window = 900;
        g.n_sink_tokens = 3;
        g.softcap = 3;
        g.alibi_slopes = slopes;
        g.sink_logits = logits;
        const Cache cache = cache_of(g, len);
        const Floats q = queries_of(g);
        const Answer want = attend(Attention(g), cache.view(0), len, q);
        test::ThreadPool pool(3);
        const kvl_executor executor = pool.executor();
        CHECK(attend(Attention(g), cache.view(0), len, q, 1, &executor) == want);

        // The first query head of each KV head alone.
        Geometry alone = g;
        alone.n_query_heads = 2;
        const Floats two_slopes = {slopes[0], slopes[12]}, two_logits = {logits[0], logits[12]};
        alone.alibi_slopes = two_slopes;
        alone.sink_logits = two_logits;
        Floats two(q.begin(), q.begin() + 64);
        two.insert(two.end(), q.begin() + 12 * 64, q.begin() + 13 * 64);
        const Answer got = attend(Attention(alone), cache.view(0), len, two);
        for (const size_t i : {size_t{0}, size_t{1}}) {
            CHECK(test::same_bits(std::span(got.out).subspan(i * 64, 64), std::span(want.out).subspan(i * 12 * 64, 64)));
            CHECK(test::same_bits(std::span(got.lse).subspan(i, 1), std::span(want.lse).subspan(i * 12, 1)));
        }
    }
}

TEST_CASE("rules: a workspace for a length is enough for every shorter one") {
    for (const int64_t window : {1, 2, 511, 512, 513, 1024}) {
        for (const int64_t n_sink_tokens : {0, 1, 600}) {
            Geometry g = geometry_of(Format::f32, 1, 8);
            g.window = window;
            g.n_sink_tokens = n_sink_tokens;
            const Attention attention(g);
            const Cache cache = cache_of(g, 2600);
            const kvl_view view = cache.view(0);
            const Floats q = queries_of(g);
            Floats out(q.size());
            kvlane::Workspace workspace = attention.workspace(1, 2600);
            for (int64_t len = 0; len <= 2600; ++len) {
                const kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = len, .q = q.data(), .out = out.data()};
                uint32_t n_tasks;
                REQUIRE(kvl_attend_begin(attention.get(), &sequence, 1, workspace.data(), workspace.size(), 1, &n_tasks) ==
                        KVL_OK);
            }
        }
    }
}

TEST_CASE("rules: with no token, a sink's logit is all that lse holds") {
    const Floats logits = of_heads(6, 2, 0.5f);
    Geometry g = geometry_of(Format::f16);
    g.sink_logits = logits;
    const Answer got = attend(Attention(g), cache_of(g, 10).view(0), 0, queries_of(g));
    CHECK(test::same_bits(got.out, Floats(got.out.size(), 0.0f)));
    for (size_t h = 0; h < logits.size(); ++h) {
        CHECK(got.lse[h] == doctest::Approx(logits[h]).epsilon(1e-6));
    }
}

TEST_CASE("rules: a softcap bounds scores however large they are, and passes NaN on") {
    Geometry g = geometry_of(Format::f32, 1, 8);
    g.softcap = 30;
    g.scale = 1;
    Cache cache(1, {2, 8, 0, Format::f32, Format::f32}, 3);
    const Floats k = {1e30f,  0, 0, 0, 0, 0, 0, 0, 1,         0, 0, 0, 0, 0, 0, 0,  //
                      -1e30f, 0, 0, 0, 0, 0, 0, 0, 1,         0, 0, 0, 0, 0, 0, 0,  //
                      0,      0, 0, 0, 0, 0, 0, 0, quiet_nan, 0, 0, 0, 0, 0, 0, 0};
    cache.append(0, k, Floats(48, 1.0f));
    cache.advance(3);
    Floats q(16, 0.0f);
    q[0] = q[8] = 1;
    const Answer got = attend(Attention(g), cache.view(0), 3, q);
    CHECK(got.lse[0] == doctest::Approx(30).epsilon(1e-6));
    CHECK(got.out[0] == doctest::Approx(1).epsilon(1e-6));
    CHECK(std::isnan(got.out[8]));
}

TEST_CASE("rules: a softcap keeps the precision of what it caps, however large it is") {
    constexpr int64_t len = 4096;
    Geometry g = geometry_of(Format::f32, 4, 128);
    const Cache cache = cache_of(g, len);
    const Floats q = queries_of(g);
    for (const float softcap : {1.0f, 50.0f, 1e3f, 1e5f, 1e8f}) {
        g.softcap = softcap;
        INFO("softcap " << softcap);
        const oracle::Answer want = test::expected(g, len, q, cache.read_k(0), cache.read_v(0));
        const Answer got = attend(Attention(g), cache.view(0), len, q);
        CHECK(test::relative_error(got.out, want.out, test::usual_norm(got.out.size(), len)) <= 2e-6);
    }
}

TEST_CASE("rules: slopes or logits that are not one a query head are refused") {
    Geometry g = geometry_of(Format::f16);
    const Floats five(5, 1.0f);
    g.alibi_slopes = five;
    CHECK_THROWS_WITH_AS(Attention{g}, "alibi_slopes has 5 elements; it must have n_query_heads, 6, or none", kvlane::Error);
    g.alibi_slopes = {};
    g.sink_logits = five;
    CHECK_THROWS_WITH_AS(Attention{g}, "sink_logits has 5 elements; it must have n_query_heads, 6, or none", kvlane::Error);
}

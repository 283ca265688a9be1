// Several queries of a sequence in one call: each is as if it were alone.

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <string>

#include "answers.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Geometry;
using test::Answer;
using test::attend;
using test::cache_of;
using test::queries_of;
using test::query_of;

namespace {

using Floats = std::vector<float>;

constexpr uint32_t n_kv_heads = 2;
constexpr uint32_t head_dim = 48;
constexpr uint32_t v_head_dim = 40;

Geometry geometry_of(Format k_format, Format v_format, uint32_t group) {
    return {.n_query_heads = n_kv_heads * group,
            .n_kv_heads = n_kv_heads,
            .head_dim = head_dim,
            .v_head_dim = v_head_dim,
            .k_format = k_format,
            .v_format = v_format};
}

// The queries of the newest n_queries of len tokens, a call for each.
Answer one_by_one(const Geometry &g, const kvl_view &view, int64_t len, uint32_t n_queries, const Floats &q) {
    Answer answer;
    for (uint32_t i = 0; i < n_queries; ++i) {
        const Answer one = attend(Attention(g), view, len - n_queries + 1 + i, query_of(g, q, i));
        answer.out.insert(answer.out.end(), one.out.begin(), one.out.end());
        answer.lse.insert(answer.lse.end(), one.lse.begin(), one.lse.end());
    }
    return answer;
}

void check_alike(const Geometry &g, const Cache &cache, int64_t len, uint32_t n_queries) {
    const Floats q = queries_of(g, n_queries);
    INFO(std::string(test::name_of(g.k_format))
         << "+" << std::string(test::name_of(g.v_format)) << ", " << g.n_query_heads / n_kv_heads << " heads a KV head, "
         << n_queries << " queries of " << len);
    CHECK(attend(Attention(g), cache.view(0), len, q, n_queries) == one_by_one(g, cache.view(0), len, n_queries, q));
}

}  // namespace

TEST_CASE("queries: each has the bits that it has alone, whatever it shares reads with") {
    for (const Format format : test::all_formats()) {
        for (const uint32_t group : {1u, 3u, 8u, 40u}) {
            const Geometry g = geometry_of(format, format, group);
            const Cache cache = cache_of(g, 1200);
            for (const auto &[len, n_queries] : {std::pair{2, 2u},
                                                 {7, 7u},
                                                 {64, 3u},
                                                 {66, 4u},
                                                 {130, 9u},
                                                 {200, 200u},
                                                 {512, 2u},
                                                 {514, 5u},
                                                 {700, 1u},
                                                 {1030, 33u},
                                                 {1200, 16u}}) {
                if (group * n_queries <= 400) {
                    check_alike(g, cache, len, n_queries);
                }
            }
        }
    }
    check_alike(geometry_of(Format::f16, Format::f16, 1), cache_of(geometry_of(Format::f16, Format::f16, 1), 600), 600, 512);
    check_alike(geometry_of(Format::f16, Format::q8, 2), cache_of(geometry_of(Format::f16, Format::q8, 2), 300), 300, 20);
    check_alike(geometry_of(Format::q4, Format::bf16, 2), cache_of(geometry_of(Format::q4, Format::bf16, 2), 300), 300, 20);
}

TEST_CASE("queries: the bits of keys of 4 bits are those of one query, however few meet them as they are stored") {
    for (const uint32_t head_dim : {128u, 160u, 256u}) {
        for (const uint32_t group : {1u, 2u, 4u}) {
            Geometry g = geometry_of(Format::q4, Format::q4, group);
            g.head_dim = head_dim;
            const Cache cache = cache_of(g, 200);
            for (const uint32_t n_queries : {3u, 9u}) {
                check_alike(g, cache, 200, n_queries);
            }
        }
    }
}

TEST_CASE("queries: score rules hold for each at its own position") {
    for (const Format format : {Format::f32, Format::q8}) {
        Geometry g = geometry_of(format, format, 3);
        const Cache cache = cache_of(g, 1300);
        const Floats slopes(g.n_query_heads, 0.05f), logits(g.n_query_heads, 1.5f);
        g.softcap = 4;
        g.alibi_slopes = slopes;
        g.sink_logits = logits;
        check_alike(g, cache, 900, 12);
        for (const int64_t window : {1, 100, 512, 600}) {
            g.window = window;
            for (const int64_t n_sink_tokens : {0, 5, 700}) {
                g.n_sink_tokens = n_sink_tokens;
                for (const auto &[len, n_queries] : {std::pair{6, 6u}, {1029, 9u}, {1300, 40u}}) {
                    check_alike(g, cache, len, n_queries);
                }
            }
        }
    }
}

TEST_CASE("queries: tokens that are kept in f16 beside integers are seen by position") {
    const Geometry g = geometry_of(Format::q8, Format::q4, 2);
    Cache cache(1,
                {.n_kv_heads = n_kv_heads,
                 .head_dim = head_dim,
                 .v_head_dim = v_head_dim,
                 .k_format = Format::q8,
                 .v_format = Format::q4,
                 .n_first_f16 = 64,
                 .n_recent_f16 = 128},
                700);
    test::fill_random(cache, 700, 1);
    check_alike(g, cache, 700, 24);
}

TEST_CASE("queries: parts of a view may begin anywhere") {
    for (const Format format : {Format::f16, Format::q8, Format::q4}) {
        Geometry g = geometry_of(format, format, 2);
        g.k_rotation = g.v_rotation = kvlane::Rotation::none;
        const test::TwoParts parts(g, 100, 400);
        const Floats q = queries_of(g, 8);
        for (const int64_t len : {106, 170, 270, 500}) {
            INFO(std::string(test::name_of(format)) << ", len " << len);
            CHECK(attend(Attention(g), parts.view(), len, q, 8) == one_by_one(g, parts.view(), len, 8, q));
        }
    }
}

TEST_CASE("queries: none sees what stands behind its own token") {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    for (const Format format : test::all_formats()) {
        const Geometry g = geometry_of(format, format, 2);
        Cache cache(1, {n_kv_heads, head_dim, v_head_dim, format, format}, 100);
        test::fill_random(cache, 99, 1);
        cache.append(0, Floats(n_kv_heads * head_dim, nan), Floats(n_kv_heads * v_head_dim, nan));
        cache.advance();
        const Answer got = attend(Attention(g), cache.view(0), 100, queries_of(g, 4), 4);
        const auto is_nan = [](float x) { return x != x; };
        const auto last = got.out.end() - g.n_query_heads * v_head_dim;
        CHECK(std::none_of(got.out.begin(), last, is_nan));
        CHECK(std::all_of(last, got.out.end(), is_nan));
    }
}

TEST_CASE("queries: sequences with different numbers of them share a call, on any threads") {
    const Geometry g = geometry_of(Format::f16, Format::f16, 4);
    const Attention attention(g);
    const Cache cache = cache_of(g, 1100);
    const kvl_view view = cache.view(0);
    const uint32_t n_queries[] = {1, 20, 0, 3};
    const int64_t lens[] = {1100, 900, 513, 64};
    const Floats q = queries_of(g, 20);
    std::vector<Answer> answers(4);
    std::vector<kvl_sequence> sequences;
    for (size_t i = 0; i < 4; ++i) {
        const size_t n = std::max(1u, n_queries[i]);
        answers[i] = {Floats(n * g.n_query_heads * v_head_dim), Floats(n * g.n_query_heads)};
        sequences.push_back(kvlane::Sequence{.view = &view,
                                             .len = lens[i],
                                             .n_queries = n_queries[i],
                                             .q = q.data(),
                                             .out = answers[i].out.data(),
                                             .lse = answers[i].lse.data()});
    }
    kvlane::Workspace workspace = attention.workspace(4, 1100, 20, 3);
    test::ThreadPool pool(3);
    const kvl_executor executor = pool.executor();
    attention.attend(sequences, workspace, &executor);
    for (size_t i = 0; i < 4; ++i) {
        const uint32_t n = std::max(1u, n_queries[i]);
        const Floats own(q.begin(), q.begin() + static_cast<std::ptrdiff_t>(size_t{n} * g.n_query_heads * head_dim));
        CHECK(answers[i] == attend(attention, view, lens[i], own, n));
    }
}

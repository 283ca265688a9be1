// Which tokens a query sees by its position: causal order, an offset of it, and none.

#include <doctest/doctest.h>

#include "rules.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using test::Answer;
using test::cache_of;
using test::Floats;
using test::Geometry;

namespace {

constexpr uint32_t n_kv_heads = 2, group = 2, n_heads = n_kv_heads * group, head_dim = 32;

Geometry geometry() {
    return {.n_query_heads = n_heads,
            .n_kv_heads = n_kv_heads,
            .head_dim = head_dim,
            .k_format = Format::f32,
            .v_format = Format::f32};
}

Floats queries(uint32_t n) { return test::random_values(size_t{n} * n_heads * head_dim, 7); }

struct Asked {
    int64_t len;
    uint32_t n_queries;
    bool is_causal;
    int64_t causal_offset;
};

Answer attend(const Geometry &g, const kvl_view &view, const Asked &asked, const Floats &q) {
    Answer answer{Floats(q.size()), Floats(asked.n_queries * n_heads)};
    const Attention attention(g);
    kvlane::Workspace workspace = attention.workspace(1, asked.len, asked.n_queries);
    attention.attend({.view = &view,
                      .len = asked.len,
                      .n_queries = asked.n_queries,
                      .q = q.data(),
                      .out = answer.out.data(),
                      .lse = answer.lse.data(),
                      .is_causal = asked.is_causal,
                      .causal_offset = asked.causal_offset},
                     workspace);
    return answer;
}

// What the oracle says of query i.
oracle::Answer expected(const Geometry &g, const Cache &cache, const Asked &asked, uint32_t i, const Floats &q) {
    const Floats k = cache.read_k(0), v = cache.read_v(0), one = test::query_of(g, q, i);
    return oracle::attend(n_kv_heads, group, head_dim, head_dim, asked.len, 1 / std::sqrt(static_cast<double>(head_dim)),
                          one.data(), k.data(), v.data(),
                          {.window = g.window,
                           .n_sink_tokens = g.n_sink_tokens,
                           .softcap = g.softcap,
                           .alibi_slopes = g.alibi_slopes.empty() ? nullptr : g.alibi_slopes.data(),
                           .sink_logits = g.sink_logits.empty() ? nullptr : g.sink_logits.data(),
                           .is_causal = asked.is_causal,
                           .offset = asked.causal_offset - (asked.n_queries - 1) + i});
}

void check(const Geometry &g, const Cache &cache, const Asked &asked) {
    INFO("len " << asked.len << ", " << asked.n_queries << " queries, causal " << asked.is_causal << ", offset "
                << asked.causal_offset << ", window " << g.window);
    const Floats q = queries(asked.n_queries);
    const Answer answer = attend(g, cache.view(0), asked, q);
    for (uint32_t i = 0; i < asked.n_queries; ++i) {
        const auto of = [&](const Floats &all, size_t n) { return std::span(all).subspan(i * n, n); };
        test::check_near(g, of(answer.out, n_heads * head_dim), of(answer.lse, n_heads), expected(g, cache, asked, i, q), 1);
    }
}

constexpr Asked all_asked[] = {
    {700, 1, false, 0},                              // the last token, as in causal order
    {700, 1, false, -699},                           // the first one
    {1200, 40, false, 0},                            // the newest of an encoder's
    {1200, 3, false, -900}, {1200, 3, false, 5000},  // far behind all tokens
    {600, 70, true, -530},                           // cross attention, aligned to the first token
    {600, 70, true, 25},                             // the newest see all tokens
    {40, 90, true, 0},                               // queries before the first token
    {40, 90, false, 0},     {1, 3, true, 0},        {1, 3, false, 0}, {600, 5, true, -700},
};

}  // namespace

TEST_CASE("causal: queries see the tokens of their order and offset") {
    const Cache cache = cache_of(geometry(), 1200);
    for (const Asked &asked : all_asked) {
        check(geometry(), cache, asked);
    }
}

TEST_CASE("causal: rules apply to every order and offset") {
    const Floats slopes = test::of_heads(n_heads, 0.03f, 1.7f), logits = test::of_heads(n_heads, 0.5f, 2);
    const Cache cache = cache_of(geometry(), 1200);
    for (const test::NamedRules &rule : test::rules) {
        INFO(std::string(rule.name));
        Geometry g = geometry();
        rule.apply(g, slopes, logits);
        for (const Asked &asked : all_asked) {
            check(g, cache, asked);
        }
    }
}

TEST_CASE("causal: a query that sees no token has output 0 and lse -infinity") {
    const Cache cache = cache_of(geometry(), 40);
    const Answer answer = attend(geometry(), cache.view(0), {40, 90, true, 0}, queries(90));
    for (size_t i = 0; i < size_t{50} * n_heads; ++i) {
        CHECK(answer.lse[i] == -std::numeric_limits<float>::infinity());
        for (size_t d = 0; d < head_dim; ++d) {
            CHECK(answer.out[i * head_dim + d] == 0);
        }
    }
    CHECK(answer.lse[size_t{50} * n_heads] > -std::numeric_limits<float>::infinity());
}

TEST_CASE("causal: each query has the bits that it has alone, in every order") {
    Geometry g = geometry();
    const Cache cache = cache_of(g, 1200);
    for (const int64_t window : {int64_t{0}, int64_t{200}}) {
        g.window = window;
        for (const bool is_causal : {false, true}) {
            const Floats q = queries(33);
            const Answer together = attend(g, cache.view(0), {1200, 33, is_causal, -600}, q);
            for (uint32_t i = 0; i < 33; ++i) {
                const Answer alone =
                    attend(g, cache.view(0), {1200, 1, is_causal, -600 - 32 + int64_t{i}}, test::query_of(g, q, i));
                const auto of = [&](const Floats &all, size_t n) { return std::span(all).subspan(i * n, n); };
                CHECK(test::same_bits(of(together.out, n_heads * head_dim), alone.out));
                CHECK(test::same_bits(of(together.lse, n_heads), alone.lse));
            }
        }
    }
}

TEST_CASE("causal: ranges without causal order merge to the whole, bit by bit") {
    const Geometry g = geometry();
    const Attention attention(g);
    const Cache cache = cache_of(g, 1200);
    const kvl_view view = cache.view(0);
    const Floats q = queries(4);
    const Answer whole = attend(g, view, {1200, 4, false, -1000}, q);
    std::vector<kvlane::Partial> partials;
    std::vector<kvl_partial> list;
    kvlane::Workspace workspace = attention.workspace(1, 1200, 4);
    for (int64_t first = 0; first < 1200; first += KVL_CHUNK_TOKENS) {
        list.push_back(partials.emplace_back(4, n_heads, head_dim).get());
        const kvl_range range =
            kvlane::Range{.first = first, .end = std::min<int64_t>(1200, first + KVL_CHUNK_TOKENS), .out = list.back()};
        attention.attend({.view = &view,
                          .len = 1200,
                          .n_queries = 4,
                          .q = q.data(),
                          .range = &range,
                          .is_causal = false,
                          .causal_offset = -1000},
                         workspace);
    }
    Answer merged{Floats(q.size()), Floats(whole.lse.size())};
    attention.merge(list, 4, merged.out.data(), merged.lse.data());
    CHECK(merged == whole);
}

TEST_CASE("causal: sequences without causal order share a prefix, with the bits that they have alone") {
    const Geometry g = geometry();
    const Attention attention(g);
    const Cache cache = cache_of(g, 1200);
    const kvl_view view = cache.view(0);
    const Floats q = queries(6);
    Answer together{Floats(q.size()), Floats(size_t{6} * n_heads)};
    std::vector<kvl_sequence> sequences;
    for (uint32_t i = 0; i < 3; ++i) {
        sequences.push_back(kvlane::Sequence{.view = &view,
                                             .len = 1100 + 50 * int64_t{i},
                                             .n_queries = 2,
                                             .q = &q[i * size_t{2} * n_heads * head_dim],
                                             .out = &together.out[i * size_t{2} * n_heads * head_dim],
                                             .lse = &together.lse[i * size_t{2} * n_heads],
                                             .is_causal = i == 1,
                                             .causal_offset = i == 1 ? 0 : -1000});
    }
    kvlane::Workspace workspace = attention.workspace(3, 1200, 2);
    attention.attend(sequences, workspace);
    for (uint32_t i = 0; i < 3; ++i) {
        const Floats own(q.begin() + i * 2 * n_heads * head_dim, q.begin() + (i + 1) * 2 * n_heads * head_dim);
        const Answer alone = attend(g, view, {sequences[i].len, 2, i == 1, sequences[i].causal_offset}, own);
        CHECK(test::same_bits(std::span(together.out).subspan(i * own.size(), own.size()), alone.out));
        CHECK(test::same_bits(std::span(together.lse).subspan(i * alone.lse.size(), alone.lse.size()), alone.lse));
    }
}

TEST_CASE("causal: orders and offsets over quantized tokens, with masks by head, equal the oracle") {
    Geometry g = geometry();
    g.k_format = g.v_format = Format::q8;
    g.precision = test::usual_precision(g);
    const Cache cache = cache_of(g, 700);  // no tokens in f16: what a cache reads back is what all queries see
    const Floats k = cache.read_k(0), v = cache.read_v(0), q = queries(3);
    std::vector<uint64_t> bits(size_t{n_heads} * 3 * 11);  // [n_heads][3 queries][words]
    for (size_t i = 0; i < bits.size(); ++i) {
        bits[i] = 0x9e3779b97f4a7c15 * (i + 1);
    }
    const kvl_mask mask =
        kvlane::Mask{.bits = bits.data(), .n_tokens = 700, .bits_stride_bytes = 88, .bits_head_stride_bytes = 264};
    const kvl_view view = cache.view(0);
    for (const int64_t window : {int64_t{0}, int64_t{150}}) {
        g.window = window;
        const Attention attention(g);
        kvlane::Workspace workspace = attention.workspace(1, 700, 3);
        for (const bool is_causal : {false, true}) {
            Floats out(q.size());
            attention.attend({.view = &view,
                              .len = 700,
                              .n_queries = 3,
                              .q = q.data(),
                              .out = out.data(),
                              .mask = &mask,
                              .is_causal = is_causal,
                              .causal_offset = -300},
                             workspace);
            for (uint32_t head = 0; head < n_heads; ++head) {
                for (uint32_t i = 0; i < 3; ++i) {
                    const Floats one = test::query_of(g, q, i);
                    const oracle::Answer want =
                        oracle::attend(n_kv_heads, group, head_dim, head_dim, 700,
                                       1 / std::sqrt(static_cast<double>(head_dim)), one.data(), k.data(), v.data(),
                                       {.window = window,
                                        .bits = &bits[(head * size_t{3} + i) * 11],
                                        .is_causal = is_causal,
                                        .offset = -302 + int64_t{i}});
                    const std::vector<double> row(want.out.begin() + head * head_dim,
                                                  want.out.begin() + (head + 1) * head_dim);
                    CHECK(test::relative_error(std::span(out).subspan((i * n_heads + head) * head_dim, head_dim), row,
                                               test::usual_norm(head_dim, 75)) <= test::bound(g));
                }
            }
        }
    }
}

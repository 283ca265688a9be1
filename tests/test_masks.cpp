// Masks: what each query sees is what its own bits and biases say, whoever shares the reads.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "row_memory.hpp"
#include "rules.hpp"

#if defined(__unix__)
#include <sys/mman.h>
#endif

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Geometry;
using test::Answer;
using test::attend;
using test::queries_of;
using test::query_of;
using test::same_bits;

namespace {

using Floats = std::vector<float>;

constexpr uint32_t n_kv_heads = 2;
constexpr uint32_t head_dim = 48;
constexpr uint32_t v_head_dim = 40;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float quiet_nan = std::numeric_limits<float>::quiet_NaN();

// Rows of bits and of biases that are used or not, behind each other with a gap.
class Mask {
public:
    Mask(uint32_t n_queries, int64_t n_tokens)
        : n_tokens_(n_tokens),
          words_(static_cast<size_t>(n_tokens + 63) / 64 + 1),
          floats_(static_cast<size_t>(n_tokens) + 3),
          bits_(words_ * n_queries),
          biases_(floats_ * n_queries) {}

    void show(uint32_t query, int64_t token, bool is_visible = true) {
        uint64_t &word = bits_[query * words_ + static_cast<size_t>(token) / 64];
        const uint64_t bit = uint64_t{1} << token % 64;
        word = is_visible ? word | bit : word & ~bit;
    }
    bool shows(uint32_t query, int64_t token) const { return bits(query)[token / 64] >> token % 64 & 1; }
    float &bias(uint32_t query, int64_t token) { return biases_[query * floats_ + static_cast<size_t>(token)]; }
    const uint64_t *bits(uint32_t query) const { return &bits_[query * words_]; }
    const float *biases(uint32_t query) const { return &biases_[query * floats_]; }

    // Of the queries from that one on.
    kvl_mask get(bool has_bits = true, bool has_biases = false, uint32_t first = 0) const {
        return kvlane::Mask{.bits = has_bits ? bits(first) : nullptr,
                            .biases = has_biases ? biases(first) : nullptr,
                            .n_tokens = n_tokens_,
                            .bits_stride_bytes = static_cast<int64_t>(words_ * sizeof(uint64_t)),
                            .biases_stride_bytes = static_cast<int64_t>(floats_ * sizeof(float))};
    }

private:
    int64_t n_tokens_;
    size_t words_, floats_;
    std::vector<uint64_t> bits_;
    Floats biases_;
};

// What share of the tokens is visible, by the tile or token by token.
struct Pattern {
    const char *name;
    double (*share)(int64_t token, std::mt19937 &generator);
    bool is_tree = false;  // queries differ in the last tokens alone
};

constexpr Pattern patterns[] = {
    {"all", [](int64_t, std::mt19937 &) { return 1.0; }},
    {"none", [](int64_t, std::mt19937 &) { return 0.0; }},
    {"few", [](int64_t, std::mt19937 &) { return 0.03; }},
    {"half", [](int64_t, std::mt19937 &) { return 0.5; }},
    {"most", [](int64_t, std::mt19937 &) { return 0.97; }},
    {"padding in front", [](int64_t token, std::mt19937 &) { return token < 301 ? 0.0 : 1.0; }},
    {"a chunk of none", [](int64_t token, std::mt19937 &) { return token / KVL_CHUNK_TOKENS == 1 ? 0.0 : 0.8; }},
    {"every other tile", [](int64_t token, std::mt19937 &) { return token / 64 % 2 == 0 ? 0.0 : 0.9; }},
    {"a tree", [](int64_t, std::mt19937 &) { return 1.0; }, true},
};

// Biases hide what bits of another seed hide.
Mask mask_of(const Pattern &pattern, uint32_t n_queries, int64_t len) {
    Mask mask(n_queries, len);
    std::mt19937 generator(3);
    std::uniform_real_distribution<double> uniform;
    for (uint32_t query = 0; query < n_queries; ++query) {
        for (int64_t t = 0; t < len; ++t) {
            const double share = pattern.share(t, generator);
            const bool is_of_branch =
                !pattern.is_tree || t < len - n_queries || t == len - n_queries + query || (t + query) % 3 == 0;
            mask.show(query, t, uniform(generator) < share && is_of_branch);
            const bool hides = uniform(generator) >= share || !is_of_branch;
            mask.bias(query, t) = hides ? -infinity : static_cast<float>(4 * uniform(generator) - 2);
        }
    }
    return mask;
}

Geometry geometry_of(Format format, uint32_t group) {
    return {.n_query_heads = n_kv_heads * group,
            .n_kv_heads = n_kv_heads,
            .head_dim = head_dim,
            .v_head_dim = v_head_dim,
            .k_format = format,
            .v_format = format};
}

Cache cache_of(Format format, int64_t len) { return test::cache_of(geometry_of(format, 1), len); }

// The queries of the newest n_queries of len tokens, a call for each with its own rows of the mask.
Answer one_by_one(const Geometry &g, const kvl_view &view, int64_t len, uint32_t n_queries, const Floats &q,
                  const Mask &mask, bool has_bits, bool has_biases) {
    Answer answer;
    for (uint32_t i = 0; i < n_queries; ++i) {
        const kvl_mask own = mask.get(has_bits, has_biases, i);
        const Answer one = attend(Attention(g), view, len - n_queries + 1 + i, query_of(g, q, i), 1, nullptr, &own);
        answer.out.insert(answer.out.end(), one.out.begin(), one.out.end());
        answer.lse.insert(answer.lse.end(), one.lse.begin(), one.lse.end());
    }
    return answer;
}

// A view's tokens as two spans that meet at one of them, of tiles at a multiple of 64.
struct Split {
    kvl_span spans[2];
    kvl_view view;

    Split(const kvl_view &of, int64_t at) : view(of) {
        const kvl_span &whole = *of.spans;
        const int64_t n_strides = of.flags & KVL_VIEW_TILES ? at / 64 : at;
        const auto behind = [&](const void *first, int64_t stride) {
            return static_cast<const std::byte *>(first) + n_strides * stride;
        };
        spans[0] = whole;
        spans[0].n_tokens = at;
        spans[1] = {behind(whole.k, of.k_token_stride_bytes), behind(whole.v, of.v_token_stride_bytes), of.len - at};
        view.spans = spans;
        view.n_spans = 2;
    }
};

void check_against_oracle(const Geometry &g, const Cache &cache, int64_t len, uint32_t n_queries, const Mask &mask,
                          bool has_bits, bool has_biases) {
    const Floats q = queries_of(g, n_queries), k = cache.read_k(0), v = cache.read_v(0);
    const kvl_mask given = mask.get(has_bits, has_biases);
    const Answer got = attend(Attention(g), cache.view(0), len, q, n_queries, nullptr, &given);
    for (uint32_t i = 0; i < n_queries; ++i) {
        const oracle::Answer want = test::expected(g, len - n_queries + 1 + i, query_of(g, q, i), k, v,
                                                   has_bits ? mask.bits(i) : nullptr, has_biases ? mask.biases(i) : nullptr);
        const auto out = std::span(got.out).subspan(i * want.out.size(), want.out.size());
        const auto lse = std::span(got.lse).subspan(i * want.lse.size(), want.lse.size());
        test::check_near(g, out, lse, want, len);
    }
}

bool is_nan(float x) { return std::isnan(x); }

}  // namespace

TEST_CASE("masks: bits, biases and both equal the oracle, for every format, group and rule") {
    constexpr uint32_t groups[] = {1, 4, 8}, numbers[] = {1, 5, 2, 9};
    size_t i = 0;
    for (const Format format : test::all_formats()) {
        for (const Pattern &pattern : patterns) {
            for (const test::NamedRules &rule : test::rules) {
                if (++i % 2 == 0) {
                    continue;  // every other one takes half as long
                }
                const uint32_t n_queries = numbers[i / 2 % std::size(numbers)];
                Geometry g = geometry_of(format, groups[i / 2 % std::size(groups)]);
                g.precision = test::usual_precision(g);
                const Floats slopes = test::of_heads(g.n_query_heads, 0.5f, 0.7f);
                const Floats logits = test::of_heads(g.n_query_heads, 4, -0.9f);
                rule.apply(g, slopes, logits);
                const int64_t len = i % 4 == 1 ? 1200 : 650;
                const bool has_bits = i % 5 < 3, has_biases = i % 5 > 1;
                INFO(std::string(test::name_of(format))
                     << ", " << std::string(pattern.name) << (has_bits ? ", bits" : "") << (has_biases ? ", biases" : "")
                     << ", " << std::string(rule.name) << ", " << g.n_query_heads << " query heads, " << n_queries
                     << " queries");
                check_against_oracle(g, cache_of(format, len), len, n_queries, mask_of(pattern, n_queries, len), has_bits,
                                     has_biases);
            }
        }
    }
}

TEST_CASE("masks: each query has the bits that it has alone, whatever it shares reads with, on any threads") {
    constexpr int64_t len = 1100;
    test::ThreadPool pool(3);
    const kvl_executor executor = pool.executor();
    for (const Format format : test::all_formats()) {
        const Cache cache = cache_of(format, len);
        for (const uint32_t group : {1u, 4u, 8u, 40u}) {
            for (const Pattern &pattern : patterns) {
                for (const bool has_biases : {false, true}) {
                    if (group != 4 && has_biases != (group == 8)) {
                        continue;  // both of one group, one of the others
                    }
                    const Geometry g = geometry_of(format, group);
                    const uint32_t n_queries = group > 8 ? 3 : 11;
                    const Mask mask = mask_of(pattern, n_queries, len);
                    const kvl_mask given = mask.get(!has_biases, has_biases);
                    const Floats q = queries_of(g, n_queries);
                    INFO(std::string(test::name_of(format)) << ", " << std::string(pattern.name)
                                                            << (has_biases ? ", biases" : ", bits") << ", group " << group);
                    CHECK(attend(Attention(g), cache.view(0), len, q, n_queries, &executor, &given) ==
                          one_by_one(g, cache.view(0), len, n_queries, q, mask, !has_biases, has_biases));
                }
            }
        }
    }
}

TEST_CASE("masks: queries whose heads do not fit together have the bits that each has alone") {
    constexpr int64_t len = 600;
    Geometry g = geometry_of(Format::f32, 16);
    g.head_dim = 1024;  // 9 rows of which are laid out at a time
    const Cache cache = test::cache_of(g, len);
    for (const Pattern &pattern : patterns) {
        const Mask mask = mask_of(pattern, 2, len);
        const kvl_mask given = mask.get();
        const Floats q = queries_of(g, 2);
        INFO(std::string(pattern.name));
        CHECK(attend(Attention(g), cache.view(0), len, q, 2, nullptr, &given) ==
              one_by_one(g, cache.view(0), len, 2, q, mask, true, false));
    }
}

TEST_CASE("masks: a row has the same bits whatever other query heads share its group") {
    constexpr int64_t len = 700;
    for (const Format format : test::all_formats()) {
        Geometry g = geometry_of(format, 4);
        g.precision = kvlane::Precision::exact;  // fast ones choose by the group
        const Cache cache = cache_of(format, len);
        const Mask mask = mask_of(patterns[3], 1, len);
        const kvl_mask given = mask.get(true, true);
        const Floats q = queries_of(g, 1);
        const Answer all = attend(Attention(g), cache.view(0), len, q, 1, nullptr, &given);
        Geometry alone = g;
        alone.n_query_heads = n_kv_heads;
        Floats two(q.begin(), q.begin() + head_dim);
        two.insert(two.end(), q.begin() + 4 * head_dim, q.begin() + 5 * head_dim);
        const Answer got = attend(Attention(alone), cache.view(0), len, two, 1, nullptr, &given);
        for (const size_t i : {size_t{0}, size_t{1}}) {
            CHECK(same_bits(std::span(got.out).subspan(i * v_head_dim, v_head_dim),
                            std::span(all.out).subspan(i * 4 * v_head_dim, v_head_dim)));
        }
    }
}

TEST_CASE("masks: one that shows all gives the bits of none") {
    constexpr int64_t len = 1300;
    for (const Format format : test::all_formats()) {
        Geometry g = geometry_of(format, 3);
        const Cache cache = cache_of(format, len);
        const Floats slopes(g.n_query_heads, 0.05f);
        for (const int64_t window : {0, 100, 600}) {
            for (const bool has_slopes : {false, true}) {
                g.window = window;
                g.alibi_slopes = has_slopes ? std::span<const float>(slopes) : std::span<const float>();
                const Floats q = queries_of(g, 6);
                const Mask mask = mask_of(patterns[0], 6, len);
                const kvl_mask given = mask.get();
                CHECK(attend(Attention(g), cache.view(0), len, q, 6, nullptr, &given) ==
                      attend(Attention(g), cache.view(0), len, q, 6));
            }
        }
    }
}

TEST_CASE("masks: what lies behind a query, or is hidden by a bias too, makes no difference to its bits") {
    constexpr int64_t len = 300;
    const Geometry g = geometry_of(Format::f16, 2);
    const Cache cache = cache_of(Format::f16, len);
    const Floats q = queries_of(g, 4);
    Mask mask = mask_of(patterns[3], 4, len), behind = mask;
    for (uint32_t query = 0; query < 4; ++query) {
        for (int64_t t = 0; t < len; ++t) {
            mask.bias(query, t) = mask.shows(query, t) ? 0.25f : -infinity;
            behind.bias(query, t) = mask.bias(query, t);
            if (t > len - 4 + query) {
                behind.show(query, t, !mask.shows(query, t));
                behind.bias(query, t) = quiet_nan;
            }
        }
    }
    const auto with = [&](const Mask &m, bool has_bits, bool has_biases) {
        const kvl_mask given = m.get(has_bits, has_biases);
        return attend(Attention(g), cache.view(0), len, q, 4, nullptr, &given);
    };
    CHECK(with(mask, true, false) == with(behind, true, false));
    CHECK(with(mask, false, true) == with(behind, false, true));
    CHECK(with(mask, false, true) == with(mask, true, true));
}

TEST_CASE("masks: hidden tokens do not leak, NaN and infinity included, where another query sees them too") {
    constexpr int64_t len = 640, n_queries = 4;
    for (const Format format : test::all_formats()) {
        for (const Pattern &pattern : {patterns[2], patterns[3], patterns[4]}) {
            for (const bool has_biases : {false, true}) {
                const Geometry g = geometry_of(format, 2);
                Mask mask = mask_of(pattern, n_queries, len);
                const auto spoils = [](int64_t t) { return t % 7 == 3; };
                for (int64_t t = 0; t < len; ++t) {  // the third query alone sees what is spoilt, another tile's none
                    for (uint32_t query = 0; spoils(t) && query < n_queries; ++query) {
                        const bool is_visible = query == 2 && t >= 128;
                        mask.show(query, t, is_visible);
                        mask.bias(query, t) = is_visible ? 1 : -infinity;
                    }
                }
                Floats k = test::random_values(len * n_kv_heads * head_dim, 1);
                Floats v = test::random_values(len * n_kv_heads * v_head_dim, 2);
                Cache clean(1, {n_kv_heads, head_dim, v_head_dim, format, format}, len), spoilt = clean.copy();
                clean.append(0, k, v);
                clean.advance(len);
                for (int64_t t = 0; t < len; ++t) {
                    if (spoils(t)) {
                        std::fill_n(k.begin() + t * n_kv_heads * head_dim, n_kv_heads * head_dim, quiet_nan);
                        std::fill_n(v.begin() + t * n_kv_heads * v_head_dim, n_kv_heads * v_head_dim,
                                    t % 2 ? infinity : quiet_nan);
                    }
                }
                spoilt.append(0, k, v);
                spoilt.advance(len);
                const Floats q = queries_of(g, n_queries);
                const kvl_mask given = mask.get(!has_biases, has_biases);
                const Answer want = attend(Attention(g), clean.view(0), len, q, n_queries, nullptr, &given);
                Answer got = attend(Attention(g), spoilt.view(0), len, q, n_queries, nullptr, &given);
                const size_t rows = g.n_query_heads, third = rows * v_head_dim;
                CHECK(std::all_of(got.out.begin() + 2 * third, got.out.begin() + 3 * third, is_nan));
                std::copy_n(want.out.begin() + 2 * third, third, got.out.begin() + 2 * third);
                std::copy_n(want.lse.begin() + 2 * rows, rows, got.lse.begin() + 2 * rows);
                INFO(std::string(test::name_of(format)) << ", " << std::string(pattern.name));
                CHECK(got == want);
            }
        }
    }
}

#if defined(__unix__)
TEST_CASE("masks: keys and values that are hidden from all queries are not read, of tiles where these are hidden whole") {
    constexpr int64_t len = 700;
    void *const forbidden = mmap(nullptr, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(forbidden != MAP_FAILED);
    const auto check = [&](const Geometry &g, const kvl_view &whole, int first, int end) {
        const Floats q = queries_of(g, 3);
        Mask mask = mask_of(patterns[8], 3, len);
        for (uint32_t query = 0; query < 3; ++query) {
            for (int64_t t = first; t < end; ++t) {
                mask.show(query, t, false);
            }
        }
        const Split before(whole, first), behind(whole, end);
        const kvl_span spans[] = {before.spans[0], {forbidden, forbidden, end - first}, behind.spans[1]};
        kvl_view view = whole;
        view.spans = spans;
        view.n_spans = 3;
        const kvl_mask given = mask.get();
        INFO(std::string(kvl_format_name(view.k_format)) << ", " << first << " to " << end);
        CHECK(attend(Attention(g), view, len, q, 3, nullptr, &given) ==
              attend(Attention(g), whole, len, q, 3, nullptr, &given));
    };
    for (const Format format : test::all_formats()) {
        const Cache cache = cache_of(format, len);
        for (const auto &range : {std::pair{0, 64}, {64, 192}, {192, 512}, {512, 640}}) {
            check(geometry_of(format, 4), cache.view(0), range.first, range.second);
        }
    }
    for (const Format format : test::row_formats()) {
        const Cache cache = cache_of(format, len);
        test::RowMemory rows(cache);
        for (const auto &range : {std::pair{0, 64}, {64, 192}, {70, 71}, {100, 110}, {130, 520}, {512, 697}}) {
            check(geometry_of(format, 4), rows.view(), range.first, range.second);
        }
    }
    munmap(forbidden, 1 << 20);
}
#else
TEST_CASE("masks: keys and values that are hidden may be read here") { MESSAGE("skipped: this system has no mmap"); }
#endif

TEST_CASE("masks: spans of rows and of tiles give the bits of straight memory") {
    constexpr int64_t len = 1100;
    for (const Format format : test::all_formats()) {
        const Geometry g = geometry_of(format, 2);
        const Cache cache = cache_of(format, len);
        const Floats q = queries_of(g, 5);
        for (const Pattern &pattern : patterns) {
            const Mask mask = mask_of(pattern, 5, len);
            const kvl_mask given = mask.get(true, true);
            const Answer want = attend(Attention(g), cache.view(0), len, q, 5, nullptr, &given);
            const auto check = [&](const kvl_view &view, int64_t at) {
                const Split split(view, at);
                INFO(std::string(test::name_of(format)) << ", " << std::string(pattern.name) << ", split at " << at);
                CHECK(attend(Attention(g), split.view, len, q, 5, nullptr, &given) == want);
            };
            for (const int64_t at : {0, 64, 512, 576, 1088}) {
                check(cache.view(0), at);
            }
            if (test::is_scaled(format)) {
                continue;
            }
            test::RowMemory rows(cache);
            for (const int64_t at : {0, 1, 100, 512, 1099}) {
                check(rows.view(), at);
            }
        }
    }
}

TEST_CASE("masks: tokens that are kept in f16 beside integers are seen by position") {
    constexpr int64_t len = 700;
    Geometry g = geometry_of(Format::q8, 2);
    g.precision = kvlane::Precision::exact;
    const Floats slopes = test::of_heads(g.n_query_heads, 0.1f, 0.5f);
    g.alibi_slopes = slopes;
    Cache cache(1,
                {.n_kv_heads = n_kv_heads,
                 .head_dim = head_dim,
                 .v_head_dim = v_head_dim,
                 .k_format = Format::q8,
                 .v_format = Format::q8,
                 .n_first_f16 = 64,
                 .n_recent_f16 = 128},
                len);
    test::fill_random(cache, len, 1);
    const Floats q = queries_of(g, 6);
    for (const Pattern &pattern : patterns) {
        const Mask mask = mask_of(pattern, 6, len);
        const kvl_mask given = mask.get(true, true);
        INFO(std::string(pattern.name));
        check_against_oracle(g, cache, len, 6, mask, true, true);
        CHECK(attend(Attention(g), cache.view(0), len, q, 6, nullptr, &given) ==
              one_by_one(g, cache.view(0), len, 6, q, mask, true, true));
    }
}

TEST_CASE("masks: parts of a view may begin anywhere") {
    for (const Format format : {Format::q8, Format::q4}) {
        Geometry g = geometry_of(format, 2);
        g.k_rotation = g.v_rotation = kvlane::Rotation::none;
        const test::TwoParts parts(g, 100, 600);
        const Floats q = queries_of(g, 8);
        for (const Pattern &pattern : patterns) {
            for (const int64_t len : {106, 170, 700}) {
                const Mask mask = mask_of(pattern, 8, len);
                const kvl_mask given = mask.get(true, true);
                INFO(std::string(pattern.name) << ", len " << len);
                CHECK(attend(Attention(g), parts.view(), len, q, 8, nullptr, &given) ==
                      one_by_one(g, parts.view(), len, 8, q, mask, true, true));
            }
        }
    }
}

TEST_CASE("masks: partials of whole chunks, of memory that holds no more, merge to the bits of the whole call") {
    constexpr int64_t len = 1300, n_queries = 5;
    for (const Format format : test::all_formats()) {
        for (const Pattern &pattern : patterns) {
            for (const int64_t window : {0, 700}) {
                Geometry g = geometry_of(format, 3);
                g.window = window;
                g.n_sink_tokens = window ? 5 : 0;
                const Attention attention(g);
                const Cache cache = cache_of(format, len);
                const Floats q = queries_of(g, n_queries);
                const Mask mask = mask_of(pattern, n_queries, len);
                const kvl_mask given = mask.get(true, true);
                std::vector<kvlane::Partial> partials(3, kvlane::Partial(n_queries, g.n_query_heads, v_head_dim));
                std::vector<kvl_partial> list;
                for (int64_t i = 0; i < 3; ++i) {
                    const int64_t first = i * KVL_CHUNK_TOKENS, end = std::min<int64_t>(first + KVL_CHUNK_TOKENS, len);
                    const Split split(cache.view(0), first);
                    kvl_view view = split.view;
                    view.spans = &split.spans[1];
                    view.n_spans = 1;
                    view.len = end - first;
                    list.push_back(partials[static_cast<size_t>(i)].get());
                    const kvl_range range =
                        kvlane::Range{.view_first = first, .first = first, .end = end, .out = list.back()};
                    kvl_mask of_range = given;
                    of_range.n_tokens = end;
                    const kvl_sequence sequence = kvlane::Sequence{.view = &view,
                                                                   .len = len,
                                                                   .n_queries = n_queries,
                                                                   .q = q.data(),
                                                                   .range = &range,
                                                                   .mask = &of_range};
                    kvlane::Workspace workspace = attention.workspace(1, len, n_queries);
                    attention.attend(std::span(&sequence, 1), workspace);
                }
                const Answer want = attend(attention, cache.view(0), len, q, n_queries, nullptr, &given);
                Answer got{Floats(want.out.size()), Floats(want.lse.size())};
                attention.merge(list, n_queries, got.out.data(), got.lse.data());
                INFO(std::string(test::name_of(format)) << ", " << std::string(pattern.name) << ", window " << window);
                CHECK(got == want);
            }
        }
    }
}

TEST_CASE("masks: where all is hidden, out is 0, and lse minus infinity or the sink's logit") {
    Geometry g = geometry_of(Format::q4, 3);
    const Cache cache = cache_of(Format::q4, 600);
    const Floats q = queries_of(g, 2), logits = test::of_heads(g.n_query_heads, 2, 0.5f);
    const Mask mask = mask_of(patterns[1], 2, 600);
    for (const bool has_biases : {false, true}) {
        const kvl_mask given = mask.get(!has_biases, has_biases);
        g.sink_logits = {};
        const Answer nothing = attend(Attention(g), cache.view(0), 600, q, 2, nullptr, &given);
        CHECK(same_bits(nothing.out, Floats(nothing.out.size(), 0.0f)));
        CHECK(same_bits(nothing.lse, Floats(nothing.lse.size(), -infinity)));
        g.sink_logits = logits;
        const Answer sinks = attend(Attention(g), cache.view(0), 600, q, 2, nullptr, &given);
        CHECK(same_bits(sinks.out, Floats(sinks.out.size(), 0.0f)));
        for (size_t i = 0; i < sinks.lse.size(); ++i) {
            CHECK(sinks.lse[i] == doctest::Approx(logits[i % logits.size()]).epsilon(1e-6));
        }
    }
}

TEST_CASE("masks: a bias that is infinite or NaN shows; the lowest number weighs nothing, but does not hide") {
    const Geometry g = geometry_of(Format::f32, 2);
    const Cache cache = cache_of(Format::f32, 100);
    const Floats q = queries_of(g, 1);
    const auto with = [&](float bias, bool others) {
        Mask mask = mask_of(others ? patterns[3] : patterns[1], 1, 100);
        mask.show(0, 70);
        mask.bias(0, 70) = bias;
        const kvl_mask given = mask.get(true, true);
        return attend(Attention(g), cache.view(0), 100, q, 1, nullptr, &given);
    };
    for (const float bias : {infinity, quiet_nan}) {
        const Answer got = with(bias, true);
        CHECK(std::all_of(got.out.begin(), got.out.end(), is_nan));
    }
    constexpr float lowest = std::numeric_limits<float>::lowest();
    CHECK(with(lowest, true) == with(-infinity, true));
    CHECK(same_bits(with(lowest, false).out, with(0, false).out));
    CHECK(same_bits(with(lowest, false).lse, Floats(g.n_query_heads, lowest)));
}

TEST_CASE(
    "masks: queries share a row where the stride is 0, and sequences with and without masks share memory and the call") {
    constexpr int64_t len = 1100, n_queries = 3;
    const Geometry g = geometry_of(Format::f16, 4);
    const Attention attention(g);
    const Cache cache = cache_of(Format::f16, len);
    const kvl_view view = cache.view(0);
    const Floats q = queries_of(g, n_queries);
    const Mask one = mask_of(patterns[5], 1, len);
    Mask three(n_queries, len);
    for (uint32_t query = 0; query < n_queries; ++query) {
        for (int64_t t = 0; t < len; ++t) {
            three.show(query, t, one.shows(0, t));
        }
    }
    kvl_mask shared = one.get();
    shared.bits_stride_bytes = 0;
    const kvl_mask given = three.get();
    const Answer want = attend(attention, view, len, q, n_queries, nullptr, &given);
    CHECK(attend(attention, view, len, q, n_queries, nullptr, &shared) == want);
    Answer answers[] = {want, want, want};
    std::vector<kvl_sequence> sequences;
    for (Answer &answer : answers) {
        const kvl_mask *mask = &answer == &answers[1] ? nullptr : &shared;
        sequences.push_back(kvlane::Sequence{.view = &view,
                                             .len = len,
                                             .n_queries = n_queries,
                                             .q = q.data(),
                                             .out = answer.out.data(),
                                             .lse = answer.lse.data(),
                                             .mask = mask});
        std::fill(answer.out.begin(), answer.out.end(), 0.0f);
    }
    kvlane::Workspace workspace = attention.workspace(3, len, n_queries);
    attention.attend(sequences, workspace);
    CHECK(answers[0] == want);
    CHECK(answers[1] == attend(attention, view, len, q, n_queries));
    CHECK(answers[2] == want);
}

TEST_CASE("masks: bytes are counted of tokens that any query sees") {
    constexpr int64_t len = 700;
    constexpr uint64_t token = n_kv_heads * (head_dim + v_head_dim) * 2;
    Geometry g = geometry_of(Format::f16, 2);
    const Cache cache = cache_of(Format::f16, len);
    const kvl_view view = cache.view(0);
    const Floats q = queries_of(g, 3);
    Floats out(size_t{3} * g.n_query_heads * v_head_dim);
    Mask mask(3, len);
    for (const auto &[query, t] : {std::pair{0, 5}, {1, 5}, {1, 64}, {2, 300}, {0, 697}, {0, 698}, {2, 699}}) {
        mask.show(static_cast<uint32_t>(query), t);
    }
    const auto bytes_of = [&](const kvl_mask &given, const kvl_range *range = nullptr) {
        const kvl_sequence sequence = kvlane::Sequence{
            .view = &view, .len = len, .n_queries = 3, .q = q.data(), .out = out.data(), .range = range, .mask = &given};
        uint64_t bytes = 0;
        kvlane::check(kvl_attend_bytes(Attention(g).get(), &sequence, 1, &bytes));
        return bytes;
    };
    CHECK(bytes_of(mask.get()) == 5 * token);  // the first query does not see the token behind its own
    mask.bias(1, 64) = -infinity;
    CHECK(bytes_of(mask.get(true, true)) == 4 * token);
    CHECK(bytes_of(mask.get(false, true)) == len * token);
    kvlane::Partial partial(3, g.n_query_heads, v_head_dim);
    const kvl_range range = kvlane::Range{.first = 60, .end = 698, .out = partial.get()};
    CHECK(bytes_of(mask.get(), &range) == 3 * token);
    g.window = 390;
    CHECK(bytes_of(mask.get()) == 2 * token);  // the third query's window begins behind 300
}

TEST_CASE("masks: with rows of their own, query heads equal the oracle, and have the bits of a call for each head") {
    constexpr uint32_t group = 3, n_heads = n_kv_heads * group, n_queries = 4;
    constexpr int64_t len = 700;
    for (const Format format : {Format::f32, Format::q8}) {
        Geometry g = geometry_of(format, group);
        g.precision = test::usual_precision(g);
        const Cache cache = cache_of(format, len);
        const Floats q = queries_of(g, n_queries), k = cache.read_k(0), v = cache.read_v(0);
        const Mask mask = mask_of(patterns[3], n_heads * n_queries, len);  // [n_heads][n_queries] rows
        for (const auto &[has_bits, has_biases] : {std::pair{true, false}, {false, true}, {true, true}}) {
            kvl_mask by_head = mask.get(has_bits, has_biases);
            by_head.bits_head_stride_bytes = n_queries * by_head.bits_stride_bytes;
            by_head.biases_head_stride_bytes = n_queries * by_head.biases_stride_bytes;
            const Answer got = attend(Attention(g), cache.view(0), len, q, n_queries, nullptr, &by_head);
            for (uint32_t head = 0; head < n_heads; ++head) {
                const kvl_mask own = mask.get(has_bits, has_biases, head * n_queries);
                const Answer of_head = attend(Attention(g), cache.view(0), len, q, n_queries, nullptr, &own);
                for (uint32_t i = 0; i < n_queries; ++i) {
                    const size_t row = i * n_heads + head, first = row * v_head_dim;
                    const auto out = std::span(got.out).subspan(first, v_head_dim);
                    CHECK(same_bits(out, std::span(of_head.out).subspan(first, v_head_dim)));
                    CHECK(same_bits({&got.lse[row], 1}, {&of_head.lse[row], 1}));
                    const uint32_t mask_row = head * n_queries + i;
                    const oracle::Answer want = test::expected(g, len - n_queries + 1 + i, query_of(g, q, i), k, v,
                                                               has_bits ? mask.bits(mask_row) : nullptr,
                                                               has_biases ? mask.biases(mask_row) : nullptr);
                    const std::vector<double> of_row(want.out.begin() + head * v_head_dim,
                                                     want.out.begin() + (head + 1) * v_head_dim);
                    CHECK(test::relative_error(out, of_row, test::usual_norm(v_head_dim, len)) <= test::bound(g));
                }
            }
        }
    }
}

TEST_CASE("masks: bytes are counted of tokens that any query head of a KV head sees") {
    const Geometry g = geometry_of(Format::f32, 2);
    const Cache cache = cache_of(Format::f32, 200);
    const kvl_view view = cache.view(0);
    std::vector<uint64_t> bits(4 * 4);  // [n_heads][words]
    bits[0] = 0b111;                    // KV head 0: tokens 0, 1, 2 and 64
    bits[4 + 1] = 1;
    bits[8] = bits[12] = 0b11;  // KV head 1: 0 and 1, twice
    const kvl_mask mask = kvlane::Mask{.bits = bits.data(), .n_tokens = 200, .bits_head_stride_bytes = 32};
    const Floats q = queries_of(g);
    Floats out(size_t{4} * v_head_dim);
    const kvl_sequence sequence =
        kvlane::Sequence{.view = &view, .len = 200, .q = q.data(), .out = out.data(), .mask = &mask};
    uint64_t bytes;
    kvlane::check(kvl_attend_bytes(Attention(g).get(), &sequence, 1, &bytes));
    CHECK(bytes == (4 + 2) * (head_dim + v_head_dim) * sizeof(float));
}

TEST_CASE("masks: boolean bytes become bits") {
    constexpr int64_t n_rows = 3, n_tokens = 130, stride = 140;
    std::vector<uint8_t> bytes(n_rows * stride, 1);
    for (size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = i % 3 == 0 ? 0 : static_cast<uint8_t>(i);
    }
    std::vector<uint64_t> bits(n_rows * 3, ~uint64_t{0});
    kvlane::check(kvl_mask_bits_from_bytes(bytes.data(), n_rows, n_tokens, stride, bits.data()));
    for (int64_t row = 0; row < n_rows; ++row) {
        for (int64_t t = 0; t < 192; ++t) {
            const bool is_set = bits[static_cast<size_t>(row * 3 + t / 64)] >> t % 64 & 1;
            CHECK(is_set == (t < n_tokens && bytes[static_cast<size_t>(row * stride + t)] != 0));
        }
    }
}

TEST_CASE("masks: a token with NaN that one head of a group sees does not leak to the others") {
    constexpr uint32_t group = 2, n_heads = n_kv_heads * group;
    const Geometry g = geometry_of(Format::f32, group);
    Cache cache(1,
                {.n_kv_heads = n_kv_heads,
                 .head_dim = head_dim,
                 .v_head_dim = v_head_dim,
                 .k_format = Format::f32,
                 .v_format = Format::f32},
                100, KVL_CACHE_NO_HUGE_PAGES);
    Floats k = test::random_values(size_t{100} * n_kv_heads * head_dim, 1);
    Floats v = test::random_values(size_t{100} * n_kv_heads * v_head_dim, 2);
    std::fill_n(v.begin() + size_t{70} * n_kv_heads * v_head_dim, n_kv_heads * v_head_dim, quiet_nan);
    cache.append(0, k, v);
    cache.advance(100);
    std::vector<uint64_t> bits(size_t{n_heads} * 2, ~uint64_t{0});  // [n_heads][words]
    bits[2 * 1 + 1] &= ~(uint64_t{1} << (70 - 64));                 // head 1 does not see token 70
    const kvl_mask mask = kvlane::Mask{.bits = bits.data(), .n_tokens = 100, .bits_head_stride_bytes = 16};
    const Answer answer = attend(Attention(g), cache.view(0), 100, queries_of(g), 1, nullptr, &mask);
    for (uint32_t head = 0; head < n_heads; ++head) {
        const bool has_nan =
            std::any_of(answer.out.begin() + head * v_head_dim, answer.out.begin() + (head + 1) * v_head_dim, is_nan);
        CHECK(has_nan == (head != 1));
    }
}

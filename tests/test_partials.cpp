// Partials of ranges of a sequence's tokens, and their merge.

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "rules.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Geometry;
using kvlane::Partial;
using test::Answer;
using test::attend;

namespace {

using Floats = std::vector<float>;

constexpr uint32_t n_kv_heads = 2;
constexpr uint32_t group = 3;
constexpr uint32_t n_query_heads = n_kv_heads * group;
constexpr uint32_t head_dim = 48;
constexpr uint32_t v_head_dim = 41;  // whole vectors and a part of one, on every isa
constexpr int64_t chunk = KVL_CHUNK_TOKENS;
constexpr float infinity = std::numeric_limits<float>::infinity();

// With rules that refer to slopes and logits, of which it is the owner.
struct Rules {
    Floats slopes = test::of_heads(n_query_heads, 0.5f, 0.7f);
    Floats logits = test::of_heads(n_query_heads, 4, -0.9f);
    Geometry g;

    Rules(Format k, Format v, const test::NamedRules &rules)
        : g{.n_query_heads = n_query_heads,
            .n_kv_heads = n_kv_heads,
            .head_dim = head_dim,
            .v_head_dim = v_head_dim,
            .k_format = k,
            .v_format = v} {
        rules.apply(g, slopes, logits);
    }
};

const test::NamedRules &no_rules = test::rules[0];

Geometry plain(Format format) { return Rules(format, format, no_rules).g; }

// Tokens [first, end) of a sequence that is the same for all caches.
Cache cache_of(const Geometry &g, int64_t first, int64_t end) {
    static const Floats k = test::random_values(size_t{2000} * n_kv_heads * head_dim, 1);
    static const Floats v = test::random_values(size_t{2000} * n_kv_heads * v_head_dim, 2);
    const auto part = [=](const Floats &x, size_t entry) {
        return std::span(x).subspan(static_cast<size_t>(first) * entry, static_cast<size_t>(end - first) * entry);
    };
    Cache cache(1, {n_kv_heads, head_dim, v_head_dim, g.k_format, g.v_format}, std::max<int64_t>(1, end - first),
                KVL_CACHE_NO_HUGE_PAGES);
    if (end > first) {
        cache.append(0, part(k, n_kv_heads * head_dim), part(v, n_kv_heads * v_head_dim));
        cache.advance(end - first);
    }
    return cache;
}

Floats queries_of(uint32_t n_queries) { return test::random_values(size_t{n_queries} * n_query_heads * head_dim, 7); }

// Asks in one call for the partials of ranges that end at the ends, each of which begins where the one before it ends.
std::vector<Partial> partials_of(const Attention &attention, const kvl_view &view, int64_t len, const Floats &q,
                                 uint32_t n_queries, const std::vector<int64_t> &ends,
                                 const kvl_executor *executor = nullptr) {
    std::vector<Partial> partials(ends.size(), Partial(n_queries, n_query_heads, v_head_dim));
    std::vector<kvl_range> ranges;
    std::vector<kvl_sequence> sequences;
    ranges.reserve(ends.size());
    for (size_t i = 0; i < ends.size(); ++i) {
        ranges.push_back(kvlane::Range{.first = i == 0 ? 0 : ends[i - 1], .end = ends[i], .out = partials[i].get()});
        sequences.push_back(
            kvlane::Sequence{.view = &view, .len = len, .n_queries = n_queries, .q = q.data(), .range = &ranges[i]});
    }
    kvlane::Workspace workspace =
        attention.workspace(static_cast<uint32_t>(ends.size()), len, n_queries, kvlane::max_tasks(executor));
    attention.attend(sequences, workspace, executor);
    return partials;
}

Answer merge(const Attention &attention, std::vector<Partial> &partials, uint32_t n_queries) {
    std::vector<kvl_partial> list;
    for (Partial &partial : partials) {
        list.push_back(partial.get());
    }
    const size_t n_rows = size_t{n_queries} * n_query_heads;
    Answer answer{Floats(n_rows * v_head_dim), Floats(n_rows)};
    attention.merge(list, n_queries, answer.out.data(), answer.lse.data());
    return answer;
}

Answer merged(const Attention &attention, const kvl_view &view, int64_t len, const Floats &q, uint32_t n_queries,
              const std::vector<int64_t> &ends, const kvl_executor *executor = nullptr) {
    std::vector<Partial> partials = partials_of(attention, view, len, q, n_queries, ends, executor);
    return merge(attention, partials, n_queries);
}

// The partial of tokens [first, first + what the cache holds), whose memory is all that there is.
Partial partial_of(const Attention &attention, const Cache &cache, int64_t first, int64_t len, const Floats &q,
                   uint32_t n_queries) {
    const kvl_view view = cache.view(0);
    Partial partial(n_queries, static_cast<uint32_t>(q.size() / n_queries / view.head_dim), view.v_head_dim);
    const kvl_range range =
        kvlane::Range{.view_first = first, .first = first, .end = first + view.len, .out = partial.get()};
    const kvl_sequence sequence =
        kvlane::Sequence{.view = &view, .len = len, .n_queries = n_queries, .q = q.data(), .range = &range};
    kvlane::Workspace workspace = attention.workspace(1, len, n_queries);
    attention.attend(std::span(&sequence, 1), workspace);
    return partial;
}

std::vector<int64_t> whole_chunks(int64_t len) {
    std::vector<int64_t> ends;
    for (int64_t end = 0; end < len; ends.push_back(end)) {
        end = std::min(end + chunk, len);
    }
    return ends;
}

void check_against_oracle(Geometry g, const Cache &cache, int64_t len, const std::vector<int64_t> &ends) {
    g.precision = test::usual_precision(g);
    const Floats q = queries_of(1);
    const Answer got = merged(Attention(g), cache.view(0), len, q, 1, ends);
    const oracle::Answer want = test::expected(g, len, q, cache.read_k(0), cache.read_v(0));
    const int64_t n_visible = g.window > 0 ? std::min(len, g.window + g.n_sink_tokens) : len;
    test::check_near(g, got.out, got.lse, want, n_visible);
}

void check_empty(Partial &partial, uint32_t n_queries) {
    const kvl_partial p = partial.get();
    const size_t n_rows = size_t{n_queries} * n_query_heads;
    CHECK(std::all_of(p.m, p.m + n_rows, [](float m) { return m == -infinity; }));
    CHECK(std::all_of(p.l, p.l + n_rows, [](float l) { return l == 0; }));
    CHECK(std::all_of(p.o, p.o + n_rows * v_head_dim, [](float o) { return o == 0; }));
}

}  // namespace

TEST_CASE("partials: whole chunks, merged in order, have the bits of the whole call, for every format and rule") {
    for (const Format format : test::all_formats()) {
        for (const test::NamedRules &rules : test::rules) {
            const Rules r(format, format, rules);
            const Attention attention(r.g);
            const Cache cache = cache_of(r.g, 0, 1700);
            for (const uint32_t n_queries : {1u, 7u}) {
                const Floats q = queries_of(n_queries);
                for (const int64_t len : {7, 511, 512, 513, 640, 700, 1024, 1500}) {
                    INFO(std::string(test::name_of(format))
                         << ", " << std::string(rules.name) << ", " << n_queries << " queries of " << len);
                    const Answer want = attend(attention, cache.view(0), len, q, n_queries);
                    CHECK(merged(attention, cache.view(0), len, q, n_queries, whole_chunks(len)) == want);
                    CHECK(merged(attention, cache.view(0), len, q, n_queries, whole_chunks(1700)) == want);
                }
            }
        }
    }
}

TEST_CASE("partials: a range has the same bits where its tokens are all that there is in memory") {
    for (const auto &formats : {std::pair{Format::f32, Format::f32},
                                {Format::f16, Format::q8},
                                {Format::q4, Format::bf16},
                                {Format::q8, Format::q4}}) {
        const Format k = formats.first, v = formats.second;
        for (const test::NamedRules &rules : test::rules) {
            const Rules r(k, v, rules);
            const Attention attention(r.g);
            for (const int64_t len : {640, 1500}) {
                INFO(std::string(test::name_of(k))
                     << "+" << std::string(test::name_of(v)) << ", " << std::string(rules.name) << ", len " << len);
                const uint32_t n_queries = 3;
                const Floats q = queries_of(n_queries);
                std::vector<Partial> partials;
                for (int64_t first = 0; first < len; first += chunk) {
                    const Cache of_chunk = cache_of(r.g, first, std::min(first + chunk, len));
                    partials.push_back(partial_of(attention, of_chunk, first, len, q, n_queries));
                }
                CHECK(merge(attention, partials, n_queries) ==
                      attend(attention, cache_of(r.g, 0, len).view(0), len, q, n_queries));
            }
        }
    }
}

TEST_CASE("partials: ranges of any length, merged, equal the oracle, for every format and rule") {
    for (const Format format : test::all_formats()) {
        for (const test::NamedRules &rules : test::rules) {
            const Rules r(format, format, rules);
            const Cache cache = cache_of(r.g, 0, 1500);
            for (const int64_t len : {1, 65, 700, 1500}) {
                for (const std::vector<int64_t> &ends :
                     {std::vector<int64_t>{len}, {len / 2, len}, {1 % len, 70 % len, 70 % len, 603 % len, 604 % len, len}}) {
                    if (std::is_sorted(ends.begin(), ends.end())) {
                        INFO(std::string(test::name_of(format))
                             << ", " << std::string(rules.name) << ", len " << len << ", " << ends.size() << " ranges");
                        check_against_oracle(r.g, cache, len, ends);
                    }
                }
            }
        }
    }
}

TEST_CASE("partials: m of one token is its score itself, and its weight is 1, for every float") {
    constexpr uint64_t step = 1021, n_heads = 1 << 15;  // each of which has a query of one element, its score
    Cache cache(1, {.n_kv_heads = 1, .head_dim = 1, .k_format = Format::f32, .v_format = Format::f32}, 1);
    cache.append(0, Floats{1}, Floats{1});
    const Attention attention({.n_query_heads = n_heads,
                               .n_kv_heads = 1,
                               .head_dim = 1,
                               .k_format = Format::f32,
                               .v_format = Format::f32,
                               .scale = 1});
    uint32_t n_wrong = 0;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += step * n_heads) {
        Floats q(n_heads);
        for (uint64_t h = 0; h < n_heads; ++h) {
            q[h] = std::bit_cast<float>(static_cast<uint32_t>(bits + step * h));
        }
        Partial partial = partial_of(attention, cache, 0, 1, q, 1);
        const kvl_partial p = partial.get();
        for (uint64_t h = 0; h < n_heads; ++h) {
            n_wrong += std::isfinite(q[h]) && (p.m[h] != q[h] || p.l[h] != 1 || p.o[h] != 1);
        }
    }
    CHECK(n_wrong == 0);
}

TEST_CASE("partials: m of a range is exactly the largest that its tokens have alone, in every format") {
    constexpr int64_t len = 130;
    const Floats q = queries_of(1);
    std::vector<int64_t> each(len);
    std::iota(each.begin(), each.end(), 1);
    for (const Format format : test::all_formats()) {
        INFO(std::string(test::name_of(format)));
        const Attention attention(plain(format));
        const Cache cache = cache_of(plain(format), 0, len);
        Partial whole = partial_of(attention, cache, 0, len, q, 1);
        std::vector<Partial> alone = partials_of(attention, cache.view(0), len, q, 1, each);
        for (uint32_t h = 0; h < n_query_heads; ++h) {
            float largest = -infinity;
            for (Partial &of_token : alone) {
                largest = std::max(largest, of_token.get().m[h]);
                CHECK(of_token.get().l[h] == 1);
            }
            CHECK(whole.get().m[h] == largest);
            CHECK(whole.get().l[h] >= 1);
        }
    }
}

TEST_CASE("partials: m is exactly the largest of the scores that a query sees, where these are integers") {
    const auto none = kvlane::Rotation::none;
    constexpr int64_t len = 700;
    constexpr uint32_t n_queries = 3;
    const std::vector<int64_t> ends = {300, 555, len};
    Floats k = test::random_values(size_t{len} * n_kv_heads * head_dim, 1), q = queries_of(n_queries);
    for (size_t i = 0; i < k.size(); ++i) {
        k[i] = i % head_dim == 0 ? 127 : std::round(20 * k[i]);  // q8 is of a scale of 1 then
    }
    std::transform(q.begin(), q.end(), q.begin(), [](float x) { return std::round(4 * x); });
    for (const Format format : {Format::f32, Format::f16, Format::bf16, Format::q8}) {
        INFO(std::string(test::name_of(format)));
        Geometry g = plain(format);
        g.scale = 0.5f;
        g.k_rotation = g.v_rotation = none;
        g.precision = kvlane::Precision::exact;
        Cache cache(1, {n_kv_heads, head_dim, v_head_dim, format, format, none, none}, len);
        cache.append(0, k, Floats(size_t{len} * n_kv_heads * v_head_dim, 1.0f));
        REQUIRE(cache.read_k(0) == k);
        std::vector<Partial> partials = partials_of(Attention(g), cache.view(0), len, q, n_queries, ends);
        for (size_t range = 0; range < ends.size(); ++range) {
            const float *const m = partials[range].get().m;
            for (uint32_t row = 0; row < n_queries * n_query_heads; ++row) {
                const int64_t end = std::min<int64_t>(ends[range], len - n_queries + 1 + row / n_query_heads);
                float largest = -infinity;
                for (int64_t t = range == 0 ? 0 : ends[range - 1]; t < end; ++t) {
                    const auto key = k.begin() + (t * n_kv_heads + row % n_query_heads / group) * head_dim;
                    largest = std::max(largest, g.scale * std::inner_product(key, key + head_dim, &q[row * head_dim], 0.0f));
                }
                CHECK(m[row] == largest);
            }
        }
    }
}

TEST_CASE("partials: m, l and o are those of the tokens, in natural log") {
    Geometry g = plain(Format::f32);
    g.scale = 1;
    const Cache cache = cache_of(g, 0, 700);
    const Floats q = queries_of(1);
    std::vector<Partial> partials = partials_of(Attention(g), cache.view(0), 700, q, 1, {0, 300, 555, 700});
    const kvl_partial p = partials[2].get();
    const Floats all_k = cache.read_k(0), all_v = cache.read_v(0);
    const Floats k(all_k.begin() + 300 * n_kv_heads * head_dim, all_k.begin() + 555 * n_kv_heads * head_dim);
    const Floats v(all_v.begin() + 300 * n_kv_heads * v_head_dim, all_v.begin() + 555 * n_kv_heads * v_head_dim);
    const oracle::Answer want = test::expected(g, 255, q, k, v);
    Floats out(p.o, p.o + n_query_heads * v_head_dim);
    for (uint32_t h = 0; h < n_query_heads; ++h) {
        CHECK(p.m[h] + std::log(p.l[h]) == doctest::Approx(want.lse[h]).epsilon(1e-6));
        CHECK(p.l[h] >= 1);  // the largest score's
        CHECK(p.l[h] <= 255);
        std::for_each_n(out.begin() + h * v_head_dim, v_head_dim, [&](float &o) { o /= p.l[h]; });
    }
    CHECK(test::relative_error(out, want.out) <= test::bound(g));
}

TEST_CASE("partials: the first may be of several chunks, with the bits of the whole call where there are no sinks") {
    for (const Format format : test::all_formats()) {
        const Attention attention(plain(format));
        const Cache cache = cache_of(plain(format), 0, 1900);
        const Floats q = queries_of(3);
        const Answer want = attend(attention, cache.view(0), 1900, q, 3);
        for (const std::vector<int64_t> &ends :
             {std::vector<int64_t>{1900}, {2 * chunk, 3 * chunk, 1900}, {3 * chunk, 1900}}) {
            INFO(std::string(test::name_of(format)) << ", " << ends.size() << " ranges");
            CHECK(merged(attention, cache.view(0), 1900, q, 3, ends) == want);
        }
    }
}

// The partial that a chain begins with: that of the sink logits.
Partial partial_of_sinks(std::span<const float> sink_logits, uint32_t n_queries) {
    Partial partial(n_queries, n_query_heads, v_head_dim);
    const kvl_partial p = partial.get();
    for (size_t row = 0; row < size_t{n_queries} * n_query_heads; ++row) {
        p.m[row] = sink_logits.empty() ? -infinity : sink_logits[row % n_query_heads];
        p.l[row] = p.m[row] == -infinity ? 0.0f : 1.0f;
    }
    return partial;
}

// Merges links of consecutive partials one after another: a link ends at partial i if bit i of `ends` is set.
Partial chain(const Attention &attention, Partial state, std::vector<Partial> &partials, uint32_t n_queries, uint32_t ends) {
    std::vector<kvl_partial> link{state.get()};
    for (size_t i = 0; i < partials.size(); ++i) {
        link.push_back(partials[i].get());
        if (ends >> i & 1 || i + 1 == partials.size()) {
            attention.merge_partials(link, n_queries * n_query_heads, state.get());
            link.resize(1);
        }
    }
    return state;
}

bool same_bits(Partial &a, Partial &b, size_t n_rows) {
    const kvl_partial x = a.get(), y = b.get();
    return test::same_bits({x.m, n_rows}, {y.m, n_rows}) && test::same_bits({x.l, n_rows}, {y.l, n_rows}) &&
           test::same_bits({x.o, n_rows * v_head_dim}, {y.o, n_rows * v_head_dim});
}

TEST_CASE(
    "partials: a chain of merges, with links of any chunks, has the bits of the whole call, for every format and rule") {
    constexpr int64_t len = 3 * chunk + 100;
    constexpr uint32_t n_queries = 3, n_ways = 1 << 3;
    const Floats q = queries_of(n_queries);
    for (const Format format : test::all_formats()) {
        for (const test::NamedRules &rules : test::rules) {
            INFO(std::string(test::name_of(format)) << ", " << std::string(rules.name));
            Rules r(format, format, rules);
            r.logits.back() = -infinity;
            const Cache cache = cache_of(r.g, 0, len);
            const Answer want = attend(Attention(r.g), cache.view(0), len, q, n_queries);
            const Partial sinks = partial_of_sinks(r.g.sink_logits, n_queries);
            r.g.sink_logits = {};
            const Attention attention(r.g);
            std::vector<Partial> chunks = partials_of(attention, cache.view(0), len, q, n_queries, whole_chunks(len));
            for (uint32_t ends = 0; ends < n_ways; ++ends) {
                std::vector<Partial> merged{chain(attention, sinks, chunks, n_queries, ends)};
                CHECK(merge(attention, merged, n_queries) == want);
            }
        }
    }
}

TEST_CASE("partials: any rows may be merged alone, and over any of the partials") {
    constexpr uint32_t n_queries = 2, n_rows = n_queries * n_query_heads;
    const Attention attention(plain(Format::f16));
    const Floats q = queries_of(n_queries);
    std::vector<Partial> given =
        partials_of(attention, cache_of(plain(Format::f16), 0, 1400).view(0), 1400, q, n_queries, {512, 1024, 1400});
    const auto list_of = [](std::vector<Partial> &partials) {
        return std::vector<kvl_partial>{partials[0].get(), partials[1].get(), partials[2].get()};
    };
    std::vector<Partial> partials = given;
    Partial want(n_queries, n_query_heads, v_head_dim);
    attention.merge_partials(list_of(partials), n_rows, want.get());
    for (size_t i = 0; i < given.size(); ++i) {
        CHECK(same_bits(partials[i], given[i], n_rows));
        std::vector<Partial> overwritten = given;
        attention.merge_partials(list_of(overwritten), n_rows, overwritten[i].get());
        CHECK(same_bits(overwritten[i], want, n_rows));
    }
    for (uint32_t first = 0, n = 1; first < n_rows; first += n, n = std::min(n + 1, n_rows - first)) {
        const auto rows = [=](const kvl_partial &p) {
            return kvl_partial{p.m + first, p.l + first, p.o + size_t{first} * v_head_dim};
        };
        const std::vector<kvl_partial> all = list_of(partials);
        attention.merge_partials(std::vector{rows(all[0]), rows(all[1]), rows(all[2])}, n, rows(all[1]));
    }
    CHECK(same_bits(partials[1], want, n_rows));
    CHECK(same_bits(partials[2], given[2], n_rows));
}

TEST_CASE("partials: another's, relative to any m, merges with ours") {
    const Geometry g = plain(Format::f16);
    const Attention attention(g);
    const Cache cache = cache_of(g, 0, 900);
    const Floats q = queries_of(2);
    const Answer want = attend(attention, cache.view(0), 900, q, 2);
    std::vector<Partial> partials = partials_of(attention, cache.view(0), 900, q, 2, {400, 900});
    const kvl_partial p = partials[0].get();
    for (uint32_t row = 0; row < 2 * n_query_heads; ++row) {
        const float shift = 3.7f - static_cast<float>(row), factor = std::exp(-shift);
        p.m[row] += shift;
        p.l[row] *= factor;
        std::for_each_n(p.o + row * v_head_dim, v_head_dim, [=](float &o) { o *= factor; });
    }
    const Answer got = merge(attention, partials, 2);
    CHECK(test::relative_error(got.out, std::vector<double>(want.out.begin(), want.out.end())) <= 2e-6);
    for (size_t i = 0; i < got.lse.size(); ++i) {
        CHECK(got.lse[i] == doctest::Approx(want.lse[i]).epsilon(1e-6));
    }
}

TEST_CASE("partials: a range that no query sees is empty, and merges as nothing") {
    Rules r(Format::f16, Format::f16, no_rules);
    const Floats q = queries_of(2);
    Partial behind = partial_of(Attention(r.g), cache_of(r.g, 600, 700), 600, 500, q, 2);
    check_empty(behind, 2);
    Partial without_tokens = partial_of(Attention(r.g), cache_of(r.g, 600, 600), 600, 900, q, 2);
    check_empty(without_tokens, 2);
    r.g.window = 100;
    r.g.n_sink_tokens = 5;
    const Attention attention(r.g);
    Partial outside = partial_of(attention, cache_of(r.g, 5, 800), 5, 901, q, 2);
    check_empty(outside, 2);

    std::vector<Partial> partials = partials_of(attention, cache_of(r.g, 0, 901).view(0), 901, q, 2, {5, 901});
    const Answer want = merge(attention, partials, 2);
    partials.insert(partials.begin() + 1, outside);
    CHECK(merge(attention, partials, 2) == want);

    std::vector<Partial> nothing{behind, outside};
    const Answer zeros = merge(attention, nothing, 2);
    CHECK(std::all_of(zeros.out.begin(), zeros.out.end(), [](float x) { return x == 0; }));
    CHECK(std::all_of(zeros.lse.begin(), zeros.lse.end(), [](float x) { return x == -infinity; }));
    r.g.sink_logits = r.logits;
    const Answer sinks_alone = merge(Attention(r.g), nothing, 2);
    CHECK(std::all_of(sinks_alone.out.begin(), sinks_alone.out.end(), [](float x) { return x == 0; }));
    for (size_t i = 0; i < sinks_alone.lse.size(); ++i) {
        CHECK(sinks_alone.lse[i] == doctest::Approx(r.logits[i % n_query_heads]));
    }
}

TEST_CASE("partials: queries may lie in a range or behind it, each sees up to its own position") {
    const Rules r(Format::q8, Format::f16, test::rules[std::size(test::rules) - 1]);
    const Attention attention(r.g);
    const uint32_t n_queries = 40;
    const Floats q = queries_of(n_queries);
    for (const int64_t len : {500, 530, 1024, 1040}) {  // the queries end before, in and behind the range
        const Cache cache = cache_of(r.g, 512, 1024);
        Partial together = partial_of(attention, cache, 512, len, q, n_queries);
        for (uint32_t i = 0; i < n_queries; ++i) {
            const auto at = q.begin() + static_cast<std::ptrdiff_t>(size_t{i} * n_query_heads * head_dim);
            Partial alone =
                partial_of(attention, cache, 512, len - n_queries + 1 + i, Floats(at, at + n_query_heads * head_dim), 1);
            const kvl_partial all = together.get(), one = alone.get();
            const size_t row = size_t{i} * n_query_heads;
            CHECK(test::same_bits({all.m + row, n_query_heads}, {one.m, n_query_heads}));
            CHECK(test::same_bits({all.l + row, n_query_heads}, {one.l, n_query_heads}));
            CHECK(test::same_bits({all.o + row * v_head_dim, n_query_heads * v_head_dim},
                                  {one.o, n_query_heads * v_head_dim}));
        }
    }
}

TEST_CASE("partials: ranges and whole sequences share a call, on any threads") {
    const Rules r(Format::f16, Format::q8, test::rules[std::size(test::rules) - 1]);
    const Attention attention(r.g);
    const Cache cache = cache_of(r.g, 0, 1300);
    const kvl_view view = cache.view(0);
    const Floats q = queries_of(20);
    const Answer want = attend(attention, view, 1300, q, 20);
    std::vector<Partial> partials(3, Partial(20, n_query_heads, v_head_dim));
    std::vector<kvl_range> ranges;
    for (int64_t i = 0; i < 3; ++i) {
        ranges.push_back(kvlane::Range{.first = i * chunk,
                                       .end = std::min<int64_t>((i + 1) * chunk, 1300),
                                       .out = partials[static_cast<size_t>(i)].get()});
    }
    Answer whole{Floats(want.out.size()), Floats(want.lse.size())};
    const auto sequence = [&](float *out, float *lse, const kvl_range *range) {
        return kvlane::Sequence{
            .view = &view, .len = 1300, .n_queries = 20, .q = q.data(), .out = out, .lse = lse, .range = range};
    };
    const kvl_sequence sequences[] = {sequence(nullptr, nullptr, &ranges[2]),
                                      sequence(whole.out.data(), whole.lse.data(), nullptr),
                                      sequence(nullptr, nullptr, &ranges[0]), sequence(nullptr, nullptr, &ranges[1])};
    kvlane::Workspace workspace = attention.workspace(4, 1300, 20, 3);
    for (const int n_threads : {1, 3}) {
        test::ThreadPool pool(n_threads);
        const kvl_executor executor = pool.executor();
        attention.attend(sequences, workspace, &executor);
        CHECK(whole == want);
        CHECK(merge(attention, partials, 20) == want);
    }
}

TEST_CASE("partials: tokens that are kept in f16 beside integers are in the ranges of their positions") {
    const Geometry g = plain(Format::q8);
    Cache cache(1,
                {.n_kv_heads = n_kv_heads,
                 .head_dim = head_dim,
                 .v_head_dim = v_head_dim,
                 .k_format = Format::q8,
                 .v_format = Format::q8,
                 .n_first_f16 = 64,
                 .n_recent_f16 = 128},
                1200);
    test::fill_random(cache, 1200, 1);
    const Floats q = queries_of(4);
    CHECK(merged(Attention(g), cache.view(0), 1200, q, 4, whole_chunks(1200)) ==
          attend(Attention(g), cache.view(0), 1200, q, 4));
}

TEST_CASE("partials: one that saw nothing changes no bit, not even a zero's sign") {
    const Attention attention(plain(Format::f32));
    constexpr size_t n_values = n_query_heads * v_head_dim;
    Floats m(n_query_heads, 1.0f), far_m(n_query_heads, 1.0f - 83), l(n_query_heads, 1.0f), o(n_values, 0.0f);
    Floats far_o(n_values, -0x1p-32f);  // times e^-83, which is -0 where multiply-adds are fused
    Floats nothing_m(n_query_heads, -infinity), nothing_l(n_query_heads, 0.0f);
    const kvl_partial near{m.data(), l.data(), o.data()}, far{far_m.data(), l.data(), far_o.data()};
    const kvl_partial nothing{nothing_m.data(), nothing_l.data(), o.data()};
    const auto merged = [&](std::vector<kvl_partial> partials) {
        Floats out(n_values);
        kvlane::check(
            kvl_merge(attention.get(), partials.data(), static_cast<uint32_t>(partials.size()), 1, out.data(), nullptr));
        return out;
    };
    CHECK(test::same_bits(merged({near, far, nothing}), merged({near, far})));
    CHECK(test::same_bits(merged({nothing, near, far}), merged({near, far})));
    CHECK(test::same_bits(merged({nothing}), Floats(n_values, 0.0f)));
}

TEST_CASE("partials: NaN stays visible, in a row's partial and in what is merged of it") {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    const Geometry g = plain(Format::f32);
    const Attention attention(g);
    const Cache cache = cache_of(g, 0, 600);
    const Floats q = queries_of(1);
    std::vector<Partial> partials = partials_of(attention, cache.view(0), 600, q, 1, {300, 600});
    const kvl_partial p = partials[1].get();
    for (float *const spoilt : {&p.m[1], &p.l[1], &p.o[v_head_dim]}) {
        const float good = *spoilt;
        *spoilt = nan;
        const Answer got = merge(attention, partials, 1);
        CHECK(std::isnan(got.out[v_head_dim]));
        CHECK(std::none_of(got.out.begin(), got.out.begin() + v_head_dim, [](float x) { return std::isnan(x); }));
        *spoilt = good;
    }
    Cache with_nan = cache_of(g, 0, 600);
    with_nan.truncate(599);
    with_nan.append(0, Floats(n_kv_heads * head_dim, nan), Floats(n_kv_heads * v_head_dim, 0));
    const Answer got = merged(attention, with_nan.view(0), 600, q, 1, {300, 600});
    CHECK(std::all_of(got.out.begin(), got.out.end(), [](float x) { return std::isnan(x); }));
}

TEST_CASE("partials: what a range reads is counted, and no more") {
    const Geometry g = plain(Format::f16);
    const Cache cache = cache_of(g, 100, 400);
    const kvl_view view = cache.view(0);
    Partial partial(1, n_query_heads, v_head_dim);
    const Floats q = queries_of(1);
    const auto bytes_of = [&](int64_t len, int64_t first, int64_t end) {
        const kvl_range range = kvlane::Range{.view_first = 100, .first = first, .end = end, .out = partial.get()};
        const kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = len, .q = q.data(), .range = &range};
        uint64_t bytes = 0;
        kvlane::check(kvl_attend_bytes(Attention(g).get(), &sequence, 1, &bytes));
        return bytes;
    };
    constexpr uint64_t token = n_kv_heads * (head_dim + v_head_dim) * 2;
    CHECK(bytes_of(1000, 100, 400) == 300 * token);
    CHECK(bytes_of(1000, 150, 151) == token);
    CHECK(bytes_of(160, 150, 400) == 10 * token);
    CHECK(bytes_of(100, 150, 400) == 0);
}

TEST_CASE("partials: nothing is written beside them, nor beside what they merge to") {
    const Geometry g = plain(Format::f16);
    const Attention attention(g);
    const Cache cache = cache_of(g, 0, 600);
    const kvl_view view = cache.view(0);
    const Floats q = queries_of(1);
    constexpr float canary = -12345.678f;
    constexpr size_t n = n_query_heads, n_o = n * v_head_dim;
    Floats m(n + 2, canary), l(n + 2, canary), o(n_o + 2, canary), out(n_o + 2, canary), lse(n + 2, canary);
    const kvl_range range = kvlane::Range{.end = 600, .out = {&m[1], &l[1], &o[1]}};
    const kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = 600, .q = q.data(), .range = &range};
    kvlane::Workspace workspace = attention.workspace(1, 600);
    attention.attend(std::span(&sequence, 1), workspace);
    const Floats written[] = {m, l, o};
    attention.merge(std::span(&range.out, 1), 1, &out[1], &lse[1]);
    CHECK((m == written[0] && l == written[1] && o == written[2]));
    for (const Floats &guarded : {m, l, o, out, lse}) {
        CHECK((guarded.front() == canary && guarded.back() == canary));
        CHECK(std::none_of(guarded.begin() + 1, guarded.end() - 1, [=](float x) { return x == canary; }));
    }
}

TEST_CASE("partials: a batch of merges, to any strides and formats, has the bits of a merge for each") {
    constexpr uint32_t n_queries = 3;
    constexpr size_t n_rows = size_t{n_queries} * n_query_heads, padded = v_head_dim + 1;
    const Rules with_sinks(Format::f16, Format::f16, test::rules[8]);
    const Attention attention(with_sinks.g);
    const Cache cache = cache_of(with_sinks.g, 0, 1300);
    const Floats q = queries_of(n_queries);
    std::vector<Partial> partials[2] = {partials_of(attention, cache.view(0), 1300, q, n_queries, {512, 1024, 1300}),
                                        partials_of(attention, cache.view(0), 1300, q, n_queries, {100, 1300})};
    std::vector<kvl_partial> lists[2];
    Floats expected[2], strided[2];
    std::vector<kvl_merge_desc> merges;
    for (int i = 0; i < 2; ++i) {
        for (Partial &partial : partials[i]) {
            lists[i].push_back(partial.get());
        }
        expected[i].resize(n_rows * v_head_dim);
        strided[i].assign(n_rows * padded, 7);
        attention.merge(lists[i], n_queries, expected[i].data());
        kvl_merge_desc merge = kvl_merge_desc_init();
        merge.n_queries = n_queries;
        merge.partials = lists[i].data();
        merge.n_partials = static_cast<uint32_t>(lists[i].size());
        merge.out = strided[i].data();
        merge.out_head_stride_bytes = padded * sizeof(float);
        merges.push_back(merge);
    }
    attention.merge(merges);
    for (int i = 0; i < 2; ++i) {
        for (size_t row = 0; row < n_rows; ++row) {
            CHECK(test::same_bits({&strided[i][row * padded], v_head_dim}, {&expected[i][row * v_head_dim], v_head_dim}));
            CHECK(strided[i][row * padded + v_head_dim] == 7);
        }
    }
    merges[1].n_partials = 0;
    CHECK(kvl_merge_batch(attention.get(), merges.data(), 2) == KVL_ERROR_RANGE);
    CHECK(std::string(kvl_last_error()).starts_with("merges[1]: n_partials is 0"));
}

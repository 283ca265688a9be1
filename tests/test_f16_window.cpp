// Caches of q8 and q4 that keep their first and recent tokens in f16, and the views of several formats that show them.

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "oracle.hpp"
#include "row_memory.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Rotation;
using test::same_bits;

namespace {

using Floats = std::vector<float>;

constexpr uint32_t n_kv_heads = 2;
constexpr uint32_t group = 3;
constexpr uint32_t head_dim = 40;
constexpr uint32_t v_head_dim = 33;
constexpr int64_t tile = 64;

struct Case {
    Format k;
    Format v;
    int64_t n_first = 0;
    int64_t n_recent = 0;
    Rotation rotation = Rotation::by_format;

    kvlane::Layer layer() const { return {n_kv_heads, head_dim, v_head_dim, k, v, rotation, rotation, n_first, n_recent}; }
    Attention attention() const {
        return Attention({.n_query_heads = n_kv_heads * group,
                          .n_kv_heads = n_kv_heads,
                          .head_dim = head_dim,
                          .v_head_dim = v_head_dim,
                          .k_format = k,
                          .v_format = v,
                          .k_rotation = rotation,
                          .v_rotation = rotation,
                          .precision = kvlane::Precision::exact});
    }
    Cache cache(int64_t max_tokens = 1500) const { return Cache(1, layer(), max_tokens, KVL_CACHE_NO_HUGE_PAGES); }
    Cache filled(int64_t len) const {
        Cache made = cache();
        test::fill_random(made, len, 1);
        return made;
    }
    std::string text() const {
        return std::string(test::name_of(k)) + "+" + test::name_of(v) + ", the first " + std::to_string(n_first) +
               " and the newest " + std::to_string(n_recent) + " in f16";
    }
};

// Every format of integers on either side, beside floats too.
const Case cases[] = {{Format::q8, Format::q8, 0, 64},   {Format::q4, Format::q8, 64, 0},
                      {Format::q8, Format::q4, 64, 128}, {Format::q4, Format::q4, 1, 1},
                      {Format::f16, Format::q4, 64, 64}, {Format::q8, Format::bf16, 128, 64},
                      {Format::f32, Format::q8, 0, 192}, {Format::q4, Format::f16, 100, 200},
                      {Format::q8, Format::q8, 4000, 0}, {Format::q4, Format::q4, 0, 4000}};

Floats first_tokens(const Floats &x, int64_t n, uint32_t dim) {
    return Floats(x.begin(), x.begin() + static_cast<ptrdiff_t>(n * n_kv_heads * dim));
}

// What of the tokens [first, end) is in x, as a cache reads them.
std::span<const float> tokens_of(const Floats &x, int64_t first, int64_t end, uint32_t dim) {
    return std::span(x).subspan(static_cast<size_t>(first * n_kv_heads * dim),
                                static_cast<size_t>((end - first) * n_kv_heads * dim));
}

Floats queries() { return test::random_values(size_t{n_kv_heads} * group * head_dim, 9); }

Floats attend(const Attention &attention, const kvl_view &view, int64_t len, const kvl_executor *executor = nullptr) {
    const Floats q = queries();
    Floats out(size_t{n_kv_heads} * group * v_head_dim, 7.0f);
    kvlane::Workspace workspace = attention.workspace(1, len, 1, kvlane::max_tasks(executor));
    const kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = len, .q = q.data(), .out = out.data()};
    attention.attend(std::span(&sequence, 1), workspace, executor);
    return out;
}

Floats attend(const Case &c, const Cache &cache) {
    const kvl_view view = cache.view(0);
    return attend(c.attention(), view, view.len);
}

// Relative to the oracle on the values as the cache decodes them.
double error_of(const Floats &out, const Cache &cache, int64_t len) {
    const oracle::Answer want = oracle::attend(n_kv_heads, group, head_dim, v_head_dim, len, 1 / std::sqrt(1.0 * head_dim),
                                               queries().data(), cache.read_k(0).data(), cache.read_v(0).data());
    double error = 0, norm = static_cast<double>(out.size()) / static_cast<double>(len);
    for (size_t i = 0; i < out.size(); ++i) {
        error += (out[i] - want.out[i]) * (out[i] - want.out[i]);
    }
    return std::sqrt(error / norm);
}

double largest_difference(const Floats &a, const Floats &b) {
    double largest = a.size() == b.size() ? 0 : INFINITY;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
        const double difference = std::abs(a[i] - b[i]);
        largest = difference <= largest ? largest : difference;  // NaN too
    }
    return largest;
}

// Roundings of f32, for head_dim 40.
constexpr double bound = 64 * 0x1p-24;

void check_alike(const Case &c, const Cache &a, const Cache &b) {
    CHECK(same_bits(a.read_k(0), b.read_k(0)));
    CHECK(same_bits(a.read_v(0), b.read_v(0)));
    CHECK(same_bits(attend(c, a), attend(c, b)));
}

constexpr int64_t lens[] = {1,   2,   63,  64,  65,  127, 128, 129, 191, 192,  193,  255, 256,
                            257, 320, 383, 385, 511, 512, 513, 575, 700, 1023, 1025, 1400};

}  // namespace

TEST_CASE("f16 window: the first and the newest tokens are those of f16, the others those of the integers") {
    for (const Format format : {Format::q8, Format::q4}) {
        const Case c{format, format, 64, 100, Rotation::none};
        const Cache cache = c.filled(700);
        const Floats k = cache.read_k(0);
        const Floats v = cache.read_v(0);
        const Cache in_f16 = Case{Format::f16, Format::f16, 0, 0, Rotation::none}.filled(700);
        const Floats k_in_f16 = in_f16.read_k(0);
        const Floats v_in_f16 = in_f16.read_v(0);
        Cache as_integers = Case{format, format, 0, 0, Rotation::none}.cache();
        as_integers.append(0, k_in_f16, v_in_f16);
        const Floats k_as_integers = as_integers.read_k(0);
        const Floats v_as_integers = as_integers.read_v(0);

        const int64_t cut = 640 - 128;  // 10 whole tiles, less the newest 100 rounded up to 2
        CHECK(same_bits(tokens_of(k, 0, 64, head_dim), tokens_of(k_in_f16, 0, 64, head_dim)));
        CHECK(same_bits(tokens_of(v, 0, 64, v_head_dim), tokens_of(v_in_f16, 0, 64, v_head_dim)));
        CHECK(same_bits(tokens_of(k, 64, cut, head_dim), tokens_of(k_as_integers, 64, cut, head_dim)));
        CHECK(same_bits(tokens_of(v, 64, cut, v_head_dim), tokens_of(v_as_integers, 64, cut, v_head_dim)));
        CHECK(same_bits(tokens_of(k, cut, 700, head_dim), tokens_of(k_in_f16, cut, 700, head_dim)));
        CHECK(same_bits(tokens_of(v, cut, 700, v_head_dim), tokens_of(v_in_f16, cut, 700, v_head_dim)));
    }
}

TEST_CASE("f16 window: attention over all of it equals the oracle on the decoded values, at every length") {
    double worst = 0;
    for (const Case &c : cases) {
        for (const int64_t len : lens) {
            INFO(c.text() << ", len " << len);
            const Cache cache = c.filled(len);
            CHECK(cache.view(0).len == len);
            const double error = error_of(attend(c, cache), cache, len);
            CHECK(error <= bound);
            worst = std::max(worst, error);
        }
    }
    MESSAGE("worst relative error " << worst);
}

TEST_CASE("f16 window: a sequence may end in any part of it, and sees tokens in f16 by its own end where they are held") {
    for (const Case &c : cases) {
        const Cache cache = c.filled(700);
        const kvl_view view = cache.view(0);
        const int64_t first_held = 640 - tile - cache.info(0).n_recent_f16;
        for (const int64_t len : {1, 63, 64, 65, 130, 400, 512, 513, 640, 699}) {
            INFO(c.text() << ", len " << len);
            Cache seen = cache.copy();
            if (len > first_held) {
                seen.truncate(len);
            }
            CHECK(error_of(attend(c.attention(), view, len), seen, len) <= bound);
        }
    }
}

TEST_CASE("f16 window: bits depend on the length, not on how tokens came nor on who works") {
    for (const Case &c : cases) {
        INFO(c.text());
        const Cache at_once = c.filled(1100);
        const Floats k = test::random_values(1100 * n_kv_heads * head_dim, 1);
        const Floats v = test::random_values(1100 * n_kv_heads * v_head_dim, 2);
        const Floats out = attend(c, at_once);
        for (const int64_t step : {1, 7, 64, 100, 640}) {
            Cache cache = c.cache();
            for (int64_t t = 0; t < 1100; t += step) {
                const int64_t end = std::min<int64_t>(1100, t + step);
                cache.append(0, tokens_of(k, t, end, head_dim), tokens_of(v, t, end, v_head_dim));
                cache.advance(end - t);
            }
            CHECK(same_bits(cache.read_k(0), at_once.read_k(0)));
            CHECK(same_bits(cache.read_v(0), at_once.read_v(0)));
            CHECK(same_bits(attend(c, cache), out));
        }
        test::ThreadPool pool(3);
        const kvl_executor executor = pool.executor();
        CHECK(same_bits(attend(c.attention(), at_once.view(0), 1100, &executor), out));
    }
}

TEST_CASE("f16 window: a truncate by up to 64 tokens leaves what there was at that length, to the bit") {
    for (const Case &c : cases) {
        for (const int64_t len : {636, 638, 639, 640, 641, 650, 699, 700}) {
            INFO(c.text() << ", truncated to " << len);
            Cache cache = c.filled(700);
            Cache never_longer = c.cache();
            const Floats k = test::random_values(700 * n_kv_heads * head_dim, 1);
            const Floats v = test::random_values(700 * n_kv_heads * v_head_dim, 2);
            never_longer.append(0, tokens_of(k, 0, len, head_dim), tokens_of(v, 0, len, v_head_dim));
            never_longer.advance(len);
            cache.truncate(len);
            check_alike(c, cache, never_longer);
            for (const int64_t n : {1, 5, 70, 200}) {
                test::fill_random(cache, n, 50);
                test::fill_random(never_longer, n, 50);
                check_alike(c, cache, never_longer);
            }
        }
    }
}

TEST_CASE("f16 window: drafts that are refused in part change no bit of what follows") {
    for (const Case &c : cases) {
        INFO(c.text());
        Cache drafted = c.cache(), plain = c.cache();
        for (int64_t t = 0; t < 500; t += 3) {
            test::fill_random(plain, 3, static_cast<uint32_t>(t));
            test::fill_random(drafted, 3, static_cast<uint32_t>(t));
            const int64_t n_refused = t % 64 + 1;
            test::fill_random(drafted, n_refused, 1000);
            drafted.truncate(drafted.len() - n_refused);
            if (t % 30 == 0 || t > 490) {
                check_alike(c, drafted, plain);
            }
        }
    }
}

TEST_CASE("f16 window: what a longer truncate leaves stays as it was, but that its last tile is f16 again") {
    for (const Case &c : cases) {
        for (const int64_t len : {0, 1, 63, 64, 65, 200, 448, 500, 576, 635}) {
            INFO(c.text() << ", truncated to " << len);
            Cache cache = c.filled(700);
            const Floats k = first_tokens(cache.read_k(0), len, head_dim);
            const Floats v = first_tokens(cache.read_v(0), len, v_head_dim);
            cache.truncate(len);
            CHECK(cache.view(0).len == len);
            const Floats k_left = cache.read_k(0);
            const Floats v_left = cache.read_v(0);
            // The tile before the window is held in f16, too.
            const int64_t first_held = 640 - tile - cache.info(0).n_recent_f16;
            const int64_t whole = std::min(len, first_held) / tile * tile;
            if (whole > 0) {
                CHECK(same_bits(tokens_of(k_left, 0, whole, head_dim), tokens_of(k, 0, whole, head_dim)));
                CHECK(same_bits(tokens_of(v_left, 0, whole, v_head_dim), tokens_of(v, 0, whole, v_head_dim)));
            }
            // Rotated rows are rounded before they are rotated back.
            const double step = len <= first_held ? 4 * 0x1p-10 : INFINITY;
            CHECK(largest_difference(k_left, k) <= step);
            CHECK(largest_difference(v_left, v) <= step);
            test::fill_random(cache, 300, 50);
            CHECK(error_of(attend(c, cache), cache, len + 300) <= bound);
        }
    }
}

TEST_CASE("f16 window: what turned to integers keeps its bits, however often the cache is truncated and filled") {
    for (const Case &c : cases) {
        INFO(c.text());
        Cache cache = c.filled(700);
        cache.truncate(100);
        const Floats k = cache.read_k(0);
        const Floats v = cache.read_v(0);
        test::fill_random(cache, 600, 50);
        const Floats k_filled = cache.read_k(0);
        const Floats v_filled = cache.read_v(0);
        for (int i = 0; i < 5; ++i) {
            cache.truncate(100);
            CHECK(same_bits(cache.read_k(0), k));
            CHECK(same_bits(cache.read_v(0), v));
            test::fill_random(cache, 600, 50);
            CHECK(same_bits(cache.read_k(0), k_filled));
            CHECK(same_bits(cache.read_v(0), v_filled));
            if (i == 2) {
                cache = cache.copy();
            }
        }
    }
}

TEST_CASE("f16 window: a copy of a truncated cache turns to the same integers") {
    for (const Case &c : cases) {
        INFO(c.text());
        Cache cache = c.filled(700);
        cache.truncate(100);
        Cache copy = cache.copy();
        test::fill_random(cache, 600, 50);
        test::fill_random(copy, 600, 50);
        CHECK(same_bits(cache.read_k(0), copy.read_k(0)));
        CHECK(same_bits(cache.read_v(0), copy.read_v(0)));
    }
}

TEST_CASE("f16 window: a cache is filled to its last token, be that less than a block") {
    for (const Case &c : cases) {
        for (const int64_t capacity : {1, 10, 63, 64, 65, 130, 200, 333}) {
            INFO(c.text() << ", capacity " << capacity);
            Cache cache = c.cache(capacity);
            for (int64_t t = 0; t < capacity; t += 50) {
                test::fill_random(cache, std::min<int64_t>(50, capacity - t), static_cast<uint32_t>(t));
            }
            CHECK(cache.len() == capacity);
            CHECK(error_of(attend(c, cache), cache, capacity) <= bound);
            cache.truncate(capacity / 2);
            test::fill_random(cache, capacity - capacity / 2, 7);
            CHECK(error_of(attend(c, cache), cache, capacity) <= bound);
        }
    }
}

TEST_CASE("f16 window: every layer keeps its own") {
    std::vector<kvlane::Layer> layers;
    for (const Case &c : cases) {
        layers.push_back(c.layer());
    }
    Cache together(layers, 700, KVL_CACHE_NO_HUGE_PAGES);
    test::fill_random(together, 700, 1);
    const Cache copy = together.copy();
    for (uint32_t layer = 0; layer < layers.size(); ++layer) {
        const Case &c = cases[layer];
        INFO(c.text());
        Cache alone = c.cache();
        test::append_random(alone, 0, 700, 1 + 2 * layer);
        const Floats out = attend(c, alone);
        CHECK(same_bits(attend(c.attention(), together.view(layer), 700), out));
        CHECK(same_bits(attend(c.attention(), copy.view(layer), 700), out));
    }
}

TEST_CASE("f16 window: many rows of long heads, several sequences in a call, and what was there before, change nothing") {
    const kvlane::Layer layer{2, 192, 130, Format::q8, Format::q4, Rotation::by_format, Rotation::by_format, 64, 64};
    const Attention attention({.n_query_heads = 2 * 40,
                               .n_kv_heads = 2,
                               .head_dim = 192,
                               .v_head_dim = 130,
                               .k_format = Format::q8,
                               .v_format = Format::q4,
                               .precision = kvlane::Precision::exact});
    const Floats q = test::random_values(2 * 40 * 192, 3);
    const int64_t token_counts[] = {40, 300, 700};
    std::vector<Cache> caches;
    std::vector<kvl_view> views(3);
    std::vector<kvl_sequence> sequences;
    std::vector<Floats> out(3, Floats(2 * 40 * 130)), lse(3, Floats(2 * 40));
    for (size_t i = 0; i < 3; ++i) {
        Cache &cache = caches.emplace_back(1, layer, 1000, KVL_CACHE_NO_HUGE_PAGES);
        const Floats not_numbers(static_cast<size_t>(1000 * 2 * 192), NAN);
        cache.append(0, not_numbers, std::span(not_numbers).first(1000 * 2 * 130));
        cache.clear();
        test::fill_random(cache, token_counts[i], 1);
        views[i] = cache.view(0);
        sequences.push_back(kvlane::Sequence{
            .view = &views[i], .len = token_counts[i], .q = q.data(), .out = out[i].data(), .lse = lse[i].data()});
    }
    kvlane::Workspace workspace = attention.workspace(3, 700);
    attention.attend(sequences, workspace);
    for (size_t i = 0; i < 3; ++i) {
        const oracle::Answer want = oracle::attend(2, 40, 192, 130, token_counts[i], 1 / std::sqrt(192.0), q.data(),
                                                   caches[i].read_k(0).data(), caches[i].read_v(0).data());
        double error = 0;
        for (size_t j = 0; j < out[i].size(); ++j) {
            error += (out[i][j] - want.out[j]) * (out[i][j] - want.out[j]);
        }
        CHECK(std::sqrt(error / static_cast<double>(out[i].size()) * static_cast<double>(token_counts[i])) <= bound);
        for (size_t j = 0; j < lse[i].size(); ++j) {
            CHECK(lse[i][j] == doctest::Approx(want.lse[j]).epsilon(1e-4));
        }
    }
}

TEST_CASE("f16 window: what f16 cannot hold is infinite there, and NaN as integers") {
    const Case c{Format::q8, Format::q8, 0, 64, Rotation::none};
    Cache cache = c.cache();
    Floats k(size_t{n_kv_heads} * head_dim, 1.0f);
    k[3] = 70000;
    const Floats v(size_t{n_kv_heads} * v_head_dim, 1.0f);
    cache.append(0, k, v);
    cache.advance();
    CHECK(cache.read_k(0)[3] == INFINITY);
    CHECK(cache.read_k(0)[4] == 1);
    test::fill_random(cache, 200, 5);
    CHECK(std::isnan(cache.read_k(0)[4]));
    CHECK(cache.read_v(0)[4] == doctest::Approx(1).epsilon(0.01));
}

TEST_CASE("f16 window: pending tokens that are forgotten have changed no bit of the others") {
    for (const Case &c : cases) {
        INFO(c.text());
        Cache cache = c.filled(300);
        const Floats k = cache.read_k(0), v = cache.read_v(0), out = attend(c, cache);
        test::append_random(cache, 0, 500, 5);
        CHECK(cache.len() == 300);
        CHECK(cache.view(0).len == 800);
        CHECK(error_of(attend(c, cache), cache, 800) <= bound);
        cache.truncate(300);
        CHECK(cache.view(0).len == 300);
        CHECK(same_bits(cache.read_k(0), k));
        CHECK(same_bits(cache.read_v(0), v));
        CHECK(same_bits(attend(c, cache), out));
    }
}

TEST_CASE("f16 window: a copy has the same tokens in the same formats, and goes its own way") {
    for (const Case &c : cases) {
        INFO(c.text());
        Cache cache = c.filled(700);
        const Cache untouched = c.filled(700);
        Cache copy = cache.copy();
        CHECK(same_bits(copy.read_k(0), cache.read_k(0)));
        CHECK(same_bits(copy.read_v(0), cache.read_v(0)));
        CHECK(same_bits(attend(c, copy), attend(c, cache)));
        test::fill_random(copy, 300, 20);
        CHECK(same_bits(attend(c, cache), attend(c, untouched)));
        test::fill_random(cache, 300, 20);
        CHECK(same_bits(attend(c, cache), attend(c, copy)));
    }
}

TEST_CASE("f16 window: clear empties it for the next sequence") {
    for (const Case &c : cases) {
        INFO(c.text());
        Cache cache = c.filled(700);
        cache.clear();
        CHECK(cache.view(0).len == 0);
        test::fill_random(cache, 700, 1);
        CHECK(same_bits(attend(c, cache), attend(c, c.filled(700))));
    }
}

TEST_CASE("f16 window: a layer says what of it is in force, and a call what it reads") {
    const Case c{Format::q8, Format::q8, 1, 65};
    const Cache cache = c.filled(700);
    CHECK(cache.info(0).n_first_f16 == 64);
    CHECK(cache.info(0).n_recent_f16 == 128);
    CHECK(Case{Format::q8, Format::q8}.cache().info(0).n_first_f16 == 0);
    const uint64_t bytes_in_f16 = Case{Format::f16, Format::f16}.cache().info(0).bytes_per_token;

    const kvl_view view = cache.view(0);
    const int64_t n_integers = 640 - 128 - 64;
    // A tile that leaves the window is held in f16 for 64 tokens more.
    CHECK(cache.bytes() == (700 - n_integers + 64) * bytes_in_f16 + n_integers * cache.info(0).bytes_per_token);
    const auto bytes_at = [&](int64_t len, uint32_t n_queries = 1) {
        kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = len, .n_queries = n_queries};
        const Floats q(n_queries * queries().size());
        Floats out(size_t{n_queries} * n_kv_heads * group * v_head_dim);
        sequence.q = q.data();
        sequence.out = out.data();
        uint64_t bytes = 0;
        REQUIRE(kvl_attend_bytes(c.attention().get(), &sequence, 1, &bytes) == KVL_OK);
        return bytes;
    };
    constexpr uint64_t in_f16 = n_kv_heads * 2 * (head_dim + v_head_dim);
    constexpr uint64_t as_integers = n_kv_heads * (head_dim + v_head_dim + 2 * sizeof(float));
    CHECK(bytes_at(10) == 10 * in_f16);
    CHECK(bytes_at(100) == 64 * in_f16 + 36 * as_integers);
    CHECK(bytes_at(700) == (700 - n_integers) * in_f16 + n_integers * as_integers);
    CHECK(bytes_at(700, 61) == bytes_at(700));
    // The query at position 638 sees 64 tokens in f16 that those from 639 on see quantized.
    CHECK(bytes_at(700, 62) == (700 - n_integers + 64) * in_f16 + n_integers * as_integers);
}

TEST_CASE("f16 window: keeping the tokens in f16 that scores fall on keeps the output that is theirs") {
    // Keys of which the first and the newest win: what is lost of the others is lost on little.
    constexpr int64_t len = 640;
    Floats k = test::random_values(len * n_kv_heads * head_dim, 1);
    const Floats v = test::random_values(len * n_kv_heads * v_head_dim, 2);
    const Floats q = queries();
    for (int64_t t = 0; t < len; ++t) {
        for (uint32_t i = 0; (t < 4 || t >= len - 60) && i < n_kv_heads * head_dim; ++i) {
            k[static_cast<size_t>(t) * n_kv_heads * head_dim + i] +=
                q[i / head_dim * group * head_dim + i % head_dim];  // of each KV head's first query
        }
    }
    const auto error_with = [&](const Case &c) {
        Cache cache = c.cache();
        cache.append(0, k, v);
        const Floats out = attend(c, cache);
        const oracle::Answer want = oracle::attend(n_kv_heads, group, head_dim, v_head_dim, len,
                                                   1 / std::sqrt(1.0 * head_dim), q.data(), k.data(), v.data());
        double error = 0, norm = 0;
        for (uint32_t head = 0; head < n_kv_heads; ++head) {
            for (uint32_t d = 0; d < v_head_dim; ++d) {
                const size_t i = size_t{head} * group * v_head_dim + d;
                error += (out[i] - want.out[i]) * (out[i] - want.out[i]);
                norm += want.out[i] * want.out[i];
            }
        }
        return std::sqrt(error / norm);
    };
    for (const Format format : {Format::q8, Format::q4}) {
        const double without = error_with({format, format});
        const double with = error_with({format, format, 64, 64});
        MESSAGE(std::string(test::name_of(format)) << ": relative error " << without << " without, " << with << " with f16");
        CHECK(with <= without / 2);
    }
}

// ---- Prompts

namespace {

// A prompt, and what each of its queries gives.
class Prompt {
public:
    static constexpr int64_t len = 700;

    Prompt(const Case &c, const kvlane::Geometry &geometry) : case_(c), attention_(geometry) {}

    // Of a cache of as many tokens as each has yet: what all must give.
    Floats one_by_one() {
        Floats all;
        Cache cache = case_.cache();
        for (int64_t t = 0; t < len; ++t) {
            append(cache, 1);
            extend(all, attend(cache, t, 1));
            cache.advance(1);
        }
        return all;
    }

    // Of all pieces' queries, in a call for each piece; or for each query, once its whole piece is appended.
    Floats in_pieces(const std::vector<int64_t> &pieces, bool one_query_a_call) {
        Floats all;
        Cache cache = case_.cache();
        for (const int64_t n : pieces) {
            append(cache, n);
            const int64_t at_once = one_query_a_call ? 1 : n;
            for (int64_t i = 0; i < n; i += at_once) {
                extend(all, attend(cache, cache.len() + i, at_once));
            }
            cache.advance(n);
        }
        REQUIRE(cache.len() == len);
        return all;
    }

    kvl_mask mask = kvlane::Mask{.n_tokens = len};  // rows by position of the query
    bool has_ranges = false;                        // the output is that of partials of single chunks, merged

private:
    static void extend(Floats &all, const Floats &more) { all.insert(all.end(), more.begin(), more.end()); }

    void append(Cache &cache, int64_t n) const {
        const int64_t first = cache.len();
        cache.append(0, tokens_of(k_, first, first + n, head_dim), tokens_of(v_, first, first + n, v_head_dim));
    }

    // n queries from that of position `first` on.
    Floats attend(const Cache &cache, int64_t first, int64_t n) {
        const kvl_view view = cache.view(0);
        const auto n_queries = static_cast<uint32_t>(n);
        kvl_mask own_mask = mask;
        own_mask.bits += mask.bits ? first * mask.bits_stride_bytes / 8 : 0;
        Floats out(static_cast<size_t>(n) * n_kv_heads * group * v_head_dim, 7.0f);
        const kvl_sequence sequence = kvlane::Sequence{.view = &view,
                                                       .len = first + n,
                                                       .n_queries = n_queries,
                                                       .q = query(first),
                                                       .out = out.data(),
                                                       .mask = mask.bits ? &own_mask : nullptr};
        if (has_ranges) {
            merge_ranges(sequence);
        } else {
            attention_.attend(std::span(&sequence, 1), workspace_);
        }
        return out;
    }

    void merge_ranges(const kvl_sequence &whole) {
        std::vector<kvlane::Partial> states;
        std::vector<kvl_partial> partials;
        for (int64_t first = 0; first < whole.len; first += KVL_CHUNK_TOKENS) {
            states.emplace_back(whole.n_queries, n_kv_heads * group, v_head_dim);
            partials.push_back(states.back().get());
            const kvl_range range = kvlane::Range{
                .first = first, .end = std::min<int64_t>(whole.len, first + KVL_CHUNK_TOKENS), .out = partials.back()};
            kvl_sequence part = whole;
            part.range = &range;
            attention_.attend(std::span(&part, 1), workspace_);
        }
        REQUIRE(kvl_merge(attention_.get(), partials.data(), static_cast<uint32_t>(partials.size()), whole.n_queries,
                          static_cast<float *>(whole.out), nullptr) == KVL_OK);
    }

    const float *query(int64_t position) const { return &q_[static_cast<size_t>(position) * n_kv_heads * group * head_dim]; }

    const Case &case_;
    Attention attention_;
    kvlane::Workspace workspace_ = attention_.workspace(1, len, len);
    Floats k_ = test::random_values(len * n_kv_heads * head_dim, 1);
    Floats v_ = test::random_values(len * n_kv_heads * v_head_dim, 2);
    Floats q_ = test::random_values(len * n_kv_heads * group * head_dim, 3);
};

const std::vector<int64_t> splits[] = {{700},    {64, 636},  {300, 400}, {63, 637},
                                       {1, 699}, {512, 188}, {699, 1},   {65, 127, 508}};

kvlane::Geometry geometry_of(const Case &c) {
    return {.n_query_heads = n_kv_heads * group,
            .n_kv_heads = n_kv_heads,
            .head_dim = head_dim,
            .v_head_dim = v_head_dim,
            .k_format = c.k,
            .v_format = c.v};
}

}  // namespace

TEST_CASE("f16 window: the queries of a prompt have the same bits however it is split into appends") {
    const Case windows[] = {{Format::q8, Format::q8, 0, 1},    {Format::q4, Format::q4, 1, 0},
                            {Format::q4, Format::q4, 64, 128}, {Format::q8, Format::q4, 100, 200},
                            {Format::q4, Format::f16, 0, 320}, {Format::f16, Format::q8, 1, 1}};
    for (const Case &c : windows) {
        INFO(c.text());
        Prompt prompt(c, geometry_of(c));
        const Floats want = prompt.one_by_one();
        for (const std::vector<int64_t> &pieces : splits) {
            INFO("first piece of " << pieces[0]);
            CHECK(same_bits(prompt.in_pieces(pieces, false), want));
        }
        CHECK(same_bits(prompt.in_pieces({300, 400}, true), want));
    }
}

TEST_CASE("f16 window: prompts have the same bits with sliding windows, masks and ranges too") {
    const Case c{Format::q8, Format::q4, 64, 128};
    const auto check = [&](const char *what, Prompt &prompt) {
        INFO(std::string(what));
        const Floats want = prompt.one_by_one();
        for (const std::vector<int64_t> &pieces : std::span(splits).first(3)) {
            INFO("first piece of " << pieces[0]);
            CHECK(same_bits(prompt.in_pieces(pieces, false), want));
        }
    };
    for (const int64_t window : {70, 250}) {
        kvlane::Geometry g = geometry_of(c);
        g.window = window;
        g.n_sink_tokens = 5;
        Prompt prompt(c, g);
        check("a window", prompt);
    }
    Prompt masked(c, geometry_of(c));
    std::vector<uint64_t> bits(Prompt::len * 11);
    for (size_t i = 0; i < bits.size(); ++i) {
        bits[i] = i % 5 == 0 ? 0 : 0x9e3779b97f4a7c15 * (i + 1);
    }
    masked.mask.bits = bits.data();
    masked.mask.bits_stride_bytes = 11 * 8;
    check("a mask", masked);
    Prompt ranges(c, geometry_of(c));
    const Floats whole = ranges.in_pieces({700}, false);
    ranges.has_ranges = true;
    check("ranges", ranges);
    CHECK(same_bits(ranges.in_pieces({700}, false), whole));
}

TEST_CASE("f16 window: sequences that share a cache, some of whose tokens are held in two formats, read it together") {
    const Case c{Format::q8, Format::q8, 0, 64};
    const Attention attention = c.attention();
    Cache cache = c.filled(900);
    test::append_random(cache, 0, 300, 5);  // in both from position 768 on
    const kvl_view view = cache.view(0);
    const Floats q = queries();
    const int64_t seen[] = {1200, 1200, 1100, 950, 901};
    std::vector<Floats> out(std::size(seen), Floats(size_t{n_kv_heads} * group * v_head_dim));
    std::vector<kvl_sequence> sequences;
    uint64_t bytes = 0, bytes_alone = 0;
    for (size_t i = 0; i < std::size(seen); ++i) {
        sequences.push_back(kvlane::Sequence{.view = &view, .len = seen[i], .q = q.data(), .out = out[i].data()});
        uint64_t of_one = 0;
        REQUIRE(kvl_attend_bytes(attention.get(), &sequences.back(), 1, &of_one) == KVL_OK);
        bytes_alone += of_one;
    }
    kvlane::Workspace workspace = attention.workspace(std::size(seen), 1200);
    attention.attend(sequences, workspace);
    for (size_t i = 0; i < std::size(seen); ++i) {
        INFO("len " << seen[i]);
        CHECK(same_bits(out[i], attend(attention, view, seen[i])));
    }
    REQUIRE(kvl_attend_bytes(attention.get(), sequences.data(), std::size(seen), &bytes) == KVL_OK);
    const uint64_t of_chunk = KVL_CHUNK_TOKENS * n_kv_heads * (head_dim + v_head_dim + 2 * sizeof(float));
    CHECK(bytes == bytes_alone - 4 * of_chunk);
}

#if defined(__linux__) && !defined(KVLANE_TEST_EMULATED)
namespace {

// Of the f16 tiles of KV head 0 of a cache without first tokens in f16.
int64_t resident_f16_bytes(const Cache &cache) {
    const kvl_view view = cache.view(0), *f16 = &view;
    while (f16->next) {
        f16 = f16->next;
    }
    REQUIRE(f16->k_format == KVL_F16);
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t n_before = (view.len - f16->len) / tile, n = (cache.max_tokens() + tile - 1) / tile;
    auto first = reinterpret_cast<uintptr_t>(f16->spans->k) - static_cast<uintptr_t>(n_before * f16->k_token_stride_bytes);
    first -= first % static_cast<uintptr_t>(page);
    std::vector<unsigned char> pages(static_cast<size_t>(n * f16->k_token_stride_bytes / page + 1));
    REQUIRE(mincore(reinterpret_cast<void *>(first), pages.size() * static_cast<size_t>(page), pages.data()) == 0);
    return page * std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return p & 1; });
}

}  // namespace

TEST_CASE("f16 window: memory of tokens that are no longer held in f16 goes back to the system") {
    for (const uint32_t dim : {24u, 128u}) {
        Cache cache(1, {2, dim, dim, Format::q4, Format::q4, Rotation::none, Rotation::none, 0, 128}, 20000);
        const auto bytes_of = [&](int64_t n_tokens) { return n_tokens * 2 * (dim == 24 ? 40 : 128) * 2; };
        test::append_random(cache, 0, 8000, 1);
        CHECK(resident_f16_bytes(cache) >= 8000 * 2 * dim * 2);
        cache.advance(8000);
        CHECK(resident_f16_bytes(cache) <= bytes_of(128 + 128) + 2 * 4096);
        for (int i = 0; i < 1000; ++i) {
            test::fill_random(cache, 1, 3);
        }
        CHECK(resident_f16_bytes(cache) <= bytes_of(128 + 192) + 2 * 4096);
        test::append_random(cache, 0, 5000, 4);
        cache.truncate(9000);
        test::fill_random(cache, 5000, 5);  // the tiles that were given back are zero, or cleared
        CHECK(resident_f16_bytes(cache) <= bytes_of(128 + 192) + 2 * 4096);
        cache.clear();
        test::append_random(cache, 0, 64, 5);
        CHECK(resident_f16_bytes(cache) <= bytes_of(128) + 2 * 4096);
    }
}
#else
TEST_CASE("f16 window: what memory of it is committed is not measured here") {
    MESSAGE("skipped: only Linux tells, and an emulator keeps an account of its own");
}
#endif

// ---- Views of several formats

namespace {

// A chain of views of what one view of one span shows, each from one of the given tokens to the next.
struct PartedView {
    std::vector<kvl_span> spans;
    std::vector<kvl_view> parts;

    PartedView(const kvl_view &straight, const std::vector<int64_t> &firsts) {
        const bool has_tiles = straight.flags & KVL_VIEW_TILES;
        for (const int64_t first : firsts) {
            REQUIRE((!has_tiles || first % tile == 0));
            kvl_span span = *straight.spans;
            span.k = static_cast<const std::byte *>(span.k) + first / (has_tiles ? tile : 1) * straight.k_token_stride_bytes;
            span.v = has_tiles ? nullptr : static_cast<const std::byte *>(span.v) + first * straight.v_token_stride_bytes;
            span.n_tokens -= first;
            spans.push_back(span);
            parts.push_back(straight);
            parts.back().len = straight.len - first;
        }
        for (size_t i = 0; i < parts.size(); ++i) {
            parts[i].spans = &spans[i];
            parts[i].next = i + 1 < parts.size() ? &parts[i + 1] : nullptr;
        }
    }
    PartedView(const PartedView &) = delete;
};

// The same of the tokens of c.filled(len), each part in a cache of its own.
struct PartedCache {
    std::vector<Cache> caches;
    std::vector<kvl_view> parts;

    PartedCache(const Case &c, int64_t len, const std::vector<int64_t> &firsts) {
        const Floats k = test::random_values(static_cast<size_t>(len * n_kv_heads * head_dim), 1);
        const Floats v = test::random_values(static_cast<size_t>(len * n_kv_heads * v_head_dim), 2);
        for (size_t i = 0; i < firsts.size(); ++i) {
            const int64_t end = i + 1 < firsts.size() ? firsts[i + 1] : len;
            caches.push_back(c.cache());
            caches.back().append(0, tokens_of(k, firsts[i], end, head_dim), tokens_of(v, firsts[i], end, v_head_dim));
            parts.push_back(caches.back().view(0));
            parts.back().len = len - firsts[i];
        }
        for (size_t i = 0; i + 1 < parts.size(); ++i) {
            parts[i].next = &parts[i + 1];
        }
    }
    PartedCache(const PartedCache &) = delete;
};

const std::vector<int64_t> on_tiles[] = {{0, 64}, {0, 512}, {0, 64, 128, 192, 1024}, {0, 1088}};
const std::vector<int64_t> anywhere[] = {{0, 1}, {0, 63, 64, 65}, {0, 513, 1099}};

}  // namespace

TEST_CASE("view: parts that meet on tiles give the bits of the whole, others are as exact") {
    for (const Format format : test::all_formats()) {
        const Case c{format, format};
        const Attention attention = c.attention();
        const Cache cache = c.filled(1100);
        const kvl_view whole = cache.view(0);
        for (const int64_t len : {1, 64, 65, 600, 1100}) {
            INFO(c.text() << ", len " << len);
            const Floats out = attend(attention, whole, len);
            for (const std::vector<int64_t> &firsts : on_tiles) {
                CHECK(same_bits(attend(attention, PartedView(whole, firsts).parts[0], len), out));
                CHECK(same_bits(attend(attention, PartedCache(c, 1100, firsts).parts[0], len), out));
            }
            for (const std::vector<int64_t> &firsts : anywhere) {
                CHECK(error_of(attend(attention, PartedCache(c, 1100, firsts).parts[0], len), cache, len) <= bound);
            }
        }
    }
}

TEST_CASE("view: parts of rows that meet on tiles give the bits of a cache, others are as exact") {
    for (const Format format : test::row_formats()) {
        const Case c{format, format};
        const Attention attention = c.attention();
        const Cache cache = c.filled(1100);
        test::RowMemory rows(cache);
        const kvl_view whole = rows.view();
        for (const int64_t len : {1, 64, 65, 600, 1100}) {
            INFO(c.text() << ", len " << len);
            const Floats out = attend(attention, cache.view(0), len);
            for (const std::vector<int64_t> &firsts : on_tiles) {
                CHECK(same_bits(attend(attention, PartedView(whole, firsts).parts[0], len), out));
            }
            for (const std::vector<int64_t> &firsts : anywhere) {
                CHECK(error_of(attend(attention, PartedView(whole, firsts).parts[0], len), cache, len) <= bound);
            }
        }
    }
}

TEST_CASE("view: rows of f16 before tiles of integers give the bits of a cache that keeps its first tokens in f16") {
    constexpr int64_t len = 320;
    for (const Format format : {Format::q8, Format::q4}) {
        const Case c{format, format, 64, 0, Rotation::none};
        const Cache in_f16 = Case{Format::f16, Format::f16, 0, 0, Rotation::none}.filled(len);
        Cache as_integers = Case{format, format, 0, 0, Rotation::none}.cache();
        as_integers.append(0, in_f16.read_k(0), in_f16.read_v(0));
        PartedView integers(as_integers.view(0), {64});
        test::RowMemory rows(in_f16);
        kvl_view view = rows.view();
        view.next = &integers.parts[0];
        CHECK(same_bits(attend(c.attention(), view, len), attend(c, c.filled(len))));
    }
}

TEST_CASE("view: a part that does not fit is refused, wherever it stands") {
    const Case c{Format::q8, Format::q4};
    const Cache cache = c.filled(300);
    const Cache other = Case{Format::q4, Format::q4}.filled(300);
    const Floats q = queries();
    const Attention attention = c.attention();
    kvlane::Workspace workspace = attention.workspace(1, 300);
    struct Spoilt {
        const char *what;
        kvl_status status;
        std::vector<const char *> says;
        void (*spoil)(PartedView &);
    };
    const Spoilt all[] = {
        {"no token of its own",
         KVL_ERROR_RANGE,
         {"sequences[0]: view[1]: len is 236", "235"},
         [](PartedView &p) {
             p.parts[1].len = 236;
             p.parts[0].len = 236;
         }},
        {"an overlap with no view",
         KVL_ERROR_RANGE,
         {"view[0]: n_overlap is 1; it must be from 0 to 0, as no view is before this one"},
         [](PartedView &p) { p.parts[0].n_overlap = 1; }},
        {"an overlap that the next view holds as well",
         KVL_ERROR_RANGE,
         {"view[1]: n_overlap is 65; it must be from 0 to 64, its tokens before those of the next view"},
         [](PartedView &p) { p.parts[1].n_overlap = 65; }},
        {"an overlap of more than all",
         KVL_ERROR_RANGE,
         {"view[2]: n_overlap is 173", "172"},
         [](PartedView &p) { p.parts[2].n_overlap = 173; }},
        {"an overlap < 0", KVL_ERROR_RANGE, {"view[2]: n_overlap is -1"}, [](PartedView &p) { p.parts[2].n_overlap = -1; }},
        {"an overlap that the view before does not hold",
         KVL_ERROR_LENGTH,
         {"view[0]: len is 300, of which 128 are its own; its spans hold 100 tokens"},
         [](PartedView &p) {
             p.spans[0].n_tokens = 100;
             p.parts[1].n_overlap = 64;
         }},
        {"recent tokens < 0",
         KVL_ERROR_RANGE,
         {"view[1]: n_recent is -1"},
         [](PartedView &p) {
             p.parts[1].n_overlap = 1;
             p.parts[1].n_recent = -1;
         }},
        {"a circle of overlaps",
         KVL_ERROR_RANGE,
         {"view[1]: n_overlap is 64; it must be from 0 to 0"},
         [](PartedView &p) {
             p.parts[2].next = &p.parts[1];
             p.parts[1].len = p.parts[2].len;
             p.parts[1].n_overlap = p.parts[2].n_overlap = 64;
         }},
        {"none in the last", KVL_ERROR_RANGE, {"view[2]: len is 0"}, [](PartedView &p) { p.parts[2].len = 0; }},
        {"a circle", KVL_ERROR_RANGE, {"view[3]: len"}, [](PartedView &p) { p.parts[2].next = &p.parts[0]; }},
        {"spans too short",
         KVL_ERROR_LENGTH,
         {"view[0]: len is 300, of which 64 are its own; its spans hold 10 tokens"},
         [](PartedView &p) { p.spans[0].n_tokens = 10; }},
        {"a span of a part of a tile before another",
         KVL_ERROR_LENGTH,
         {"view[0]: spans[0]: n_tokens is 10", "multiple of 64"},
         [](PartedView &p) {
             p.spans[0].n_tokens = 10;
             p.parts[0].n_spans = 2;
         }},
        {"no k", KVL_ERROR_NULL, {"span", "k"}, [](PartedView &p) { p.spans[2].k = nullptr; }},
        {"another format of integers",
         KVL_ERROR_GEOMETRY,
         {"view[1]: k_format is q4", "has q8"},
         [](PartedView &p) { p.parts[1].k_format = KVL_Q4; }},
        {"floats but f16",
         KVL_ERROR_GEOMETRY,
         {"view[2]: v_format is f32", "has q4, beside which f16 may stand"},
         [](PartedView &p) { p.parts[2].v_format = KVL_F32; }},
        {"another rotation",
         KVL_ERROR_GEOMETRY,
         {"view[1]: k_rotation is none", "has hadamard"},
         [](PartedView &p) { p.parts[1].k_rotation = KVL_ROTATION_NONE; }},
        {"another head_dim", KVL_ERROR_GEOMETRY, {"head_dim", "41", "40"}, [](PartedView &p) { p.parts[2].head_dim = 41; }},
        {"integers as rows",
         KVL_ERROR_FORMAT,
         {"view[1]: k_format is q8; rows must be f32, f16 or bf16, and q8 needs KVL_VIEW_TILES"},
         [](PartedView &p) { p.parts[1].flags = 0; }},
        {"flags", KVL_ERROR_FLAGS, {"view", "flags"}, [](PartedView &p) { p.parts[1].flags = KVL_VIEW_TILES | 2; }},
        {"struct_size", KVL_ERROR_STRUCT_SIZE, {"view", "struct_size"}, [](PartedView &p) { p.parts[2].struct_size = 8; }},
    };
    for (const Spoilt &spoilt : all) {
        INFO(std::string(spoilt.what));
        PartedView view(cache.view(0), {0, 64, 128});
        spoilt.spoil(view);
        Floats out(size_t{n_kv_heads} * group * v_head_dim, 7.0f);
        const kvl_sequence sequence = kvlane::Sequence{.view = &view.parts[0], .len = 100, .q = q.data(), .out = out.data()};
        CHECK(kvl_attend(attention.get(), &sequence, 1, workspace.data(), workspace.size(), nullptr) == spoilt.status);
        for (const char *word : spoilt.says) {
            INFO(std::string(kvl_last_error()));
            CHECK(std::string(kvl_last_error()).find(word) != std::string::npos);
        }
        CHECK(same_bits(out, Floats(out.size(), 7.0f)));
    }
}

TEST_CASE("view: tokens that two views hold count once, and give the bits of one view") {
    const Case c{Format::q8, Format::q8};
    const Attention attention = c.attention();
    const Cache cache = c.filled(1100);
    const kvl_view whole = cache.view(0);
    const auto bytes_of = [&](const kvl_view &view, int64_t len) {
        const Floats q = queries();
        Floats out(size_t{n_kv_heads} * group * v_head_dim);
        const kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = len, .q = q.data(), .out = out.data()};
        uint64_t bytes = 0;
        REQUIRE(kvl_attend_bytes(attention.get(), &sequence, 1, &bytes) == KVL_OK);
        return bytes;
    };
    for (const int64_t len : {1, 64, 65, 600, 1023, 1100}) {
        const Floats out = attend(attention, whole, len);
        const uint64_t want = bytes_of(whole, len);
        for (const int64_t n_recent : {0, 64, 200, 512, 2000}) {
            INFO("len " << len << ", n_recent " << n_recent);
            PartedView view(whole, {0, 64, 512, 576});
            view.parts[1].n_overlap = 448;
            view.parts[2].n_overlap = 64;
            view.parts[3].n_overlap = 524;
            view.parts[1].n_recent = view.parts[2].n_recent = view.parts[3].n_recent = n_recent / tile * tile;
            CHECK(same_bits(attend(attention, view.parts[0], len), out));
            CHECK(bytes_of(view.parts[0], len) == want);
            PartedView from_start(whole, {0, 0});
            from_start.parts[1].n_overlap = 1100;
            from_start.parts[1].n_recent = n_recent / tile * tile;
            CHECK(same_bits(attend(attention, from_start.parts[0], len), out));
            CHECK(bytes_of(from_start.parts[0], len) == want);
        }
    }
}

TEST_CASE("view: what a query reads from another view is NaN without effect") {
    const Case c{Format::f16, Format::f16, 0, 0, Rotation::none};
    const Cache cache = c.filled(700);
    const Floats k = cache.read_k(0), v = cache.read_v(0);
    // Queries from position 640 on read tokens from 512 on from the second view.
    for (const bool is_second : {false, true}) {
        Floats bad_k = k, bad_v = v;
        const int64_t first = is_second ? 64 : 512, end = is_second ? 512 : 700;
        std::fill_n(bad_k.begin() + first * n_kv_heads * head_dim, (end - first) * n_kv_heads * head_dim, NAN);
        std::fill_n(bad_v.begin() + first * n_kv_heads * v_head_dim, (end - first) * n_kv_heads * v_head_dim, INFINITY);
        Cache bad = c.cache();
        bad.append(0, bad_k, bad_v);
        PartedView of_first(is_second ? cache.view(0) : bad.view(0), {0});
        PartedView of_second(is_second ? bad.view(0) : cache.view(0), {0, 64});
        kvl_view &second = of_second.parts[1];
        second.n_overlap = 636;
        second.n_recent = 128;
        of_first.parts[0].next = &second;
        CHECK(same_bits(attend(c.attention(), of_first.parts[0], 680), attend(c.attention(), cache.view(0), 680)));
    }
}

TEST_CASE("view: f16 joins integers only") {
    const Cache in_f16 = Case{Format::f16, Format::f16}.filled(100);
    kvl_view view = in_f16.view(0);
    for (const Format format : {Format::f32, Format::bf16}) {
        const Attention attention = Case{format, format}.attention();
        CHECK_THROWS_AS(attend(attention, view, 100), kvlane::Error);
    }
    // The format is what a caller has wrong who shows a cache of f16 to an attention of q8, not the rotation.
    try {
        attend(Case{Format::q8, Format::q8}.attention(), view, 100);
        FAIL("nothing was thrown");
    } catch (const kvlane::Error &error) {
        CHECK(std::string(error.what()).find("k_format is f16 and k_rotation none; the attention object has q8") !=
              std::string::npos);
    }
    const Case c{Format::q8, Format::q8, 0, 0, Rotation::none};
    CHECK(error_of(attend(c.attention(), view, 100), in_f16, 100) <= bound);
}

// Key offsets: keys are stored without a constant per channel, and attention is that to the keys themselves.

#include <doctest/doctest.h>

#include <algorithm>

#include "rules.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Layer;
using test::Answer;
using test::Floats;
using test::Geometry;

namespace {

constexpr uint32_t n_kv_heads = 2, group = 2, n_heads = n_kv_heads * group, head_dim = 64;
constexpr size_t entry = n_kv_heads * head_dim;

// Biases of channels, of so many standard deviations; a few channels are outliers.
Floats biases(float deviations) {
    Floats bias = test::random_values(entry, 17);
    for (float &x : bias) {
        x *= deviations;
    }
    return bias;
}

struct Rows {
    Rows(int64_t n, float deviations, bool has_outliers = false)
        : bias(biases(deviations)),
          k(test::random_values(static_cast<size_t>(n) * entry, 1)),
          v(test::random_values(static_cast<size_t>(n) * entry, 2)) {
        for (size_t i = 0; i < k.size(); ++i) {
            k[i] = k[i] * (has_outliers && i % head_dim % 16 == 3 ? 8.0f : 1.0f) + bias[i % entry];
        }
    }
    std::span<const float> k_of(int64_t first, int64_t n) const { return of(k, first, n); }
    std::span<const float> v_of(int64_t first, int64_t n) const { return of(v, first, n); }

    Floats bias, k, v;

private:
    static std::span<const float> of(const Floats &x, int64_t first, int64_t n) {
        return std::span(x).subspan(static_cast<size_t>(first) * entry, static_cast<size_t>(n) * entry);
    }
};

enum class Offset { none, given, estimated };

Layer layer(Format format, Offset offset, const Rows &rows, int64_t n_first = 0, int64_t n_recent = 0) {
    return {.n_kv_heads = n_kv_heads,
            .head_dim = head_dim,
            .k_format = format,
            .v_format = format,
            .n_first_f16 = n_first,
            .n_recent_f16 = n_recent,
            .k_offset = offset == Offset::given ? rows.bias.data() : nullptr,
            .estimates_k_offset = offset == Offset::estimated};
}

Geometry geometry(Format format) {
    return {
        .n_query_heads = n_heads, .n_kv_heads = n_kv_heads, .head_dim = head_dim, .k_format = format, .v_format = format};
}

Cache cache_of(const Layer &layer, const Rows &rows, int64_t n, int64_t piece) {
    Cache cache(1, layer, n, KVL_CACHE_NO_HUGE_PAGES);
    for (int64_t t = 0; t < n; t += piece) {
        const int64_t step = std::min(piece, n - t);
        cache.append(0, rows.k_of(t, step), rows.v_of(t, step));
        cache.advance(step);
    }
    return cache;
}

// Relative to the oracle over the rows themselves, root mean square over queries.
double output_error(const Cache &cache, const Rows &rows, Format format, int64_t len) {
    constexpr uint32_t n_draws = 16;
    double sum = 0;
    for (uint32_t seed = 0; seed < n_draws; ++seed) {
        const Floats q = test::random_values(n_heads * head_dim, 100 + seed);
        const Answer got = test::attend(Attention(geometry(format)), cache.view(0), len, q);
        const double error = test::relative_error(got.out, test::expected(geometry(format), len, q, rows.k, rows.v).out);
        sum += error * error;
    }
    return std::sqrt(sum / n_draws);
}

}  // namespace

TEST_CASE("key offset: attention equals the oracle over what the cache reads back, for every format and rule") {
    const Floats slopes = test::of_heads(n_heads, 0.5f, 0.7f), logits = test::of_heads(n_heads, 4, -0.9f);
    const Rows rows(700, 2);
    for (const Format format : test::all_formats()) {
        for (const Offset offset : {Offset::given, Offset::estimated}) {
            if (offset == Offset::estimated && !test::is_scaled(format)) {
                continue;
            }
            const Cache cache = cache_of(layer(format, offset, rows, offset == Offset::estimated ? 64 : 0), rows, 700, 700);
            for (const test::NamedRules &rule : test::rules) {
                INFO(std::string(test::name_of(format)) << ", " << std::string(rule.name));
                Geometry g = geometry(format);
                rule.apply(g, slopes, logits);
                g.precision = test::usual_precision(g);
                const Floats q = test::queries_of(g);
                const Answer got = test::attend(Attention(g), cache.view(0), 700, q);
                test::check_near(g, got.out, got.lse, test::expected(g, 700, q, cache.read_k(0), cache.read_v(0)), 700);
            }
        }
    }
}

TEST_CASE("key offset: a bias of 20 standard deviations costs no more than none, given and estimated") {
    constexpr int64_t len = 2048;
    double errors[2][2][3];
    std::string table;
    for (const bool has_outliers : {false, true}) {
        for (const Format format : {Format::q8, Format::q4}) {
            double(&of)[3] = errors[has_outliers][format == Format::q4];
            const Rows plain(len, 0, has_outliers), biased(len, 20, has_outliers);
            const double without =
                output_error(cache_of(layer(format, Offset::none, plain), plain, len, len), plain, format, len);
            for (const Offset offset : {Offset::none, Offset::given, Offset::estimated}) {
                of[static_cast<int>(offset)] = output_error(
                    cache_of(layer(format, offset, biased, 0, offset == Offset::estimated ? 64 : 0), biased, len, len),
                    biased, format, len);
            }
            char line[160];
            std::snprintf(line, sizeof line, "\n| %s | %s | %.4f | %.4f | %.4f | %.4f |", test::name_of(format),
                          has_outliers ? "yes" : "no", without, of[0], of[1], of[2]);
            table += line;
            CHECK(of[1] <= 1.1 * without);
            CHECK(of[2] <= 1.25 * without);  // a mean of 64 keys is off by an eighth of each channel's deviation
            CHECK(of[1] < 0.6 * of[0]);
        }
    }
    MESSAGE("| format | outliers | no bias | bias | bias, offset given | bias, offset estimated |" << table);
}

TEST_CASE("key offset: an estimate has the same bits however the prompt is split, and after a truncate and a copy") {
    const Rows rows(400, 5);
    const Layer estimating = layer(Format::q4, Offset::estimated, rows, 0, 64);
    const Cache whole = cache_of(estimating, rows, 400, 400);
    for (const int64_t piece : {int64_t{1}, int64_t{70}, int64_t{64}}) {
        const Cache cache = cache_of(estimating, rows, 400, piece);
        CHECK(test::same_bits(cache.read_k(0), whole.read_k(0)));
        const Floats q = test::random_values(n_heads * head_dim, 7);
        const Attention attention(geometry(Format::q4));
        CHECK(test::attend(attention, cache.view(0), 400, q) == test::attend(attention, whole.view(0), 400, q));
        CHECK(test::attend(attention, cache.copy().view(0), 400, q) == test::attend(attention, whole.view(0), 400, q));
    }
    Cache cache = cache_of(estimating, rows, 400, 400);
    cache.clear();
    const Rows others(400, 9);
    cache.append(0, others.k_of(0, 400), others.v_of(0, 400));
    cache.advance(400);
    CHECK(test::same_bits(cache.read_k(0), cache_of(estimating, others, 400, 400).read_k(0)));
}

TEST_CASE("key offset: tiles that a caller owns have the bytes of a cache's") {
    const Rows rows(100, 5);
    const Layer given = layer(Format::q8, Offset::given, rows);
    const Cache cache = cache_of(given, rows, 100, 100);
    kvl_view view = kvlane::tile_layout(given, 128);
    kvlane::Workspace pool(static_cast<size_t>(view.k_block_stride_bytes));
    const kvl_span span{pool.data(), nullptr, 128};
    view.block_tokens = 0;
    view.spans = &span;
    view.n_spans = 1;
    view.len = 100;
    kvlane::write_tiles(view, 0, rows.k_of(0, 100), rows.v_of(0, 100));
    const Floats q = test::random_values(n_heads * head_dim, 7);
    const Attention attention(geometry(Format::q8));
    CHECK(test::attend(attention, view, 100, q) == test::attend(attention, cache.view(0), 100, q));
}

TEST_CASE("key offset: an estimate forgets tokens that were dropped, committed or pending") {
    const Rows rows(400, 5), others(400, 9);
    const Layer estimating = layer(Format::q4, Offset::estimated, rows, 0, 64);
    for (const bool is_pending : {false, true}) {
        Cache cache(1, estimating, 400, KVL_CACHE_NO_HUGE_PAGES), fresh(1, estimating, 400, KVL_CACHE_NO_HUGE_PAGES);
        for (Cache *of : {&cache, &fresh}) {
            of->append(0, rows.k_of(0, 10), rows.v_of(0, 10));
            of->advance(10);
        }
        cache.append(0, rows.k_of(10, 190), rows.v_of(10, 190));  // quantizes the first tile
        if (!is_pending) {
            cache.advance(190);
        }
        cache.truncate(10);
        for (Cache *of : {&cache, &fresh}) {
            of->append(0, others.k_of(0, 390), others.v_of(0, 390));
            of->advance(390);
        }
        const Floats k = cache.read_k(0), fresh_k = fresh.read_k(0);
        if (is_pending) {  // the f16 data of the first 10 tokens was still there
            CHECK(test::same_bits(k, fresh_k));
            continue;
        }
        double difference = 0;  // those tokens were quantized once, and the mean of the first tile differs by so much
        for (size_t i = 0; i < k.size(); ++i) {
            difference = std::max(difference, std::abs(double{k[i]} - fresh_k[i]));
        }
        CHECK(difference < 3);  // biases of the dropped tokens are about 5, and of the others 9
    }
}

TEST_CASE("key offset: sequences share a prefix whose offset is the same, and none whose offset differs") {
    const Rows rows(600, 5);
    const Cache cache = cache_of(layer(Format::q8, Offset::given, rows), rows, 600, 600);
    const Attention attention(geometry(Format::q8));
    kvl_view views[] = {cache.view(0), cache.view(0)};
    const Floats q = test::random_values(n_heads * head_dim, 7);
    for (const float factor : {1.0f, 0.5f}) {
        Floats offset = rows.bias;
        for (float &x : offset) {
            x *= factor;
        }
        views[1].k_offset = offset.data();
        Answer answers[2] = {{Floats(n_heads * head_dim), Floats(n_heads)}, {Floats(n_heads * head_dim), Floats(n_heads)}};
        std::vector<kvl_sequence> sequences;
        for (int i = 0; i < 2; ++i) {
            sequences.push_back(kvlane::Sequence{
                .view = &views[i], .len = 600, .q = q.data(), .out = answers[i].out.data(), .lse = answers[i].lse.data()});
        }
        kvlane::Workspace workspace = attention.workspace(2, 600);
        attention.attend(sequences, workspace);
        CHECK(answers[0] == test::attend(attention, views[0], 600, q));
        CHECK(answers[1] == test::attend(attention, views[1], 600, q));
        CHECK((answers[0] == answers[1]) == (factor == 1));
    }
}

TEST_CASE("key offset: a view of version 0.1 has no room for it, and is refused, in a chain too") {
    const Rows rows(300, 5);
    struct {
        kvl_view view = kvl_view_init();
        uint64_t behind = 7;  // where a later field would be
    } old;
    constexpr size_t size = offsetof(kvl_view, k_offset);
    static_assert(sizeof(kvl_view) == size + sizeof(float *));
    const auto status = [&](const Cache &cache) {
        old.view.struct_size = size;
        old.view.k_offset = rows.bias.data();
        return kvl_cache_view(cache.get(), 0, &old.view);
    };
    const Cache without = cache_of(layer(Format::q8, Offset::none, rows, 64, 64), rows, 300, 300);
    CHECK(status(without) == KVL_OK);
    CHECK(old.view.struct_size == size);
    CHECK(old.view.k_offset == rows.bias.data());  // as it was
    CHECK(old.view.next->struct_size == size);     // which the caller may copy
    CHECK(status(cache_of(layer(Format::q8, Offset::given, rows), rows, 300, 300)) == KVL_ERROR_STRUCT_SIZE);
    CHECK(std::string(kvl_last_error()).find("view: the byte at offset") != std::string::npos);
    CHECK(status(cache_of(layer(Format::q8, Offset::given, rows, 64, 64), rows, 300, 300)) == KVL_ERROR_STRUCT_SIZE);
    CHECK(std::string(kvl_last_error()).find("view: in the chain: ") != std::string::npos);
}

TEST_CASE("key offset: what does not fit is refused") {
    const Rows rows(10, 5);
    Layer wrong = layer(Format::f16, Offset::none, rows);
    wrong.estimates_k_offset = true;
    CHECK_THROWS_WITH(Cache(1, wrong), doctest::Contains("layers[0]: flags has KVL_LAYER_ESTIMATE_K_OFFSET"));
    Floats infinite(entry);
    infinite[3] = INFINITY;
    wrong = layer(Format::q8, Offset::none, rows);
    wrong.k_offset = infinite.data();
    CHECK_THROWS_WITH(Cache(1, wrong), doctest::Contains("layers[0]: k_offset[3] is inf"));
}

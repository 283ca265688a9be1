// Sequences that begin with the same memory: it is read once for all, and each has the bits that it has alone.

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <tuple>
#include <vector>

#include "answers.hpp"
#include "row_memory.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Geometry;
using test::Answer;

namespace {

using Floats = std::vector<float>;

constexpr uint32_t n_kv_heads = 2, head_dim = 48;
constexpr int64_t chunk = KVL_CHUNK_TOKENS;

Geometry geometry_of(Format format, uint32_t group) {
    return {.n_query_heads = n_kv_heads * group,
            .n_kv_heads = n_kv_heads,
            .head_dim = head_dim,
            .k_format = format,
            .v_format = format};
}

// All caches are of one capacity, and so of the same strides.
constexpr int64_t max_tokens = 3000;

// One of the sequences that share: so many of its tokens are the prefix's, and so many its own.
struct Text {
    int64_t of_prefix;
    int64_t own;
    uint32_t n_queries = 1;
};

enum class Memory { tiles, rows };

// Views of texts over one prefix, as spans of the prefix's cache and of each one's own, or of their copies as rows.
struct Texts {
    Geometry g;
    Cache prefix;
    std::vector<Cache> caches;
    std::deque<test::RowMemory> rows;
    std::vector<kvl_span> spans;
    std::vector<kvl_view> views;
    std::vector<Floats> queries;
    std::vector<Text> texts;

    Texts(const Geometry &geometry, int64_t prefix_len, std::vector<Text> all, Memory memory = Memory::tiles)
        : g(geometry), prefix(test::cache_of(g, prefix_len, 1, max_tokens)), texts(std::move(all)) {
        spans.reserve(2 * texts.size());
        const kvl_view whole = view_of(prefix, memory);
        for (uint32_t i = 0; i < texts.size(); ++i) {
            caches.push_back(test::cache_of(g, texts[i].own, 10 + i, max_tokens));
            kvl_view view = whole;
            spans.push_back(*view.spans);
            spans.back().n_tokens = texts[i].of_prefix;
            spans.push_back(*view_of(caches[i], memory).spans);
            spans.back().n_tokens = texts[i].own;
            view.spans = &spans[2 * i];
            view.n_spans = 2;
            view.len = texts[i].of_prefix + texts[i].own;
            views.push_back(view);
            queries.push_back(test::random_values(size_t{texts[i].n_queries} * g.n_query_heads * head_dim, 50 + i));
        }
    }

    kvl_view view_of(const Cache &cache, Memory memory) {
        return memory == Memory::tiles ? cache.view(0) : rows.emplace_back(cache, 0, true).view();
    }

    Answer alone(const Attention &attention, size_t i) const {
        return test::attend(attention, views[i], views[i].len, queries[i], texts[i].n_queries);
    }

    // Checks all in one call against each alone, and returns the bytes that the call reads.
    uint64_t check(const kvl_executor *executor = nullptr) const {
        const Attention attention(g);
        std::vector<Answer> got, want;
        std::vector<kvl_sequence> sequences;
        uint32_t most_queries = 1;
        int64_t most = 0;
        for (size_t i = 0; i < texts.size(); ++i) {
            want.push_back(alone(attention, i));
            got.push_back({Floats(want[i].out.size()), Floats(want[i].lse.size())});
            most_queries = std::max(most_queries, texts[i].n_queries);
            most = std::max(most, views[i].len);
        }
        for (size_t i = 0; i < texts.size(); ++i) {
            sequences.push_back(kvlane::Sequence{.view = &views[i],
                                                 .len = views[i].len,
                                                 .n_queries = texts[i].n_queries,
                                                 .q = queries[i].data(),
                                                 .out = got[i].out.data(),
                                                 .lse = got[i].lse.data()});
        }
        kvlane::Workspace workspace =
            attention.workspace(static_cast<uint32_t>(texts.size()), most, most_queries, kvlane::max_tasks(executor));
        attention.attend(sequences, workspace, executor);
        CHECK(got == want);
        uint64_t bytes = 0;
        REQUIRE(kvl_attend_bytes(attention.get(), sequences.data(), static_cast<uint32_t>(sequences.size()), &bytes) ==
                KVL_OK);
        return bytes;
    }

    int64_t bytes_of_token() const {
        const auto row = [&](Format f) {
            return test::row_bytes(static_cast<kvl_format>(f), head_dim) +
                   test::entry_bytes(static_cast<kvl_format>(f), head_dim);
        };
        return n_kv_heads * (row(g.k_format) + row(g.v_format));
    }
};

}  // namespace

TEST_CASE(
    "prefix: sequences that share one have the bits that each has alone, for every format, group and number of queries") {
    for (const Format format : test::all_formats()) {
        for (const uint32_t group : {1u, 4u, 7u, 40u}) {
            INFO(test::name_of(format) << ", group " << group);
            const std::vector<Text> all = {{1280, 5}, {1280, 300, 3}, {1280, 0}, {1280, 64, 2}};
            Texts(geometry_of(format, group), 1280, all).check();
            if (!test::is_scaled(format)) {
                Texts(geometry_of(format, group), 1280, all, Memory::rows).check();
            }
        }
    }
}

TEST_CASE("prefix: its whole chunks are read once") {
    for (const Memory memory : {Memory::tiles, Memory::rows}) {
        const Texts texts(geometry_of(Format::f16, 4), 1280, {{1280, 5}, {1280, 300, 3}, {1280, 64}}, memory);
        CHECK(texts.check() == static_cast<uint64_t>(texts.bytes_of_token() * (3 * 1280 + 369 - 2 * 2 * chunk)));
    }
}

TEST_CASE("prefix: no more is shared than all queries see") {
    // Of the chunk that ends with the first 1024 tokens, the first of 9 queries does not see the last.
    for (const auto &[of_prefix, n_queries, n_chunks] :
         {std::tuple{1024, 9u, 1}, {1024, 1u, 2}, {1031, 8u, 2}, {511, 1u, 0}}) {
        for (const Memory memory : {Memory::tiles, Memory::rows}) {
            const Texts texts(geometry_of(Format::f32, 3), 1280, {{of_prefix, 0, n_queries}, {1280, 40}}, memory);
            CHECK(texts.check() == static_cast<uint64_t>(texts.bytes_of_token() * (of_prefix + 1320 - n_chunks * chunk)));
        }
    }
}

TEST_CASE("prefix: others may stand among those that share, that share less or nothing") {
    for (const Memory memory : {Memory::tiles, Memory::rows}) {
        const int64_t less = memory == Memory::tiles ? 576 : 600;
        const Texts texts(geometry_of(Format::f16, 4), 1600,
                          {{1600, 9}, {1600, 1}, {less, 20}, {less, 2}, {0, 700}, {1600, 3}, {1600, 4}}, memory);
        CHECK(texts.check() ==
              static_cast<uint64_t>(texts.bytes_of_token() * (6400 + 2 * less + 739 - (3 + 1 + 3) * chunk)));
    }
}

TEST_CASE("prefix: rules change nothing, be it shared by them or not") {
    const Floats slopes(8, 0.1f), logits{1, 2, 3, 4, 5, 6, 7, 8};
    const std::vector<Text> all = {{1280, 5}, {1280, 300, 3}, {1280, 64}};
    Geometry g = geometry_of(Format::q8, 4);
    g.softcap = 3;
    g.sink_logits = logits;
    const uint64_t shared = Texts(g, 1280, all).check();
    g.alibi_slopes = slopes;
    CHECK(Texts(g, 1280, all).check() == shared);
    g.window = 1580;
    CHECK(Texts(g, 1280, all).check() == shared);
    g.window = 1579;  // hides the first token from one text's last query
    CHECK(Texts(g, 1280, all).check() > shared);
    g.n_sink_tokens = 1;
    CHECK(Texts(g, 1280, all).check() == shared);
    g.window = 700;
    Texts(g, 1280, all).check();
    g.n_sink_tokens = 600;
    Texts(g, 1280, all).check();
}

TEST_CASE("prefix: any threads give the same bits") {
    const Texts texts(geometry_of(Format::q4, 8), 2048, {{2048, 5}, {2048, 300, 3}, {2048, 0}, {2048, 64}, {0, 700}});
    for (const int n_threads : {1, 2, 3, 8}) {
        test::ThreadPool pool(n_threads);
        const kvl_executor executor = pool.executor();
        texts.check(&executor);
    }
}

TEST_CASE("prefix: tables of blocks share the blocks that they begin with") {
    constexpr uint32_t block_tokens = 64;
    const auto check = [](Format format, Memory memory) {
        Texts texts(geometry_of(format, 4), 2900, {{0, 0}, {0, 0}, {0, 0}}, memory);
        const kvl_view whole = texts.view_of(texts.prefix, memory);
        const int64_t strides = memory == Memory::tiles ? 1 : block_tokens;
        int32_t blocks[3][20];
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 20; ++j) {
                blocks[i][j] = j < 9 + 8 * (i == 1) ? (j * 7 + 3) % 20 : 20 + (5 * i + j) % 24;  // 9 alike, of two 17
            }
            kvl_view &view = texts.views[static_cast<size_t>(i)];
            view = whole;
            view.blocks = blocks[i];
            view.n_blocks = 20;
            view.block_tokens = block_tokens;
            view.k_block_stride_bytes = strides * view.k_token_stride_bytes;
            view.v_block_stride_bytes = strides * view.v_token_stride_bytes;
            view.len = 1200 + i;
        }
        CHECK(texts.check() == static_cast<uint64_t>(texts.bytes_of_token() * (3603 - 2 * chunk)));
    };
    check(Format::f16, Memory::tiles);
    check(Format::q4, Memory::tiles);
    check(Format::f16, Memory::rows);
}

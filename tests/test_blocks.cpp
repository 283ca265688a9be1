// Views of paged caches: the blocks of a table, in any order, give the bits of straight memory.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "row_memory.hpp"
#include "rules.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using test::Answer;
using test::RowMemory;

namespace {

// Some tokens of a view of one span, copied to blocks in random order, [block][kv_head][row or tile], the first row `shift`
// bytes off a cache line, or the first tile on one; all else, two blocks that no token is in too, is all ones, NaN in every
// format.
class Paged {
public:
    Paged(const kvl_view &source, int64_t first, int64_t n_tokens, uint32_t block_tokens, size_t shift)
        : view(source), first_(first) {
        view.block_tokens = block_tokens;
        view.n_blocks = static_cast<uint32_t>((n_tokens + block_tokens - 1) / block_tokens);
        blocks_.resize(view.n_blocks + 2);
        std::iota(blocks_.begin(), blocks_.end(), 0);
        std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(block_tokens));
        view.len = n_tokens;
        view.blocks = blocks_.data();
        view.spans = &pool_;
        view.n_spans = 1;
        pool_.n_tokens = static_cast<int64_t>(blocks_.size()) * block_tokens;
        const kvl_span &from = *source.spans;
        const auto row_of = [](kvl_format format, uint32_t dim) {
            return Record{1, static_cast<int64_t>(test::row_bytes(format, dim)), 4, 20};
        };
        if (view.flags & KVL_VIEW_TILES) {
            const Record tile{64, view.k_token_stride_bytes, 64, 128};
            pool_.k =
                paged(0, from.k, tile, view.k_token_stride_bytes, view.k_head_stride_bytes, view.k_block_stride_bytes, 0);
        } else {
            pool_.k = paged(0, from.k, row_of(view.k_format, view.head_dim), view.k_token_stride_bytes,
                            view.k_head_stride_bytes, view.k_block_stride_bytes, shift);
            pool_.v = paged(1, from.v, row_of(view.v_format, view.v_head_dim), view.v_token_stride_bytes,
                            view.v_head_stride_bytes, view.v_block_stride_bytes, shift);
        }
    }
    Paged(const Paged &) = delete;

    kvl_view view;

private:
    // A row or a tile, and the bytes that are left free behind each, and behind each block.
    struct Record {
        int64_t n_tokens;
        int64_t bytes;
        int64_t gap;
        int64_t block_gap;
    };

    const std::byte *paged(int plane, const void *from, const Record &record, int64_t &token_stride, int64_t &head_stride,
                           int64_t &block_stride, size_t shift) {
        const int64_t from_token = token_stride, from_head = head_stride, in_block = view.block_tokens / record.n_tokens;
        token_stride = record.bytes + record.gap;
        head_stride = in_block * token_stride;
        block_stride = view.n_kv_heads * head_stride + record.block_gap;
        std::vector<std::byte> &memory = memory_[plane];
        memory.assign(blocks_.size() * static_cast<size_t>(block_stride) + 256, std::byte{0xff});
        std::byte *base = memory.data() + 128 - reinterpret_cast<uintptr_t>(memory.data()) % 64 + shift;
        const auto *first = static_cast<const std::byte *>(from) + first_ / record.n_tokens * from_token;
        for (int64_t i = 0; i * record.n_tokens < view.len; ++i) {
            for (int64_t h = 0; h < view.n_kv_heads; ++h) {
                std::memcpy(base + blocks_[static_cast<size_t>(i / in_block)] * block_stride + h * head_stride +
                                i % in_block * token_stride,
                            first + i * from_token + h * from_head, static_cast<size_t>(record.bytes));
            }
        }
        return base;
    }

    int64_t first_;
    kvl_span pool_{};
    std::vector<int32_t> blocks_;
    std::vector<std::byte> memory_[2];
};

// check(view) of all of a cache's tokens, in blocks of many sizes: its tiles, and rows where its formats have them.
template <class Check>
void for_each_paging(const Cache &cache, Check &&check) {
    const kvl_view tiles = cache.view(0);
    for (const uint32_t block_tokens : {64u, 192u, 256u, 1024u}) {
        INFO("tiles in blocks of " << block_tokens);
        check(Paged(tiles, 0, tiles.len, block_tokens, 0).view);
    }
    if (test::is_scaled(Format{tiles.k_format}) || test::is_scaled(Format{tiles.v_format})) {
        return;
    }
    RowMemory rows(cache);
    for (const uint32_t block_tokens : {16u, 17u, 32u, 48u, 64u, 256u, 1024u}) {
        INFO("rows in blocks of " << block_tokens);
        check(Paged(rows.view(), 0, tiles.len, block_tokens, block_tokens % 3 * 14).view);
    }
}

Cache filled(uint32_t n_kv_heads, uint32_t head_dim, uint32_t v_head_dim, Format k, Format v, int64_t len) {
    Cache cache(1, {n_kv_heads, head_dim, v_head_dim, k, v}, len, KVL_CACHE_NO_HUGE_PAGES);
    test::fill_random(cache, len, 1);
    return cache;
}

}  // namespace

TEST_CASE("blocks: in any order and anywhere they give the bits of straight memory, in every format") {
    constexpr int64_t len = 1100;
    for (const Format k_format : test::all_formats()) {
        for (const Format v_format : {k_format, Format::f16, Format::q8}) {
            for (const uint32_t group : {1u, 4u, 7u}) {
                const Cache cache = filled(3, 80, 45, k_format, v_format, len);
                const Attention attention({3 * group, 3, 80, 45, k_format, v_format});
                const std::vector<float> q = test::random_values(size_t{3} * group * 80, 9);
                CAPTURE(attention.kernel());
                for (const int64_t seen : {int64_t{1}, int64_t{65}, int64_t{600}, len}) {
                    const Answer want = test::attend(attention, cache.view(0), seen, q);
                    CAPTURE(seen);
                    for_each_paging(cache,
                                    [&](const kvl_view &paged) { CHECK(test::attend(attention, paged, seen, q) == want); });
                }
            }
        }
    }
}

TEST_CASE("blocks: masks give the bits of straight memory") {
    constexpr int64_t len = 700;
    constexpr uint32_t n_queries = 3;
    std::vector<uint64_t> bits(n_queries * 11);
    for (size_t i = 0; i < bits.size(); ++i) {
        bits[i] = i % 11 < 4 ? (i % 2 ? ~uint64_t{0} : 0) : 0xf0f3a5ffffff0001u >> i;
    }
    const kvl_mask mask = kvlane::Mask{.bits = bits.data(), .n_tokens = len, .bits_stride_bytes = 11 * sizeof(uint64_t)};
    for (const Format format : test::all_formats()) {
        const Cache cache = filled(2, 64, 64, format, format, len);
        const Attention attention({6, 2, 64, 64, format, format});
        const std::vector<float> q = test::random_values(size_t{n_queries} * 6 * 64, 9);
        const Answer want = test::attend(attention, cache.view(0), len, q, n_queries, nullptr, &mask);
        CAPTURE(attention.kernel());
        for_each_paging(cache, [&](const kvl_view &paged) {
            CHECK(test::attend(attention, paged, len, q, n_queries, nullptr, &mask) == want);
        });
    }
}

TEST_CASE("blocks: every rule, for one query and for several, gives the bits of straight memory; token-major memory too") {
    constexpr int64_t len = 1300;
    for (const Format format : test::all_formats()) {
        const Cache cache = filled(2, 64, 64, format, format, len);
        for (const test::NamedRules &rule : test::rules) {
            kvlane::Geometry geometry{.n_query_heads = 6, .n_kv_heads = 2, .head_dim = 64};
            geometry.k_format = geometry.v_format = format;
            const auto slopes = test::of_heads(6, 0.5f, 0.7f), logits = test::of_heads(6, 4, -0.9f);
            rule.apply(geometry, slopes, logits);
            const Attention attention(geometry);
            for (const uint32_t n_queries : {1u, 7u}) {
                const std::vector<float> q = test::random_values(size_t{n_queries} * 6 * 64, 9);
                const Answer straight = test::attend(attention, cache.view(0), len, q, n_queries);
                INFO(attention.kernel() << ", " << rule.name << ", " << n_queries << " queries");
                for_each_paging(cache, [&](const kvl_view &paged) {
                    CHECK(test::attend(attention, paged, len, q, n_queries) == straight);
                });
                if (!test::is_scaled(format)) {
                    RowMemory token_major(cache, 0, true);
                    CHECK(test::attend(attention, token_major.view(), len, q, n_queries) == straight);
                }
            }
        }
    }
}

TEST_CASE("blocks: each view of a row of them may have its own table, of tiles or of rows") {
    constexpr int64_t len = 900, first = 128;
    for (const Format format : test::all_formats()) {
        const Cache cache = filled(2, 64, 64, format, format, len);
        const Attention attention({6, 2, 64, 64, format, format});
        const std::vector<float> q = test::random_values(6 * 64, 9);
        const auto check = [&](Paged &begin, const Paged &end) {
            begin.view.len = len;
            begin.view.next = &end.view;
            for (const int64_t seen : {int64_t{100}, first, int64_t{500}, len}) {
                CAPTURE(attention.kernel());
                CAPTURE(seen);
                CHECK(test::attend(attention, begin.view, seen, q) == test::attend(attention, cache.view(0), seen, q));
            }
        };
        Paged tiles_begin(cache.view(0), 0, first, 64, 0);
        const Paged tiles_end(cache.view(0), first, len - first, 192, 0);
        check(tiles_begin, tiles_end);
        if (!test::is_scaled(format)) {
            RowMemory rows(cache);
            Paged rows_begin(rows.view(), 0, first, 16, 0);
            const Paged rows_end(rows.view(), first, len - first, 48, 0);
            check(rows_begin, rows_end);
            check(rows_begin, tiles_end);
            check(tiles_begin, rows_end);
        }
    }
}

TEST_CASE("view: keys and values that take turns in memory, and values that are the keys, give the bits of the cache") {
    constexpr int64_t len = 300, row = 64 * sizeof(float), n_heads = 2;
    const Cache cache = filled(n_heads, 64, 64, Format::f32, Format::f32, len);
    const Attention attention({6, n_heads, 64, 64, Format::f32, Format::f32});
    const std::vector<float> q = test::random_values(6 * 64, 9);
    const std::vector<float> k = cache.read_k(0), v = cache.read_v(0);
    std::vector<float> memory(k.size() + v.size());  // [token][kv_head][k, v][dim]
    for (size_t i = 0; i < k.size(); ++i) {
        memory[i / 64 * 128 + i % 64] = k[i];
        memory[i / 64 * 128 + 64 + i % 64] = v[i];
    }
    const kvl_span span{memory.data(), memory.data() + 64, len};
    RowMemory rows(cache);
    kvl_view view = rows.view();
    view.spans = &span;
    view.k_token_stride_bytes = view.v_token_stride_bytes = 2 * n_heads * row;
    view.k_head_stride_bytes = view.v_head_stride_bytes = 2 * row;
    CHECK(test::attend(attention, view, len, q) == test::attend(attention, cache.view(0), len, q));

    Cache alike(1, {n_heads, 64, 64, Format::f32, Format::f32}, len);
    alike.append(0, k, k);
    const kvl_span keys{memory.data(), memory.data(), len};
    view.spans = &keys;
    CHECK(test::attend(attention, view, len, q) == test::attend(attention, alike.view(0), len, q));
}

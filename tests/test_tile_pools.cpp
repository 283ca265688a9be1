// Packed tiles that a caller owns: what is written to them has the bytes of a cache's tiles, and attention to them its bits.

#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>
#include <random>
#include <thread>

#include "answers.hpp"

using kvlane::Format;
using kvlane::Rotation;

namespace {

constexpr int64_t tile_tokens = KVL_TILE_TOKENS;

struct Rows {
    Rows(const kvlane::Layer &layer, int64_t n_tokens, uint32_t seed)
        : k_entry(size_t{layer.n_kv_heads} * layer.head_dim),
          v_entry(size_t{layer.n_kv_heads} * layer.v_head_dim),
          k(test::random_values(static_cast<size_t>(n_tokens) * k_entry, seed)),
          v(test::random_values(static_cast<size_t>(n_tokens) * v_entry, seed + 1)) {}

    std::span<const float> k_of(int64_t first, int64_t n) const { return of(k, k_entry, first, n); }
    std::span<const float> v_of(int64_t first, int64_t n) const { return of(v, v_entry, first, n); }

    size_t k_entry, v_entry;
    std::vector<float> k, v;

private:
    static std::span<const float> of(const std::vector<float> &x, size_t entry, int64_t first, int64_t n) {
        return std::span(x).subspan(static_cast<size_t>(first) * entry, static_cast<size_t>(n) * entry);
    }
};

/// A pool of blocks of tiles, all ones before they are written, with a block table in random order for n_tokens tokens.
class Pool {
public:
    Pool(const kvlane::Layer &layer, int64_t n_tokens, uint32_t block_tokens)
        : view(kvlane::tile_layout(layer, block_tokens)),
          blocks_(static_cast<size_t>((n_tokens + block_tokens - 1) / block_tokens) + 2),
          memory_(blocks_.size() * static_cast<size_t>(view.k_block_stride_bytes)),
          span_{memory_.data(), nullptr, static_cast<int64_t>(blocks_.size()) * block_tokens} {
        std::memset(memory_.data(), 0xff, memory_.size());
        std::iota(blocks_.begin(), blocks_.end(), 0);
        std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(block_tokens));
        view.len = n_tokens;
        view.spans = &span_;
        view.n_spans = 1;
        view.blocks = blocks_.data();
        view.n_blocks = static_cast<uint32_t>(blocks_.size());
    }
    Pool(const Pool &) = delete;

    void write(const Rows &rows, int64_t first, int64_t n) {
        kvlane::write_tiles(view, first, rows.k_of(first, n), rows.v_of(first, n));
    }

    void write_in_pieces(const Rows &rows, int64_t piece) {
        for (int64_t t = 0; t < view.len; t += piece) {
            write(rows, t, std::min(piece, view.len - t));
        }
    }

    const std::byte *tile(int64_t token, uint32_t head) const {
        const int64_t block = blocks_[static_cast<size_t>(token / view.block_tokens)];
        return static_cast<const std::byte *>(memory_.data()) + block * view.k_block_stride_bytes +
               head * view.k_head_stride_bytes + token % view.block_tokens / tile_tokens * view.k_token_stride_bytes;
    }

    int64_t slot(int64_t token) const {
        return int64_t{blocks_[static_cast<size_t>(token / view.block_tokens)]} * view.block_tokens +
               token % view.block_tokens;
    }

    bool is_unwritten() const {
        const auto *bytes = static_cast<const std::byte *>(memory_.data());
        return std::all_of(bytes, bytes + memory_.size(), [](std::byte b) { return b == std::byte{0xff}; });
    }

    kvl_view view;

private:
    std::vector<int32_t> blocks_;
    kvlane::Workspace memory_;
    kvl_span span_;
};

const std::byte *tile_of(const kvl_view &straight, int64_t token, uint32_t head) {
    return static_cast<const std::byte *>(straight.spans->k) + head * straight.k_head_stride_bytes +
           token / tile_tokens * straight.k_token_stride_bytes;
}

/// How many of the pool's tiles in use have not the bytes of the cache's.
int n_differing(const Pool &pool, const kvlane::Cache &cache) {
    const kvl_view stored = cache.view(0);
    REQUIRE(stored.len == pool.view.len);
    REQUIRE(stored.k_token_stride_bytes == pool.view.k_token_stride_bytes);
    int n = 0;
    for (uint32_t head = 0; head < stored.n_kv_heads; ++head) {
        for (int64_t t = 0; t < stored.len; t += tile_tokens) {
            n += std::memcmp(pool.tile(t, head), tile_of(stored, t, head),
                             static_cast<size_t>(stored.k_token_stride_bytes)) != 0;
        }
    }
    return n;
}

kvlane::Cache cache_of(const kvlane::Layer &layer, const Rows &rows, int64_t n_tokens) {
    kvlane::Cache cache(1, layer, n_tokens, KVL_CACHE_NO_HUGE_PAGES);
    cache.append(0, rows.k_of(0, n_tokens), rows.v_of(0, n_tokens));
    cache.advance(n_tokens);
    return cache;
}

/// check(layer) for every pair of formats, head_dims that are whole vectors and odd ones, with rotation and without.
template <class Check>
void for_each_layer(Check &&check) {
    struct Dims {
        uint32_t k, v;
    };
    for (const Format k : test::all_formats()) {
        for (const Format v : test::all_formats()) {
            for (const Dims dims : {Dims{64, 64}, Dims{20, 45}, Dims{33, 7}}) {
                for (const Rotation rotation : {Rotation::none, Rotation::hadamard}) {
                    INFO(test::name_of(k) << "+" << test::name_of(v) << ", " << dims.k << " and " << dims.v
                                          << (rotation == Rotation::none ? "" : ", rotated"));
                    check(kvlane::Layer{2, dims.k, dims.v, k, v, rotation, rotation});
                }
            }
        }
    }
}

const kvlane::Layer some_layer{2, 40, 24, Format::q4, Format::q4};

}  // namespace

TEST_CASE("tile pools: tokens have the bytes of a cache's tiles, in whatever pieces they are written") {
    constexpr int64_t len = 150;
    for_each_layer([&](const kvlane::Layer &layer) {
        const Rows rows(layer, len, 1);
        const kvlane::Cache cache = cache_of(layer, rows, len);
        for (const int64_t piece : {len, int64_t{1}, int64_t{23}}) {
            Pool pool(layer, len, piece == 23 ? 128 : 64);
            pool.write_in_pieces(rows, piece);
            INFO("pieces of " << piece);
            CHECK(n_differing(pool, cache) == 0);
        }
    });
}

TEST_CASE("tile pools: attention to a block table of tiles has the bits of attention to a cache") {
    constexpr int64_t len = 600;
    for_each_layer([&](const kvlane::Layer &layer) {
        const Rows rows(layer, len, 1);
        const kvlane::Cache cache = cache_of(layer, rows, len);
        Pool pool(layer, len, 64);
        pool.write_in_pieces(rows, 100);
        const kvlane::Attention attention({.n_query_heads = 6,
                                           .n_kv_heads = 2,
                                           .head_dim = layer.head_dim,
                                           .v_head_dim = layer.v_head_dim,
                                           .k_format = layer.k_format,
                                           .v_format = layer.v_format,
                                           .k_rotation = layer.k_rotation,
                                           .v_rotation = layer.v_rotation});
        const std::vector<float> q = test::random_values(size_t{6} * layer.head_dim, 9);
        for (const int64_t seen : {int64_t{1}, int64_t{65}, len}) {
            CHECK(test::attend(attention, pool.view, seen, q) == test::attend(attention, cache.view(0), seen, q));
        }
    });
}

TEST_CASE("tile pools: a layout is that of a cache's tiles, with rotations in force and blocks without gaps") {
    for (const Format format : test::all_formats()) {
        const kvlane::Layer layer{3, 20, 0, format, format};
        const kvl_view laid_out = kvlane::tile_layout(layer, 192);
        const kvlane::Cache cache(1, layer, 64);
        const kvl_view stored = cache.view(0);
        CHECK(laid_out.flags == KVL_VIEW_TILES);
        CHECK(laid_out.n_kv_heads == 3);
        CHECK(laid_out.v_head_dim == 20);
        CHECK(laid_out.k_rotation == stored.k_rotation);
        CHECK(laid_out.v_rotation == stored.v_rotation);
        CHECK(laid_out.k_token_stride_bytes == stored.k_token_stride_bytes);
        CHECK(laid_out.k_head_stride_bytes == 3 * stored.k_token_stride_bytes);
        CHECK(laid_out.k_block_stride_bytes == 3 * 3 * stored.k_token_stride_bytes);
        CHECK(laid_out.block_tokens == 192);
        CHECK(laid_out.len == 0);
        CHECK(laid_out.spans == nullptr);
    }
}

TEST_CASE("tile pools: spans without blocks, of which some are empty, are written as blocks are") {
    constexpr int64_t len = 300;
    const Rows rows(some_layer, len, 1);
    const kvlane::Cache cache = cache_of(some_layer, rows, len);
    Pool pool(some_layer, len, 64);
    std::vector<kvl_span> spans;
    for (int64_t t = 0; t < len; t += tile_tokens) {
        spans.push_back({pool.tile(t, 0), nullptr, std::min(tile_tokens, len - t)});
        spans.push_back({nullptr, nullptr, 0});
    }
    const kvl_view paged = pool.view;
    pool.view.block_tokens = pool.view.n_blocks = 0;
    pool.view.spans = spans.data();
    pool.view.n_spans = static_cast<uint32_t>(spans.size());
    pool.write_in_pieces(rows, 90);
    pool.view = paged;
    CHECK(n_differing(pool, cache) == 0);
}

TEST_CASE("tile pools: tiles that are used again keep nothing of what they held") {
    for (const Format format : test::all_formats()) {
        const kvlane::Layer layer{2, 20, 45, format, format};
        const Rows before(layer, 192, 1), rows(layer, 100, 5);
        Pool pool(layer, 192, 64);
        pool.write_in_pieces(before, 192);
        pool.view.len = 100;
        pool.write_in_pieces(rows, 1);
        CHECK(n_differing(pool, cache_of(layer, rows, 100)) == 0);
    }
}

TEST_CASE("tile pools: a write leaves other tokens of its tiles as they are, but behind a tile's first token zeros") {
    constexpr int64_t len = 128;
    for (const Format format : test::all_formats()) {
        const kvlane::Layer layer{2, 20, 45, format, format};
        Rows rows(layer, len, 1);
        const Rows others(layer, len, 5);
        Pool pool(layer, len, 64);
        pool.write_in_pieces(rows, len);
        for (const int64_t token : {int64_t{1}, int64_t{37}, int64_t{127}}) {
            pool.write(others, token, 1);
            std::ranges::copy(others.k_of(token, 1), rows.k.begin() + token * static_cast<int64_t>(rows.k_entry));
            std::ranges::copy(others.v_of(token, 1), rows.v.begin() + token * static_cast<int64_t>(rows.v_entry));
        }
        CHECK(n_differing(pool, cache_of(layer, rows, len)) == 0);
        pool.write(rows, 64, 1);
        pool.view.len = 65;
        CHECK(n_differing(pool, cache_of(layer, rows, 65)) == 0);
    }
}

TEST_CASE("tile pools: tokens of a next view are not a view's own to write") {
    const Rows rows(some_layer, 128, 1);
    Pool pool(some_layer, 128, 64);
    kvl_view next = pool.view;
    next.len = 28;
    pool.view.next = &next;
    CHECK_NOTHROW(pool.write(rows, 0, 100));
    CHECK_THROWS_AS(pool.write(rows, 100, 1), kvlane::Error);
    CHECK_NOTHROW(pool.write(rows, 100, 0));
}

TEST_CASE("tile pools: rows of no whole number of tokens are refused") {
    const Rows rows(some_layer, 1, 1);
    Pool pool(some_layer, 64, 64);
    CHECK_THROWS_WITH_AS(kvlane::write_tiles(pool.view, 0, std::span(rows.k).first(79), rows.v),
                         "k_len is 79; 1 tokens of 2 heads of 40 elements need 80", kvlane::Error);
}

TEST_CASE("tile pools: threads may write different tiles at once") {
    constexpr int64_t n_threads = 4, len = n_threads * tile_tokens;
    const Rows rows(some_layer, len, 1);
    Pool pool(some_layer, len, 64);
    std::vector<std::thread> threads;
    for (int64_t i = 0; i < n_threads; ++i) {
        threads.emplace_back([&, i] { pool.write(rows, i * tile_tokens, tile_tokens); });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    CHECK(n_differing(pool, cache_of(some_layer, rows, len)) == 0);
}

namespace {

// The rows of tokens [0, n) of both sequences by turns, as a batch's step has them.
kvlane::Rows rows_of(const std::vector<float> &k, const std::vector<float> &v, int64_t n_tokens) {
    return {.n_tokens = n_tokens, .k = k.data(), .v = v.data()};
}

}  // namespace

TEST_CASE("tile pools: tokens written by slot, of several sequences in one call, have the bytes of a cache's tiles") {
    constexpr int64_t len = 150;
    for_each_layer([&](const kvlane::Layer &layer) {
        const Rows rows[] = {{layer, len, 1}, {layer, len, 11}};
        Pool pools[] = {{layer, len, 64}, {layer, len, 128}};
        for (int i = 0; i < 2; ++i) {
            Pool &pool = pools[i];
            // A prompt of 100 tokens of one sequence, then the rest token by token, with padding between them.
            std::vector<int64_t> slots;
            for (int64_t t = 0; t < 100; ++t) {
                slots.push_back(pool.slot(t));
            }
            kvlane::write_slots(pool.view, slots, rows_of(rows[i].k, rows[i].v, 100));
            for (int64_t t = 100; t < len; ++t) {
                const int64_t two[] = {-1, pool.slot(t)};
                std::vector<float> k(2 * rows[i].k_entry, 7), v(2 * rows[i].v_entry, 7);
                std::ranges::copy(rows[i].k_of(t, 1), k.begin() + static_cast<std::ptrdiff_t>(rows[i].k_entry));
                std::ranges::copy(rows[i].v_of(t, 1), v.begin() + static_cast<std::ptrdiff_t>(rows[i].v_entry));
                kvlane::write_slots(pool.view, two, rows_of(k, v, 2));
            }
            CHECK(n_differing(pool, cache_of(layer, rows[i], len)) == 0);
        }
    });
}

TEST_CASE("tile pools: a slot outside of the pool is refused before anything is written") {
    Pool pool(some_layer, 64, 64);  // of 3 blocks
    const Rows rows(some_layer, 2, 1);
    const int64_t slots[] = {0, 3 * 64};
    CHECK_THROWS_WITH(kvlane::write_slots(pool.view, slots, rows_of(rows.k, rows.v, 2)),
                      doctest::Contains("slots[1] is 192; it must be less than the pool's 192"));
    CHECK_THROWS_WITH(kvlane::write_slots(pool.view, slots, rows_of(rows.k, rows.v, 1)),
                      "slots has 2 elements; it must have n_tokens, 1");
    CHECK(pool.is_unwritten());
}

TEST_CASE(
    "tile pools: a step's tokens of several sequences, in any order of slots and formats of rows, are written in one call") {
    constexpr int64_t len = 70;
    const kvlane::Layer layer{2, 40, 24, Format::q8, Format::q4};
    const Rows rows[] = {{layer, len, 1}, {layer, len, 11}, {layer, len, 21}};
    kvl_view pool = kvlane::tile_layout(layer, 128);
    kvlane::Workspace memory(4 * static_cast<size_t>(pool.k_block_stride_bytes));
    std::memset(memory.data(), 0xff, memory.size());
    const kvl_span span{memory.data(), nullptr, 4 * 128};
    pool.spans = &span;
    pool.n_spans = 1;
    constexpr int32_t block_of[] = {3, 0, 2};
    for (int64_t t = 0; t < len; ++t) {  // token-major rows of three sequences, the last first
        std::vector<float> k, v;
        std::vector<int64_t> slots;
        for (const size_t i : {2u, 0u, 1u}) {
            std::ranges::copy(rows[i].k_of(t, 1), std::back_inserter(k));
            std::ranges::copy(rows[i].v_of(t, 1), std::back_inserter(v));
            slots.push_back(128 * block_of[i] + t);
        }
        kvlane::write_slots(pool, slots, rows_of(k, v, 3));
    }
    for (size_t i = 0; i < 3; ++i) {
        const kvlane::Cache cache = cache_of(layer, rows[i], len);
        kvl_view view = pool;
        view.blocks = &block_of[i];
        view.n_blocks = 1;
        view.len = len;
        const kvlane::Attention attention({.n_query_heads = 4,
                                           .n_kv_heads = 2,
                                           .head_dim = 40,
                                           .v_head_dim = 24,
                                           .k_format = Format::q8,
                                           .v_format = Format::q4});
        const std::vector<float> q = test::random_values(size_t{4} * 40, 9);
        CHECK(test::attend(attention, view, len, q) == test::attend(attention, cache.view(0), len, q));
    }
}

TEST_CASE("tile pools: rows with strides and in f16 are written like the f32 rows that they stand for") {
    const kvlane::Layer layer{2, 40, 24, Format::q8, Format::q8};
    constexpr int64_t len = 100;
    std::vector<uint16_t> half(static_cast<size_t>(len) * 2 * (40 + 24));  // [token][k of 2 heads | v of 2 heads]
    std::vector<float> k, v;
    for (size_t i = 0; i < half.size(); ++i) {
        half[i] = static_cast<uint16_t>(0x3800 + i * 37 % 0x800 + (i % 3 == 0 ? 0x8000 : 0));
    }
    for (int64_t t = 0; t < len; ++t) {
        std::vector<float> row(128);
        kvlane::check(kvl_rows_to_f32(KVL_F16, &half[static_cast<size_t>(t) * 128], 1, 128, 0, row.data()));
        k.insert(k.end(), row.begin(), row.begin() + 80);
        v.insert(v.end(), row.begin() + 80, row.end());
    }
    Pool expected(layer, len, 64), pool(layer, len, 64);
    kvlane::write_tiles(expected.view, 0, k, v);
    kvlane::write_tiles(pool.view, 0,
                        {.n_tokens = len,
                         .k = half.data(),
                         .v = half.data() + 80,
                         .k_format = Format::f16,
                         .v_format = Format::f16,
                         .k_token_stride_bytes = 256,
                         .v_token_stride_bytes = 256});
    for (uint32_t head = 0; head < 2; ++head) {
        for (int64_t t = 0; t < len; t += tile_tokens) {
            CHECK(std::memcmp(pool.tile(t, head), expected.tile(t, head),
                              static_cast<size_t>(pool.view.k_token_stride_bytes)) == 0);
        }
    }
}

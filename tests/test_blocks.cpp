// Views of paged caches: the blocks of a table, in any order, give the bits of straight memory.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "rules.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using test::Answer;

namespace {

// Some of a straight view's tokens, copied to blocks in random order, [block][kv_head][token][dim], the first of them
// `shift` bytes off a cache line; all else, two blocks that no token is in too, is all ones, NaN in every format.
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
        const auto bytes = [](size_t n) { return static_cast<int64_t>(n); };
        pool_.k = paged(0, from.k, bytes(test::row_bytes(view.k_format, view.head_dim)), view.k_token_stride_bytes,
                        view.k_head_stride_bytes, view.k_block_stride_bytes, shift);
        pool_.v = paged(1, from.v, bytes(test::row_bytes(view.v_format, view.v_head_dim)), view.v_token_stride_bytes,
                        view.v_head_stride_bytes, view.v_block_stride_bytes, shift);
        if (test::is_scaled(Format{view.k_format})) {
            pool_.k_scales = paged(2, from.k_scales, bytes(test::entry_bytes(view.k_format, view.head_dim)),
                                   view.k_scale_token_stride_bytes, view.k_scale_head_stride_bytes,
                                   view.k_scale_block_stride_bytes, shift);
        }
        if (test::is_scaled(Format{view.v_format})) {
            pool_.v_scales = paged(3, from.v_scales, bytes(test::entry_bytes(view.v_format, view.v_head_dim)),
                                   view.v_scale_token_stride_bytes, view.v_scale_head_stride_bytes,
                                   view.v_scale_block_stride_bytes, shift);
        }
    }
    Paged(const Paged &) = delete;

    kvl_view view;

private:
    const std::byte *paged(int plane, const void *from, int64_t row, int64_t &token_stride, int64_t &head_stride,
                           int64_t &block_stride, size_t shift) {
        const int64_t from_token = token_stride, from_head = head_stride;
        token_stride = row + 4;
        head_stride = view.block_tokens * token_stride;
        block_stride = view.n_kv_heads * head_stride + 20;
        std::vector<std::byte> &memory = memory_[plane];
        memory.assign(blocks_.size() * static_cast<size_t>(block_stride) + 256, std::byte{0xff});
        std::byte *base = memory.data() + 128 - reinterpret_cast<uintptr_t>(memory.data()) % 64 + shift;
        for (int64_t t = 0; t < view.len; ++t) {
            for (int64_t h = 0; h < view.n_kv_heads; ++h) {
                std::byte *to = base + blocks_[static_cast<size_t>(t / view.block_tokens)] * block_stride + h * head_stride +
                                t % view.block_tokens * token_stride;
                std::memcpy(to, static_cast<const std::byte *>(from) + (first_ + t) * from_token + h * from_head,
                            static_cast<size_t>(row));
            }
        }
        return base;
    }

    int64_t first_;
    kvl_span pool_{};
    std::vector<int32_t> blocks_;
    std::vector<std::byte> memory_[4];
};

constexpr uint32_t all_block_tokens[] = {16, 17, 32, 48, 64, 256, 1024};

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
                const kvl_view straight = cache.view(0);
                const Attention attention({3 * group, 3, 80, 45, k_format, v_format});
                const std::vector<float> q = test::random_values(size_t{3} * group * 80, 9);
                for (const int64_t seen : {int64_t{1}, int64_t{65}, int64_t{600}, len}) {
                    const Answer want = test::attend(attention, straight, seen, q);
                    for (const uint32_t block_tokens : all_block_tokens) {
                        CAPTURE(attention.kernel());
                        CAPTURE(block_tokens);
                        CAPTURE(seen);
                        const Paged paged(straight, 0, len, block_tokens, block_tokens % 3 * 14);
                        CHECK(test::attend(attention, paged.view, seen, q) == want);
                    }
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
    const kvl_mask mask{sizeof mask, 0, 0, bits.data(), nullptr, len, 11 * sizeof(uint64_t), 0};
    for (const Format format : test::all_formats()) {
        const Cache cache = filled(2, 64, 64, format, format, len);
        const kvl_view straight = cache.view(0);
        const Attention attention({6, 2, 64, 64, format, format});
        const std::vector<float> q = test::random_values(size_t{n_queries} * 6 * 64, 9);
        const Answer want = test::attend(attention, straight, len, q, n_queries, nullptr, &mask);
        for (const uint32_t block_tokens : all_block_tokens) {
            CAPTURE(attention.kernel());
            CAPTURE(block_tokens);
            const Paged paged(straight, 0, len, block_tokens, 0);
            CHECK(test::attend(attention, paged.view, len, q, n_queries, nullptr, &mask) == want);
        }
    }
}

// The tokens of a straight view as [token][kv_head][dim], K and V alone: of floats.
struct TokenMajor {
    explicit TokenMajor(const kvl_view &source) : view(source) {
        span.n_tokens = source.len;
        span.k = moved(k, source.spans->k, view.k_token_stride_bytes, view.k_head_stride_bytes);
        span.v = moved(v, source.spans->v, view.v_token_stride_bytes, view.v_head_stride_bytes);
        view.spans = &span;
    }

    std::vector<std::byte> k, v;
    kvl_span span{};
    kvl_view view;

private:
    const std::byte *moved(std::vector<std::byte> &to, const void *from, int64_t &token_stride, int64_t &head_stride) const {
        const int64_t row_bytes = token_stride, n_heads = view.n_kv_heads;
        to.resize(static_cast<size_t>(view.len * n_heads * row_bytes));
        for (int64_t t = 0; t < view.len; ++t) {
            for (int64_t head = 0; head < n_heads; ++head) {
                std::memcpy(to.data() + (t * n_heads + head) * row_bytes,
                            static_cast<const std::byte *>(from) + head * head_stride + t * row_bytes,
                            static_cast<size_t>(row_bytes));
            }
        }
        token_stride = n_heads * row_bytes;
        head_stride = row_bytes;
        return to.data();
    }
};

TEST_CASE("blocks: every rule, for one query and for several, gives the bits of straight memory; token-major memory too") {
    constexpr int64_t len = 1300;
    for (const Format format : test::all_formats()) {
        const Cache cache = filled(2, 64, 64, format, format, len);
        const TokenMajor token_major(cache.view(0));
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
                for (const uint32_t block_tokens : all_block_tokens) {
                    CAPTURE(block_tokens);
                    const Paged paged(cache.view(0), 0, len, block_tokens, 0);
                    CHECK(test::attend(attention, paged.view, len, q, n_queries) == straight);
                }
                if (!test::is_scaled(format)) {
                    CHECK(test::attend(attention, token_major.view, len, q, n_queries) == straight);
                }
            }
        }
    }
}

TEST_CASE("blocks: each view of a row of them may have its own table") {
    constexpr int64_t len = 900, first = 128;
    for (const Format format : test::all_formats()) {
        const Cache cache = filled(2, 64, 64, format, format, len);
        const Attention attention({6, 2, 64, 64, format, format});
        const std::vector<float> q = test::random_values(6 * 64, 9);
        Paged begin(cache.view(0), 0, first, 16, 0);
        const Paged end(cache.view(0), first, len - first, 48, 0);
        begin.view.len = len;
        begin.view.next = &end.view;
        for (const int64_t seen : {int64_t{100}, first, int64_t{500}, len}) {
            CAPTURE(attention.kernel());
            CAPTURE(seen);
            CHECK(test::attend(attention, begin.view, seen, q) == test::attend(attention, cache.view(0), seen, q));
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
    const kvl_span span{memory.data(), memory.data() + 64, len, nullptr, nullptr};
    kvl_view view = cache.view(0);
    view.spans = &span;
    view.k_token_stride_bytes = view.v_token_stride_bytes = 2 * n_heads * row;
    view.k_head_stride_bytes = view.v_head_stride_bytes = 2 * row;
    CHECK(test::attend(attention, view, len, q) == test::attend(attention, cache.view(0), len, q));

    Cache alike(1, {n_heads, 64, 64, Format::f32, Format::f32}, len);
    alike.append(0, k, k);
    kvl_span keys = *alike.view(0).spans;
    keys.v = keys.k;
    view = alike.view(0);
    view.spans = &keys;
    CHECK(test::attend(attention, view, len, q) == test::attend(attention, alike.view(0), len, q));
}

// What the cache keeps, where, and what it costs.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

#include "../kernels/q4_levels.hpp"
#include "stored_tiles.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

using kvlane::Cache;
using kvlane::Format;
using kvlane::Layer;
using test::same_bits;
using test::StoredTiles;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

float decode_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31;
    const int mantissa = bits & 1023;
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    return static_cast<float>(bits & 0x8000 ? -magnitude : magnitude);
}

// An element as stored, finite, but for its scale.
float element(const StoredTiles &tiles, bool keys, int64_t token, uint32_t head, uint32_t d) {
    const uint32_t bits = tiles.bits(keys, token, head, d);
    switch (keys ? tiles.view.k_format : tiles.view.v_format) {
        case KVL_F32: return std::bit_cast<float>(bits);
        case KVL_F16: return decode_half(static_cast<uint16_t>(bits));
        case KVL_BF16: return std::bit_cast<float>(bits << 16);
        case KVL_Q8: return static_cast<int8_t>(bits);
        default: {
            const int multiplier = tiles.multiplier(keys, token, head, d / 32);
            return static_cast<float>(kvlane::q4::levels[bits] * multiplier) / 128;
        }
    }
}

// What a value is after a stay in the cache, alone or anywhere in a row of whole vectors and a rest.
void check_kept_as(Format format, float value, float expected) {
    CAPTURE(value);
    for (const uint32_t dim : {1u, 37u}) {
        Cache cache(1, {.n_kv_heads = 1, .head_dim = dim, .k_format = format, .v_format = format}, 1);
        const std::vector<float> row(dim, value);
        cache.append(0, row, row);
        for (const std::vector<float> &read : {cache.read_k(0), cache.read_v(0)}) {
            if (std::isnan(expected)) {
                CHECK(std::all_of(read.begin(), read.end(), [](float x) { return std::isnan(x); }));
            } else {
                CHECK(same_bits(read, std::vector<float>(dim, expected)));
            }
        }
    }
}

float nan_with_payload(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

#if defined(__linux__)
// Of the mapping that holds an address: the system's account of its huge pages.
int64_t huge_page_bytes_at(const void *address) {
    std::ifstream maps("/proc/self/smaps");
    const auto wanted = reinterpret_cast<uintptr_t>(address);
    bool is_inside = false;
    for (std::string line; std::getline(maps, line);) {
        unsigned long first, end;
        long kilobytes;
        if (std::sscanf(line.c_str(), "%lx-%lx ", &first, &end) == 2) {
            is_inside = first <= wanted && wanted < end;
        } else if (is_inside && std::sscanf(line.c_str(), "AnonHugePages: %ld kB", &kilobytes) == 1) {
            return kilobytes * 1024;
        }
    }
    return 0;
}

// Whether the system makes a huge page of small ones for a program that asks for it, and tells; an emulator does neither.
bool can_collapse() {
    constexpr size_t huge_page = size_t{2} << 20;
    void *p = mmap(nullptr, 2 * huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(p != MAP_FAILED);
    auto *first = static_cast<std::byte *>(p) + (huge_page - reinterpret_cast<uintptr_t>(p) % huge_page) % huge_page;
    *first = std::byte{1};
    constexpr int collapse_advice = 25;
    const bool can = madvise(first, huge_page, MADV_HUGEPAGE) == 0 && madvise(first, huge_page, collapse_advice) == 0 &&
                     huge_page_bytes_at(first) > 0;
    munmap(p, 2 * huge_page);
    return can;
}
#endif

constexpr Layer two_by_eight{.n_kv_heads = 2, .head_dim = 8, .k_format = Format::f32, .v_format = Format::f32};

}  // namespace

TEST_CASE("after one token the length is 1 and every layer reads back its entry") {
    Cache cache(2, {.n_kv_heads = 4, .head_dim = 16, .k_format = Format::f32, .v_format = Format::f32}, 8);
    const std::vector<float> k = test::random_values(64, 1);
    const std::vector<float> v = test::random_values(64, 2);
    for (uint32_t layer = 0; layer < 2; ++layer) {
        CHECK(cache.info(layer).k_entry_size == 64);
        CHECK(cache.info(layer).v_entry_size == 64);
        cache.append(layer, k, v);
    }
    cache.advance();
    CHECK(cache.len() == 1);
    for (uint32_t layer = 0; layer < 2; ++layer) {
        CHECK(same_bits(cache.read_k(layer), k));
        CHECK(same_bits(cache.read_v(layer), v));
    }
}

TEST_CASE("tokens are read back in the order in which they came") {
    Cache cache(1, two_by_eight, 8);
    for (int token = 0; token < 5; ++token) {
        const std::vector<float> entry(16, static_cast<float>(token));
        cache.append(0, entry, entry);
        cache.advance();
    }
    const std::vector<float> k = cache.read_k(0);
    REQUIRE(k.size() == 5 * 16);
    for (size_t i = 0; i < k.size(); ++i) {
        CHECK(k[i] == static_cast<float>(i / 16));
    }
    float third[16];
    REQUIRE(kvl_cache_read_v(cache.get(), 0, 3, 1, third, 16) == KVL_OK);
    CHECK(same_bits(third, std::vector<float>(16, 3.0f)));
}

TEST_CASE("clear empties every layer and keeps the capacity") {
    Cache cache(3, two_by_eight, 4);
    test::fill_random(cache, 4, 1);
    cache.truncate(2);
    test::append_random(cache, 1, 1, 2);
    cache.clear();
    CHECK(cache.is_empty());
    for (uint32_t layer = 0; layer < 3; ++layer) {
        CHECK(cache.info(layer).len == 0);
        CHECK(cache.view(layer).len == 0);
        CHECK(cache.read_k(layer).empty());
    }
    test::fill_random(cache, 4, 3);
    CHECK(cache.len() == 4);
}

TEST_CASE("a new cache is empty") {
    const Cache cache(16, {.n_kv_heads = 8, .head_dim = 64}, 2048);
    CHECK(cache.len() == 0);
    CHECK(cache.is_empty());
    CHECK(cache.n_layers() == 16);
    CHECK(cache.max_tokens() == 2048);
    CHECK(cache.info(15).len == 0);
    CHECK(cache.view(15).len == 0);
    CHECK(cache.read_k(15).empty());
}

TEST_CASE("a cache that names no capacity has the default one") {
    CHECK(Cache(1, two_by_eight).max_tokens() == KVL_DEFAULT_MAX_TOKENS);
}

TEST_CASE("a null cache is empty and has no layers") {
    CHECK(kvl_cache_len(nullptr) == 0);
    CHECK(kvl_cache_max_tokens(nullptr) == 0);
    CHECK(kvl_cache_n_layers(nullptr) == 0);
    CHECK(kvl_cache_bytes(nullptr) == 0);
    kvl_cache_destroy(nullptr);
}

TEST_CASE("many tokens at once are the same as one by one, and are read back from any one on") {
    constexpr size_t n_tokens = 151, k_size = 3 * 40, v_size = 3 * 17;
    for (const Format format : test::all_formats()) {
        const Layer layer{.n_kv_heads = 3, .head_dim = 40, .v_head_dim = 17, .k_format = format, .v_format = format};
        Cache at_once(1, layer, n_tokens);
        Cache one_by_one(1, layer, n_tokens);
        const std::vector<float> k = test::random_values(n_tokens * k_size, 1);
        const std::vector<float> v = test::random_values(n_tokens * v_size, 2);
        const auto append = [&](Cache &cache, size_t first, size_t n) {
            cache.append(0, std::span(k).subspan(first * k_size, n * k_size),
                         std::span(v).subspan(first * v_size, n * v_size));
            cache.advance(static_cast<int64_t>(n));
        };
        append(at_once, 0, 3);
        append(at_once, 3, 70);
        append(at_once, 73, 78);
        for (size_t token = 0; token < n_tokens; ++token) {
            append(one_by_one, token, 1);
        }
        INFO(std::string(test::name_of(format)));
        CHECK(at_once.len() == one_by_one.len());
        const std::vector<float> all_k = at_once.read_k(0), all_v = at_once.read_v(0);
        CHECK(same_bits(all_k, one_by_one.read_k(0)));
        CHECK(same_bits(all_v, one_by_one.read_v(0)));
        for (const size_t first : {5, 60}) {
            std::vector<float> some_k(74 * k_size), some_v(74 * v_size);
            REQUIRE(kvl_cache_read_k(at_once.get(), 0, first, 74, some_k.data(), some_k.size()) == KVL_OK);
            REQUIRE(kvl_cache_read_v(at_once.get(), 0, first, 74, some_v.data(), some_v.size()) == KVL_OK);
            CHECK(std::ranges::equal(some_k, std::span(all_k).subspan(first * k_size, 74 * k_size)));
            CHECK(std::ranges::equal(some_v, std::span(all_v).subspan(first * v_size, 74 * v_size)));
        }
    }
}

TEST_CASE("pending tokens are visible to their layer and not counted by the cache") {
    Cache cache(2, two_by_eight, 8);
    test::fill_random(cache, 3, 1);
    const kvlane::Attention attention(
        {.n_query_heads = 4, .n_kv_heads = 2, .head_dim = 8, .k_format = Format::f32, .v_format = Format::f32});
    kvlane::Workspace workspace = attention.workspace(1, 8);
    const std::vector<float> q = test::random_values(32, 9);
    std::vector<float> before(32), after(32), shorter(32);
    attention.attend(cache.view(1), q.data(), before.data(), workspace);

    test::append_random(cache, 1, 2, 5);
    CHECK(cache.len() == 3);
    CHECK(cache.info(0).len == 3);
    CHECK(cache.info(1).len == 5);
    CHECK(cache.bytes() == (3 + 5) * cache.info(0).bytes_per_token);
    CHECK(cache.view(0).len == 3);
    CHECK(cache.view(1).len == 5);
    CHECK(cache.read_k(1).size() == 5 * 16);

    const kvl_view view = cache.view(1);
    attention.attend(view, q.data(), after.data(), workspace);
    CHECK_FALSE(same_bits(before, after));
    const kvl_sequence of_three = kvlane::Sequence{.view = &view, .len = 3, .q = q.data(), .out = shorter.data()};
    attention.attend(std::span(&of_three, 1), workspace);
    CHECK(same_bits(before, shorter));
}

TEST_CASE("a copy has the tokens and the pending ones, and goes its own way") {
    Cache cache(2, two_by_eight, 8);
    test::fill_random(cache, 3, 1);
    test::append_random(cache, 1, 2, 7);
    const std::vector<float> k0 = cache.read_k(0);
    const std::vector<float> v1 = cache.read_v(1);

    Cache copy = cache.copy();
    CHECK(copy.len() == 3);
    CHECK(copy.max_tokens() == 8);
    CHECK(copy.info(1).len == 5);
    CHECK(same_bits(copy.read_k(0), k0));
    CHECK(same_bits(copy.read_v(1), v1));
    CHECK(copy.view(0).spans->k != cache.view(0).spans->k);

    test::append_random(copy, 0, 2, 20);
    copy.advance(2);
    CHECK(copy.len() == 5);
    CHECK(cache.len() == 3);
    cache.clear();
    test::fill_random(cache, 8, 30);
    CHECK(same_bits(copy.read_v(1), v1));
    CHECK(std::equal(k0.begin(), k0.end(), copy.read_k(0).begin()));
}

TEST_CASE("truncate forgets the tail and the pending tokens") {
    Cache cache(2, two_by_eight, 8);
    test::fill_random(cache, 5, 1);
    const std::vector<float> k = cache.read_k(1);
    test::append_random(cache, 1, 2, 7);
    cache.truncate(5);
    CHECK(cache.info(1).len == 5);
    cache.truncate(2);
    CHECK(cache.len() == 2);
    CHECK(same_bits(cache.read_k(1), std::span(k).first(2 * 16)));
    test::fill_random(cache, 6, 40);
    CHECK(cache.len() == 8);
    CHECK(same_bits(std::span<const float>(cache.read_k(1)).first(2 * 16), std::span(k).first(2 * 16)));
    CHECK_FALSE(same_bits(std::span<const float>(cache.read_k(1)).first(5 * 16), k));
}

TEST_CASE("layers may differ in heads, dims and formats") {
    const Layer layers[] = {
        {.n_kv_heads = 1, .head_dim = 5, .v_head_dim = 9, .k_format = Format::f32, .v_format = Format::bf16},
        {.n_kv_heads = 4, .head_dim = 64, .k_format = Format::f16, .v_format = Format::f32},
        {.n_kv_heads = 2, .head_dim = 96, .v_head_dim = 1, .k_format = Format::bf16, .v_format = Format::f16}};
    Cache cache(layers, 70);
    test::fill_random(cache, 70, 1);
    for (uint32_t i = 0; i < 3; ++i) {
        const kvl_layer_info info = cache.info(i);
        const uint32_t v_head_dim = layers[i].v_head_dim ? layers[i].v_head_dim : layers[i].head_dim;
        CHECK(info.n_kv_heads == layers[i].n_kv_heads);
        CHECK(info.head_dim == layers[i].head_dim);
        CHECK(info.v_head_dim == v_head_dim);
        CHECK(Format{info.k_format} == layers[i].k_format);
        CHECK(Format{info.v_format} == layers[i].v_format);
        CHECK(info.k_entry_size == info.n_kv_heads * info.head_dim);
        CHECK(info.v_entry_size == info.n_kv_heads * v_head_dim);
        // Values are of unit variance, so each is kept to 2^-8 of the largest.
        const std::vector<float> k = cache.read_k(i);
        const std::vector<float> written = test::random_values(k.size(), 1 + 2 * i);
        for (size_t e = 0; e < k.size(); ++e) {
            REQUIRE(k[e] == doctest::Approx(written[e]).epsilon(0.01));
        }
    }
}

TEST_CASE("tiles and their parts start on 64 bytes, and follow each other without gaps") {
    for (const Format format : test::all_formats()) {
        for (const uint32_t dim : {1u, 8u, 40u, 64u, 80u, 96u, 112u, 128u, 192u, 256u, 576u}) {
            const Cache cache(2, {.n_kv_heads = 3, .head_dim = dim, .k_format = format, .v_format = format}, 101);
            const StoredTiles tiles(cache, 1);
            INFO(std::string(test::name_of(format)));
            CAPTURE(dim);
            CHECK(reinterpret_cast<uintptr_t>(tiles.view.spans->k) % 64 == 0);
            CHECK(tiles.view.spans->v == nullptr);
            CHECK(tiles.view.k_token_stride_bytes == tiles.layout.bytes);
            CHECK(tiles.view.k_head_stride_bytes % 64 == 0);
            CHECK(tiles.view.k_head_stride_bytes >= 2 * tiles.layout.bytes);
            for (const int64_t part :
                 {tiles.layout.k_scales, tiles.layout.v_panels, tiles.layout.v_scales, tiles.layout.bytes}) {
                CHECK(part % 64 == 0);
            }
            const auto f = static_cast<kvl_format>(format);
            CHECK(tiles.layout.bytes >= static_cast<int64_t>(64 * 2 * test::row_bytes(f, dim)));
            CHECK(cache.info(1).bytes_per_token * 64 == 3 * static_cast<uint64_t>(tiles.layout.bytes));
        }
    }
}

TEST_CASE("tiles never move while the cache fills") {
    Cache cache(2, {.n_kv_heads = 2, .head_dim = 64}, 3000);
    const kvl_view empty = cache.view(1);
    test::fill_random(cache, 1, 1);
    const std::vector<float> first = cache.read_k(1);
    while (cache.len() < 3000) {
        test::fill_random(cache, std::min<int64_t>(499, 3000 - cache.len()), 2);
    }
    const kvl_view full = cache.view(1);
    CHECK(full.spans->k == empty.spans->k);
    CHECK(full.k_token_stride_bytes == empty.k_token_stride_bytes);
    CHECK(full.k_head_stride_bytes == empty.k_head_stride_bytes);
    CHECK(same_bits(std::span<const float>(cache.read_k(1)).first(first.size()), first));
}

#if defined(__linux__)
TEST_CASE("tokens that came before a layer is large enough for huge pages lie on them in the end, and are as they were") {
    constexpr int64_t n_tokens = 40000;
    Cache cache(1, {.n_kv_heads = 2, .head_dim = 64, .k_format = Format::f16, .v_format = Format::f16}, n_tokens);
    Cache on_small_pages(1, {.n_kv_heads = 2, .head_dim = 64, .k_format = Format::f16, .v_format = Format::f16}, n_tokens,
                         KVL_CACHE_NO_HUGE_PAGES);
    for (Cache *each : {&cache, &on_small_pages}) {
        while (each->len() < n_tokens) {
            test::fill_random(*each, 500, static_cast<uint32_t>(each->len()));
        }
    }
    CHECK(same_bits(cache.read_k(0), on_small_pages.read_k(0)));
    CHECK(same_bits(cache.read_v(0), on_small_pages.read_v(0)));
    const int64_t huge = huge_page_bytes_at(cache.view(0).spans->k);
    if (can_collapse()) {
        CHECK(huge >= 0.9 * static_cast<double>(cache.bytes()));
    } else {
        MESSAGE("not checked: this system makes no huge pages");
    }
    CHECK(huge_page_bytes_at(on_small_pages.view(0).spans->k) == 0);
}
#endif

TEST_CASE("padding of tiles is zero, and so is what they hold of tokens that are not there") {
    for (const Format format : test::all_formats()) {
        for (const uint32_t dim : {1u, 3u, 9u, 31u, 62u, 124u}) {
            Cache cache(1, {.n_kv_heads = 2, .head_dim = dim, .k_format = format, .v_format = format}, 200);
            const StoredTiles tiles(cache);
            INFO(std::string(test::name_of(format)));
            CAPTURE(dim);
            test::fill_random(cache, 200, 1);
            CHECK(tiles.is_zero_beside(200, 200));
            cache.truncate(67);
            CHECK(tiles.is_zero_beside(67, 128));
            test::fill_random(cache, 5, 2);
            CHECK(tiles.is_zero_beside(72, 128));
            test::fill_random(cache, 60, 3);
            CHECK(tiles.is_zero_beside(132, 192));
        }
    }
}

TEST_CASE("a view's pointers and strides lead to what read gives") {
    for (const Format format : test::all_formats()) {
        INFO(std::string(test::name_of(format)));
        const auto none = kvlane::Rotation::none;
        Cache cache(2, {3, 50, 7, format, format, none, none}, 100);
        test::fill_random(cache, 71, 1);
        const StoredTiles tiles(cache, 1);
        CHECK(tiles.view.struct_size == sizeof tiles.view);
        CHECK(tiles.view.spans->n_tokens == 100);
        CHECK(tiles.view.len == 71);
        for (const bool keys : {true, false}) {
            const std::vector<float> values = keys ? cache.read_k(1) : cache.read_v(1);
            const uint32_t dim = keys ? 50 : 7;
            REQUIRE(values.size() == 71 * 3 * dim);
            size_t n_wrong = 0;
            for (uint32_t i = 0; i < values.size(); ++i) {
                const uint32_t d = i % dim, head = i / dim % 3, token = i / dim / 3;
                const float scale = test::is_scaled(format) ? tiles.scale(keys, token, head) : 1;
                n_wrong += scale * element(tiles, keys, token, head, d) != values[i];
            }
            CHECK(n_wrong == 0);
        }
    }
}

TEST_CASE("a head's tiles of consecutive tokens are neighbours") {
    const Cache cache(1, {.n_kv_heads = 8, .head_dim = 128}, 1000);
    const kvl_view view = cache.view(0);
    CHECK(view.flags == KVL_VIEW_TILES);
    CHECK(view.k_token_stride_bytes == 64 * 2 * 256);
    CHECK(view.k_head_stride_bytes >= 16 * 64 * 2 * 256);
}

TEST_CASE("the capacity can be reached exactly") {
    Cache cache(1, two_by_eight, 3);
    test::fill_random(cache, 2, 1);
    test::fill_random(cache, 1, 2);
    CHECK(cache.len() == cache.max_tokens());
    CHECK_THROWS_AS(test::append_random(cache, 0, 1, 3), kvlane::Error);
    CHECK(cache.len() == 3);
    cache.clear();
    test::fill_random(cache, 3, 4);
    CHECK(cache.len() == 3);
}

TEST_CASE("f32 is kept as it is") {
    for (const float value : {0.0f, -0.0f, 1.0f, -3.4028235e38f, 1e-45f, infinity, -infinity}) {
        check_kept_as(Format::f32, value, value);
    }
    check_kept_as(Format::f32, not_a_number, not_a_number);
}

TEST_CASE("f16 is rounded to nearest, ties to even") {
    const auto power = [](int exponent) { return std::ldexp(1.0f, exponent); };
    const std::pair<float, float> kept[] = {
        {0.0f, 0.0f},
        {-0.0f, -0.0f},
        {1 + power(-11), 1},
        {1 + 3 * power(-11), 1 + power(-9)},
        {1 + power(-11) + power(-23), 1 + power(-10)},
        {-1 - 3 * power(-11), -1 - power(-9)},
        {65504, 65504},
        {std::nextafter(65520.0f, 0.0f), 65504},
        {65520, infinity},
        {-1e30f, -infinity},
        {infinity, infinity},
        {power(-14), power(-14)},
        {power(-24), power(-24)},
        {-3 * power(-24), -3 * power(-24)},
        {power(-25), 0},
        {std::nextafter(power(-25), 1.0f), power(-24)},
        {3 * power(-25), power(-23)},
        {power(-14) - power(-26), power(-14)},
        {1e-40f, 0},
        {-1e-40f, -0.0f},
        {not_a_number, not_a_number},
        {nan_with_payload(0x7f800001), not_a_number},
    };
    for (const auto &[value, expected] : kept) {
        check_kept_as(Format::f16, value, expected);
    }
}

TEST_CASE("bf16 is rounded to nearest, ties to even") {
    const auto power = [](int exponent) { return std::ldexp(1.0f, exponent); };
    const std::pair<float, float> kept[] = {
        {0.0f, 0.0f},
        {-0.0f, -0.0f},
        {1 + power(-8), 1},
        {1 + 3 * power(-8), 1 + power(-6)},
        {1 + power(-8) + power(-23), 1 + power(-7)},
        {-1 - 3 * power(-8), -1 - power(-6)},
        {std::numeric_limits<float>::max(), infinity},
        {-infinity, -infinity},
        {power(-133), power(-133)},
        {power(-134), 0},
        {power(-134) + power(-149), power(-133)},
        {3 * power(-134), power(-132)},
        {not_a_number, not_a_number},
        {nan_with_payload(0x7f800001), not_a_number},
        {nan_with_payload(0xffffffff), not_a_number},
    };
    for (const auto &[value, expected] : kept) {
        check_kept_as(Format::bf16, value, expected);
    }
}

#if defined(__linux__) && !defined(KVLANE_TEST_EMULATED)
TEST_CASE("a reservation costs memory only as tokens fill it") {
    const auto resident_bytes = [] {
        std::FILE *file = std::fopen("/proc/self/statm", "r");
        REQUIRE(file);
        long total = 0, resident = 0;
        CHECK(std::fscanf(file, "%ld %ld", &total, &resident) == 2);
        std::fclose(file);
        return resident * sysconf(_SC_PAGESIZE);
    };
    const std::vector<float> entry = test::random_values(8 * 128, 1);
    const long before = resident_bytes();
    Cache cache(32, {.n_kv_heads = 8, .head_dim = 128}, 131072);
    for (uint32_t layer = 0; layer < 32; ++layer) {
        cache.append(layer, entry, entry);
    }
    cache.advance();
    CHECK(resident_bytes() - before < 64L << 20);
}
#else
TEST_CASE("what a reservation costs is not measured here") {
    MESSAGE("skipped: only Linux tells, and an emulator keeps an account of its own of every page that is reserved");
}
#endif

TEST_CASE("cache: the geometry of an attention is that of a layer, said once") {
    const kvlane::Cache cache(
        1, {.n_kv_heads = 2, .head_dim = 24, .v_head_dim = 40, .k_format = Format::q8, .v_format = Format::q4}, 64);
    const kvlane::Geometry g = kvlane::geometry_of(cache, 0, 6);
    CHECK(g.n_query_heads == 6);
    CHECK(g.n_kv_heads == 2);
    CHECK(g.head_dim == 24);
    CHECK(g.v_head_dim == 40);
    CHECK(g.k_format == Format::q8);
    CHECK(g.v_format == Format::q4);
    CHECK(g.k_rotation == kvlane::Rotation::hadamard);
    CHECK(g.v_rotation == kvlane::Rotation::hadamard);
    kvl_attention_desc desc = kvl_attention_desc_init();
    desc.scale = 3;
    kvlane::check(kvl_attention_desc_from_cache(cache.get(), 0, 6, &desc));
    CHECK(desc.scale == 0);  // and all other fields
    CHECK(desc.n_query_heads == 6);
    CHECK(desc.k_rotation == KVL_ROTATION_HADAMARD);
}

// The precision that q8 and q4 are met with: what fast costs, and where it is in force.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cfenv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "accuracy.hpp"
#include "answers.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Geometry;
using kvlane::Precision;
using test::attend;
using test::cache_of;
using test::queries_of;

namespace {

using Floats = std::vector<float>;

constexpr Format integers[] = {Format::q8, Format::q4};

Geometry geometry_of(Format k_format, Format v_format, uint32_t group, uint32_t head_dim = 64) {
    return {.n_query_heads = 2 * group, .n_kv_heads = 2, .head_dim = head_dim, .k_format = k_format, .v_format = v_format};
}

bool is_fast(const Geometry &g) { return test::is_fast(Attention(g)); }

bool multiplies_bytes() { return is_fast(geometry_of(Format::q4, Format::q4, 1)); }

#if defined(__linux__)
// A copy of memory whose last byte is the last that may be read.
class Fenced {
public:
    Fenced(const void *from, int64_t bytes) {
        const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), n = static_cast<size_t>(bytes);
        const size_t readable = (n + page - 1) / page * page;
        size_ = readable + page;
        memory_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        REQUIRE(memory_ != MAP_FAILED);
        auto *fence = static_cast<std::byte *>(memory_) + readable;
        REQUIRE(mprotect(fence, page, PROT_NONE) == 0);
        first_ = std::memcpy(fence - n, from, n);
    }
    ~Fenced() { munmap(memory_, size_); }
    Fenced(const Fenced &) = delete;
    const void *first() const { return first_; }

private:
    void *memory_, *first_;
    size_t size_;
};
#endif

}  // namespace

TEST_CASE("precision: fast is in force for q4, and for q8 with groups of 2 or more, where the isa multiplies bytes") {
    const std::string isa = kvlane::isa_in_force();
    CHECK(multiplies_bytes() == (isa.ends_with("_vnni") || isa.ends_with("_dotprod")));
    for (const uint32_t group : {1u, 2u, 4u, 5u, 8u}) {
        CHECK(is_fast(geometry_of(Format::q8, Format::q8, group)) == (multiplies_bytes() && group > 1));
        CHECK(is_fast(geometry_of(Format::q8, Format::q4, group)) == multiplies_bytes());
        CHECK(is_fast(geometry_of(Format::q4, Format::q8, group)) == multiplies_bytes());
        CHECK_FALSE(is_fast(geometry_of(Format::f16, Format::q4, group)));
        CHECK_FALSE(is_fast(geometry_of(Format::q8, Format::f32, group)));
        CHECK_FALSE(is_fast(geometry_of(Format::f16, Format::f16, group)));
        for (const Format k : {Format::f16, Format::q4}) {
            Geometry exact = geometry_of(k, Format::q4, group);
            exact.precision = Precision::exact;
            CHECK_FALSE(is_fast(exact));
            CHECK(std::string(Attention(exact).kernel()).ends_with("/exact"));
        }
    }
}

// Half of 1/127 of the largest of a row's elements, which are evenly spread, is 0.7 % of it; of weights half of that.
// Shorter rows than these have fewer elements to even that out.
// Each head_dim and group meets every third length, for each pair of formats from another one on: all of them in the end.
TEST_CASE("precision: fast equals the oracle within the rounding to 8 bits, for head_dims from 8 on, any group and length") {
    constexpr std::array<int64_t, 11> lens = {1, 3, 15, 16, 17, 63, 64, 65, 130, 513, 600};
    size_t first_len = 0;
    for (const Format k : integers) {
        for (const Format v : integers) {
            ++first_len;
            for (const uint32_t head_dim : {8u, 32u, 40u, 64u, 77u, 80u, 96u, 128u, 192u, 256u, 576u}) {
                if (!multiplies_bytes() && head_dim % 64 != 0) {
                    continue;  // 16 bits, which other tests hold
                }
                for (const uint32_t group : {1u, 3u, 4u, 5u, 8u, 12u}) {
                    const Geometry g = geometry_of(k, v, group, head_dim);
                    const Cache cache = cache_of(g, 600);
                    const Floats q = queries_of(g), keys = cache.read_k(0), values = cache.read_v(0);
                    for (size_t i = (first_len + head_dim / 8 + group) % 3; i < lens.size(); i += 3) {
                        const int64_t len = lens[i];
                        INFO(Attention(g).kernel() << ", head_dim " << head_dim << ", len " << len);
                        const test::Answer got = attend(Attention(g), cache.view(0), len, q);
                        const oracle::Answer want = test::expected(g, len, q, keys, values);
                        CHECK(test::relative_error(got.out, want.out, test::usual_norm(got.out.size(), len)) <= 0.025);
                        for (size_t h = 0; h < got.lse.size(); ++h) {
                            CHECK(std::abs(got.lse[h] - want.lse[h]) <= 0.025);
                        }
                    }
                }
            }
        }
    }
}

TEST_CASE(
    "precision: exact adds less than a thousandth to what storing costs, fast at most half as much, with outliers too") {
    std::string table = "| keys | values | outliers | storing | exact's arithmetic | fast's | both, fast |\n";
    for (const Format k : integers) {
        for (const Format v : integers) {
            for (const bool has_outliers : {false, true}) {
                test::Storing storing{k, v, kvlane::Rotation::by_format, has_outliers, Precision::exact, 8};
                const test::Errors exact = test::errors_of(storing);
                storing.precision = Precision::fast;
                const test::Errors fast = test::errors_of(storing);
                INFO(test::name_of(k) << "+" << test::name_of(v) << ": " << fast.total << " for " << exact.total);
                CHECK(exact.of_arithmetic < 1e-3 * exact.total);
                CHECK(fast.total <= 1.5 * exact.total);
                CHECK(fast.of_arithmetic > exact.of_arithmetic);
                // Of 16 bits it is less than a tenth of that.
                CHECK((fast.of_arithmetic > 1e-3) == is_fast(geometry_of(k, v, 8)));
                char row[120];
                std::snprintf(row, sizeof row, "| %s | %s | %s | %.2e | %.1e | %.1e | %.2e |\n", test::name_of(k),
                              test::name_of(v), has_outliers ? "yes" : "no", exact.total, exact.of_arithmetic,
                              fast.of_arithmetic, fast.total);
                table += row;
            }
        }
    }
    MESSAGE(table);
}

TEST_CASE("precision: the largest integers are summed as they are") {
    const auto check = [](Geometry g, float key, float value) {
        g.k_rotation = g.v_rotation = kvlane::Rotation::none;
        Cache cache(1, {2, g.head_dim, 0, g.k_format, g.v_format, g.k_rotation, g.v_rotation}, 100, KVL_CACHE_NO_HUGE_PAGES);
        cache.append(0, Floats(200 * g.head_dim, key), Floats(200 * g.head_dim, value));
        const Floats q(g.n_query_heads * g.head_dim, 1);
        CHECK(cache.read_k(0)[0] * key == doctest::Approx(1).epsilon(1e-6));
        CHECK(cache.read_v(0)[0] * value == doctest::Approx(1).epsilon(1e-6));
        const test::Answer got = attend(Attention(g), cache.view(0), 100, q);
        const oracle::Answer want = test::expected(g, 100, q, cache.read_k(0), cache.read_v(0));
        // Weights of 8 bits of q4 are 127 for 127 * 32767 / 2^15.
        const double bound = g.v_format == Format::q4 && multiplies_bytes() ? 1e-4 : 1e-5;
        CHECK(test::relative_error(got.out, want.out, test::usual_norm(got.out.size(), 100)) <= bound);
        CHECK(std::abs(got.lse[0] - want.lse[0]) <= 1e-4);
    };
    for (const Format format : integers) {
        for (const uint32_t group : {1u, 2u, 3u, 4u, 8u}) {
            for (const uint32_t head_dim : {64u, 160u, 512u}) {
                for (const float key : {1.0f, -1.0f}) {
                    check(geometry_of(format, format, group, head_dim), key, 1);
                    check(geometry_of(format, format, group, head_dim), key, -1);
                }
            }
        }
    }
}

TEST_CASE("precision: NaN or infinity in a visible key or value shows, and a scale of 0 is 0") {
    const auto check = [](const Geometry &g, float poison, bool in_keys) {
        Cache cache(1, {g.n_kv_heads, g.head_dim, 0, g.k_format, g.v_format}, 100, KVL_CACHE_NO_HUGE_PAGES);
        const size_t token = 2 * g.head_dim, head = g.n_query_heads / 2 * g.head_dim;
        Floats k(100 * token, 0), v(100 * token, 0);
        cache.append(0, k, v);
        CHECK(attend(Attention(g), cache.view(0), 100, queries_of(g)).out == Floats(2 * head, 0));
        cache.clear();
        (in_keys ? k : v)[70 * token] = poison;
        cache.append(0, k, v);
        const test::Answer seen = attend(Attention(g), cache.view(0), 71, queries_of(g));
        CHECK(std::all_of(seen.out.begin(), seen.out.begin() + static_cast<std::ptrdiff_t>(head),
                          [](float x) { return std::isnan(x); }));
        CHECK(attend(Attention(g), cache.view(0), 70, queries_of(g)).out == Floats(2 * head, 0));
    };
    constexpr float infinity = std::numeric_limits<float>::infinity();
    for (const Format format : integers) {
        for (const uint32_t group : {1u, 3u, 8u}) {
            for (const uint32_t head_dim : {64u, 160u}) {
                for (const float poison : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity}) {
                    check(geometry_of(format, format, group, head_dim), poison, true);
                    check(geometry_of(format, format, group, head_dim), poison, false);
                }
            }
        }
    }
}

TEST_CASE("precision: no exception of floating point is raised by what stands beside the rows") {
    for (const Format format : integers) {
        for (const uint32_t group : {1u, 6u, 17u}) {
            const Geometry g = geometry_of(format, format, group);
            const Floats q = queries_of(g);
            const Attention attention(g);
            for (const int64_t len : {1000, 1024}) {
                const Cache cache = cache_of(g, len);
                std::feclearexcept(FE_ALL_EXCEPT);
                attend(attention, cache.view(0), len, q);
                CHECK(std::fetestexcept(FE_OVERFLOW | FE_INVALID | FE_DIVBYZERO) == 0);
            }
        }
    }
}

TEST_CASE("precision: the bits of fast do not depend on how memory is divided, nor on the rows beside a row") {
    for (const Format format : integers) {
        for (const uint32_t head_dim : {64u, 80u}) {
            const Geometry g = geometry_of(format, format, 8, head_dim);
            const Cache cache = cache_of(g, 300);
            const Floats q = queries_of(g, 3);
            const kvl_view whole = cache.view(0);
            const test::Answer want = attend(Attention(g), whole, 300, q, 3);
            const auto *tiles = static_cast<const std::byte *>(whole.spans->k);
            const kvl_span spans[] = {{tiles, nullptr, 64},
                                      {tiles + whole.k_token_stride_bytes, nullptr, 128},
                                      {tiles + 3 * whole.k_token_stride_bytes, nullptr, 108}};
            kvl_view divided = whole;
            divided.spans = spans;
            divided.n_spans = 3;
            CHECK(attend(Attention(g), divided, 300, q, 3) == want);
            for (uint32_t i = 0; i < 3; ++i) {
                const test::Answer alone = attend(Attention(g), whole, 298 + i, test::query_of(g, q, i));
                const auto of_row = static_cast<std::ptrdiff_t>(i * alone.out.size());
                CHECK(std::equal(alone.out.begin(), alone.out.end(), want.out.begin() + of_row));
            }
        }
    }
}

#if defined(__linux__)
TEST_CASE("precision: nothing is read behind the last tile") {
    const auto check = [](const Geometry &g, int64_t len) {
        const Cache cache = cache_of(g, len);
        kvl_view view = cache.view(0);
        const Fenced tiles(view.spans->k, (len + 63) / 64 * view.k_token_stride_bytes);
        const kvl_span fenced{tiles.first(), nullptr, len};
        const Floats q = queries_of(g);
        const test::Answer want = attend(Attention(g), view, len, q);
        view.spans = &fenced;
        CHECK(attend(Attention(g), view, len, q) == want);
    };
    for (const Format format : integers) {
        for (const uint32_t head_dim : {32u, 64u, 96u, 128u, 160u}) {
            for (const uint32_t group : {1u, 3u, 4u, 8u}) {
                Geometry g = geometry_of(format, format, group, head_dim);
                g.n_query_heads = group;
                g.n_kv_heads = 1;
                for (const int64_t len : {1, 15, 61, 64, 100}) {
                    check(g, len);
                }
            }
        }
    }
}
#else
TEST_CASE("precision: what is behind the last tile may be read here") {
    MESSAGE("skipped: only Linux is asked for a fence");
}
#endif

// Attention against the oracle, on the values as the cache decodes them.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "answers.hpp"
#include "kvlane/kvlane.hpp"
#include "row_memory.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Precision;

namespace {

using Floats = std::vector<float>;
using test::Answer;
using test::same_bits;

constexpr int64_t tile_tokens = 64;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float quiet_nan = std::numeric_limits<float>::quiet_NaN();

// Bounds of the relative errors, in units of f32's rounding. A score is a sum of head_dim products, the more of them one
// after the other the fewer lanes an isa has, so the bounds are what scalar needs: on the grid its worst case at each
// head_dim was at 40 to 70 % of out's bound and 25 to 70 % of lse's.
constexpr double rounding = 0x1p-24;
double out_bound(uint32_t head_dim) { return rounding * (20 + head_dim / 32.0); }
double lse_bound(uint32_t head_dim) { return rounding * (4 + 1.5 * std::sqrt(head_dim)); }

// By default what meets stored integers is rounded to 16 bits: queries, relative to their largest element, and weights times
// scales, relative to the largest of a tile. Where it is 8 bits, other tests hold it.
constexpr double integer_rounding = 0x1p-16;

const std::vector<Format> formats = test::all_formats();

struct Shape {
    uint32_t n_kv_heads;
    uint32_t group;
    uint32_t head_dim;
    uint32_t v_head_dim;
    Format k_format;
    Format v_format;
    int64_t len;
    float scale = 0;
    kvlane::Rotation rotation = kvlane::Rotation::by_format;
    Precision precision = Precision::exact;

    size_t n_heads() const { return size_t{n_kv_heads} * group; }
    size_t k_size() const { return static_cast<size_t>(len) * n_kv_heads * head_dim; }
    size_t v_size() const { return static_cast<size_t>(len) * n_kv_heads * v_head_dim; }
    size_t q_size() const { return n_heads() * head_dim; }
    double scale_in_force() const { return scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(head_dim)); }
    bool rounds_queries() const { return precision != Precision::exact && test::is_scaled(k_format); }
    bool rounds_weights() const { return precision != Precision::exact && test::is_scaled(v_format); }
    double out_bound() const {
        const int of_queries = rounds_queries() ? 8 : 0;
        const int of_weights = rounds_weights() ? 16 : 0;  // the more the fewer elements a row has: scales then differ
        return ::out_bound(head_dim) + (of_queries + of_weights) * integer_rounding;
    }
    double lse_bound() const { return ::lse_bound(head_dim) + (rounds_queries() ? 8 * integer_rounding : 0); }
    kvlane::Layer layer() const { return {n_kv_heads, head_dim, v_head_dim, k_format, v_format, rotation, rotation}; }
    Attention attention() const {
        return Attention({.n_query_heads = n_kv_heads * group,
                          .n_kv_heads = n_kv_heads,
                          .head_dim = head_dim,
                          .v_head_dim = v_head_dim,
                          .k_format = k_format,
                          .v_format = v_format,
                          .scale = scale,
                          .k_rotation = rotation,
                          .v_rotation = rotation,
                          .precision = precision});
    }
    // Exact, and the default where that rounds to 16 bits.
    std::vector<Precision> precisions() const {
        Shape by_default = *this;
        by_default.precision = Precision::by_format;
        const bool has_integers = test::is_scaled(k_format) || test::is_scaled(v_format);
        return has_integers && !test::is_fast(by_default.attention()) ? std::vector{Precision::exact, Precision::by_format}
                                                                      : std::vector{Precision::exact};
    }

    std::string text() const {
        return std::to_string(n_kv_heads) + " KV heads x " + std::to_string(group) + ", head_dim " +
               std::to_string(head_dim) + ", v_head_dim " + std::to_string(v_head_dim) + ", " + test::name_of(k_format) +
               "+" + test::name_of(v_format) + (precision == Precision::exact ? ", exact" : "") + ", len " +
               std::to_string(len);
    }
};

// n values of unit variance, others for every seed. Drawn from a pool of a prime number of them: the grid takes many.
Floats normal(size_t n, uint32_t seed) {
    static const Floats pool = test::random_values(65521, 1);
    Floats x(n);
    size_t at = seed * size_t{7919} % pool.size();
    for (float &value : x) {
        value = pool[at];
        at = at + 1 < pool.size() ? at + 1 : 0;
    }
    return x;
}

// Floats that begin `shift` floats off a cache line, in memory that is filled with `around` on either side.
class Guarded {
public:
    Guarded(size_t n, size_t shift, float around) : n_(n), around_(around), memory_(n + 5 * line, around) {
        const auto address = reinterpret_cast<uintptr_t>(memory_.data());
        first_ = (64 - address % 64) / sizeof(float) + line + shift;
    }
    Guarded(const Floats &x, size_t shift, float around) : Guarded(x.size(), shift, around) {
        std::copy(x.begin(), x.end(), data());
    }

    float *data() { return memory_.data() + first_; }
    Floats values() const { return Floats(memory_.data() + first_, memory_.data() + first_ + n_); }
    bool is_intact() const {
        for (size_t i = 0; i < memory_.size(); ++i) {
            if ((i < first_ || i >= first_ + n_) &&
                std::bit_cast<uint32_t>(memory_[i]) != std::bit_cast<uint32_t>(around_)) {
                return false;
            }
        }
        return true;
    }

private:
    static constexpr size_t line = 64 / sizeof(float);
    size_t n_;
    float around_;
    Floats memory_;
    size_t first_;
};

// Where q and out begin, in floats off a cache line.
struct Shifts {
    size_t q = 1;
    size_t out = 3;
};

// Attends to the first len tokens of the view, between NaN and canaries, and sees that the canaries live.
Answer attend(const Attention &attention, const kvl_view &view, int64_t len, const Floats &q, Shifts shifts = {}) {
    constexpr float canary = -12345.678f;
    const size_t n_heads = q.size() / view.head_dim;
    Guarded query(q, shifts.q, quiet_nan);
    Guarded out(n_heads * view.v_head_dim, shifts.out, canary);
    Guarded lse(n_heads, shifts.out, canary);
    kvlane::Workspace workspace = attention.workspace(1, len);
    const kvl_sequence sequence =
        kvlane::Sequence{.view = &view, .len = len, .q = query.data(), .out = out.data(), .lse = lse.data()};
    attention.attend(std::span(&sequence, 1), workspace);
    CHECK(query.is_intact());
    CHECK(out.is_intact());
    CHECK(lse.is_intact());
    return {out.values(), lse.values()};
}

Cache filled(const Shape &shape, const Floats &k, const Floats &v) {
    Cache cache(1, shape.layer(), std::max<int64_t>(1, shape.len), KVL_CACHE_NO_HUGE_PAGES);
    if (shape.len > 0) {
        cache.append(0, k, v);
        cache.advance(shape.len);
    }
    return cache;
}

Cache random_cache(const Shape &shape) { return filled(shape, normal(shape.k_size(), 2), normal(shape.v_size(), 3)); }

oracle::Answer expected(const Shape &shape, const Cache &cache, const Floats &q) {
    return oracle::attend(shape.n_kv_heads, shape.group, shape.head_dim, shape.v_head_dim, shape.len, shape.scale_in_force(),
                          q.data(), cache.read_k(0).data(), cache.read_v(0).data());
}

// Where a reference cancels, relative to the mean of len values of unit variance.
double relative_error(const Floats &out, const std::vector<double> &reference, int64_t len) {
    return test::relative_error(out, reference, test::usual_norm(out.size(), len));
}

// The largest |lse - reference| / max(unit, |reference|); NaN where one is.
double lse_error(const Floats &lse, const std::vector<double> &reference, double unit = 1) {
    double worst = 0;
    for (size_t i = 0; i < lse.size(); ++i) {
        const double error =
            lse[i] == reference[i] ? 0 : std::abs(lse[i] - reference[i]) / std::max(unit, std::abs(reference[i]));
        if (std::isnan(error)) {
            return error;
        }
        worst = std::max(worst, error);
    }
    return worst;
}

double largest_magnitude(const std::vector<double> &x) {
    return std::abs(*std::max_element(x.begin(), x.end(), [](double a, double b) { return std::abs(a) < std::abs(b); }));
}

// The part of x that belongs to one KV head's query heads.
Floats of_kv_head(const Floats &x, const Shape &shape, uint32_t kv_head) {
    const size_t n = x.size() / shape.n_kv_heads;
    return Floats(x.begin() + static_cast<ptrdiff_t>(kv_head * n), x.begin() + static_cast<ptrdiff_t>((kv_head + 1) * n));
}

// ---- The grid

struct Dims {
    uint32_t head_dim;
    uint32_t v_head_dim;
};

// clang-format off
constexpr std::array<Dims, 17> grid_dims = {{
    {1, 1}, {8, 8}, {33, 47}, {40, 40}, {64, 64}, {80, 80}, {96, 96}, {112, 112}, {128, 128}, {192, 192}, {256, 256},
    {512, 512}, {576, 576}, {576, 512}, {192, 128}, {1, 1024}, {1024, 1},
}};
// clang-format on
constexpr std::array<uint32_t, 12> grid_groups = {1, 2, 3, 4, 5, 7, 8, 12, 16, 20, 33, 128};
constexpr std::array<int64_t, 27> grid_lens = {0,  1,  2,  3,   4,   5,   7,   8,   9,   15,   16,   17,   31,  33,
                                               63, 64, 65, 127, 128, 129, 511, 512, 513, 1023, 1024, 1025, 1500};
const size_t n_format_pairs = formats.size() * formats.size();
constexpr size_t n_dims_and_lens = grid_dims.size() * grid_lens.size();
constexpr size_t n_grid_cases = 2 * n_dims_and_lens;
// An emulator takes its time: it runs every seventh case, which meets every value of every axis.
#if defined(KVLANE_TEST_EMULATED)
constexpr size_t grid_step = 7;
#else
constexpr size_t grid_step = 1;
#endif

// What a case takes of each axis: two axes are counted out, the others cycle along both at different paces.
struct GridIndex {
    size_t dims;
    size_t len;
    size_t group;
    size_t format_pair;
};

GridIndex grid_index(size_t i) {
    const size_t dims = i % grid_dims.size();
    const size_t len = i / grid_dims.size() % grid_lens.size();
    const size_t round = i / n_dims_and_lens;
    return {dims, len, (dims + len) % grid_groups.size(), (dims + len + len / 2 + 9 * round) % n_format_pairs};
}

Shape grid_shape(size_t i) {
    const GridIndex at = grid_index(i);
    const uint32_t group = grid_groups[at.group];
    return {.n_kv_heads = group > 20 ? 1 : static_cast<uint32_t>(1 + i % 3),
            .group = group,
            .head_dim = grid_dims[at.dims].head_dim,
            .v_head_dim = grid_dims[at.dims].v_head_dim,
            .k_format = formats[at.format_pair / formats.size()],
            .v_format = formats[at.format_pair % formats.size()],
            .len = grid_lens[at.len]};
}

// For what is not about shape: more than one KV head, tile and chunk, rows of whole vectors and a part of one.
Shape usual_shape(Format format, int64_t len = 700) { return {2, 3, 77, 45, format, format, len}; }

}  // namespace

TEST_CASE("attention: every pair of the grid's axes meets") {
    std::set<std::pair<size_t, size_t>> dims_len, dims_group, dims_formats, len_group, len_formats, group_formats;
    for (size_t i = 0; i < n_grid_cases; ++i) {
        const GridIndex at = grid_index(i);
        dims_len.emplace(at.dims, at.len);
        dims_group.emplace(at.dims, at.group);
        dims_formats.emplace(at.dims, at.format_pair);
        len_group.emplace(at.len, at.group);
        len_formats.emplace(at.len, at.format_pair);
        group_formats.emplace(at.group, at.format_pair);
    }
    CHECK(dims_len.size() == grid_dims.size() * grid_lens.size());
    CHECK(dims_group.size() == grid_dims.size() * grid_groups.size());
    CHECK(dims_formats.size() == grid_dims.size() * n_format_pairs);
    CHECK(len_group.size() == grid_lens.size() * grid_groups.size());
    CHECK(len_formats.size() == grid_lens.size() * n_format_pairs);
    CHECK(group_formats.size() == grid_groups.size() * n_format_pairs);
}

TEST_CASE("attention: equals the oracle on the decoded values, on the whole grid") {
    // 4, 20 and 60 bytes off a cache line for q; three misalignments of out.
    constexpr std::array<Shifts, 4> shifts = {{{1, 1}, {5, 2}, {15, 13}, {0, 0}}};
    double worst = 0;
    double worst_lse = 0;
    for (size_t i = 0; i < n_grid_cases; i += grid_step) {
        Shape shape = grid_shape(i);
        const std::vector<Precision> precisions = shape.precisions();
        shape.precision = precisions[static_cast<size_t>(std::popcount(i)) % precisions.size()];  // in no step with i's axes
        INFO(shape.text());
        const Cache cache = random_cache(shape);
        const Floats q = normal(shape.q_size(), 1);
        const Answer got = attend(shape.attention(), cache.view(0), shape.len, q, shifts[i % shifts.size()]);
        const oracle::Answer want = expected(shape, cache, q);
        const double error = relative_error(got.out, want.out, shape.len);
        const double error_of_lse = lse_error(got.lse, want.lse);
        CHECK(error <= shape.out_bound());
        CHECK(error_of_lse <= shape.lse_bound());
        worst = std::max(worst, error);
        worst_lse = std::max(worst_lse, error_of_lse);
    }
    MESSAGE(std::string(kvlane::isa_in_force()) << ": worst relative error " << worst << ", of lse " << worst_lse);
}

TEST_CASE("attention: 4096 tokens of unit variance and head_dim 128 are within 2e-6, of integers by default 2e-4") {
    for (const Format format : formats) {
        Shape shape{2, 4, 128, 128, format, format, 4096};
        const Cache cache = random_cache(shape);
        const Floats q = normal(shape.q_size(), 1);
        const oracle::Answer want = expected(shape, cache, q);
        for (const Precision precision : shape.precisions()) {
            shape.precision = precision;
            INFO(shape.text());
            const Answer got = attend(shape.attention(), cache.view(0), shape.len, q);
            const double error = relative_error(got.out, want.out, shape.len);
            CHECK(error <= (precision == Precision::exact ? 2e-6 : 2e-4));
            CHECK(lse_error(got.lse, want.lse) <= shape.lse_bound());
            MESSAGE(std::string(shape.attention().kernel())
                    << ": relative error " << error << ", of lse " << lse_error(got.lse, want.lse));
        }
    }
}

TEST_CASE("attention: many chunks are merged as few are") {
    for (const int64_t len : {16 * KVL_CHUNK_TOKENS, 16 * KVL_CHUNK_TOKENS + 1, 37 * KVL_CHUNK_TOKENS}) {
        for (const uint32_t v_head_dim : {8u, 45u}) {
            const Shape shape{1, 2, 16, v_head_dim, Format::f32, Format::f32, len};
            INFO(shape.text());
            const Cache cache = random_cache(shape);
            const Floats q = normal(shape.q_size(), 1);
            const Answer got = attend(shape.attention(), cache.view(0), len, q);
            const oracle::Answer want = expected(shape, cache, q);
            CHECK(relative_error(got.out, want.out, len) <= shape.out_bound());
            CHECK(lse_error(got.lse, want.lse) <= shape.lse_bound());
        }
    }
}

// ---- Scores

TEST_CASE("attention: no visible token gives 0 and minus infinity") {
    for (const Format format : formats) {
        const Shape shape = usual_shape(format);
        const Cache cache = random_cache(shape);
        const Answer got = attend(shape.attention(), cache.view(0), 0, normal(shape.q_size(), 1));
        CHECK(same_bits(got.out, Floats(got.out.size(), 0.0f)));
        CHECK(same_bits(got.lse, Floats(got.lse.size(), -infinity)));
    }
}

TEST_CASE("attention: scores of minus infinity weigh nothing, be they all, the first or the last") {
    constexpr int64_t len = 1100;
    const auto check = [](const Shape &shape, int64_t first, int64_t last) {
        INFO(shape.text() << ", tokens " << first << " to " << last << " score minus infinity");
        const Floats q = Floats(shape.q_size(), 1.0f);
        Floats k = normal(shape.k_size(), 2);
        for (int64_t t = first; t < last; ++t) {
            k[static_cast<size_t>(t) * shape.head_dim + 7] = -infinity;
        }
        const Cache cache = filled(shape, k, normal(shape.v_size(), 3));
        const Answer got = attend(shape.attention(), cache.view(0), len, q);
        const oracle::Answer want = expected(shape, cache, q);
        CHECK(relative_error(got.out, want.out, len) <= shape.out_bound());
        CHECK(lse_error(got.lse, want.lse) <= shape.lse_bound());
    };
    Shape integers{1, 3, 40, 24, Format::f16, Format::q8, len};
    integers.precision = Precision::by_format;
    for (const auto &[first, last] : {std::pair<int64_t, int64_t>{0, len},
                                      {0, 1},
                                      {0, 64},
                                      {0, 512},
                                      {0, 1099},
                                      {1, len},
                                      {512, len},
                                      {1024, len},
                                      {600, 601}}) {
        check({1, 3, 40, 24, Format::f32, Format::f32, len}, first, last);
        check(integers, first, last);
    }
}

TEST_CASE("attention: scores up to 1e4 keep the precision that f32 leaves them") {
    for (const Format format : formats) {
        for (const bool alike : {false, true}) {  // keys: of either sign and one wins, or all close to one and many weigh
            Shape shape = usual_shape(format);
            Floats k = normal(shape.k_size(), 2);
            for (size_t i = 0; alike && i < k.size(); ++i) {
                k[i] = 1 + 1e-3f * k[i];
            }
            const Cache cache = filled(shape, k, normal(shape.v_size(), 3));
            const Floats q = normal(shape.q_size(), 1);
            shape.scale = 1;
            const double largest = largest_magnitude(expected(shape, cache, q).lse);
            for (const double score : {1e2, 1e3, 1e4}) {
                shape.scale = static_cast<float>(score / largest);
                const oracle::Answer want = expected(shape, cache, q);
                for (const Precision precision : shape.precisions()) {
                    shape.precision = precision;
                    INFO(shape.text() << ", scores to " << score);
                    const Answer got = attend(shape.attention(), cache.view(0), shape.len, q);
                    // A weight is off by as much of itself as its score is absolutely; the worst was 1.2 roundings of that.
                    const double of_score = rounding + (shape.rounds_queries() ? integer_rounding : 0);
                    CHECK(relative_error(got.out, want.out, shape.len) <= 2.5 * of_score * score);
                    CHECK(lse_error(got.lse, want.lse, score) <= shape.lse_bound());
                }
            }
        }
    }
}

TEST_CASE("attention: sums of the largest integers stay exact at every head_dim") {
    for (const uint32_t head_dim : {128u, 512u, 513u, 1024u}) {
        for (const uint32_t group : {1u, 8u}) {
            Shape shape{1, group, head_dim, 8, Format::q8, Format::f32, 70};
            shape.rotation = kvlane::Rotation::none;
            const Cache cache = filled(shape, Floats(shape.k_size(), -2.0f), normal(shape.v_size(), 3));
            const Floats q(shape.q_size(), 0.5f);
            for (const Precision precision : shape.precisions()) {
                shape.precision = precision;
                INFO(shape.text());
                const Answer got = attend(shape.attention(), cache.view(0), shape.len, q);
                CHECK(lse_error(got.lse, expected(shape, cache, q).lse) <= shape.lse_bound());
            }
        }
    }
}

TEST_CASE("attention: queries near the ends of f32 meet integers at every head_dim") {
    for (const uint32_t head_dim : {512u, 1024u}) {
        for (const auto &numbers : {std::tuple{1e-33f, 1e28f, 1e3f}, {1e36f, 2e-36f, 0.5f}}) {
            const float query = std::get<0>(numbers), key = std::get<1>(numbers), scale = std::get<2>(numbers);
            for (const Format format : {Format::q8, Format::q4}) {
                Shape shape{1, 2, head_dim, 8, format, Format::f32, 3, scale};
                shape.rotation = kvlane::Rotation::none;
                const Cache cache = filled(shape, Floats(shape.k_size(), key), normal(shape.v_size(), 3));
                const Floats q(shape.q_size(), query);
                for (const Precision precision : shape.precisions()) {
                    shape.precision = precision;
                    INFO(shape.text() << ", queries of " << query);
                    const Answer got = attend(shape.attention(), cache.view(0), shape.len, q);
                    const double rounded_alike = rounding * head_dim / 8;  // elements are
                    CHECK(lse_error(got.lse, expected(shape, cache, q).lse) <= shape.lse_bound() + rounded_alike);
                }
            }
        }
    }
}

TEST_CASE("attention: equal scores give the mean of the values") {
    for (const int64_t len : {1, 64, 65, 513, 1500}) {
        const Shape shape = usual_shape(Format::f32, len);
        const Cache cache = filled(shape, Floats(shape.k_size(), 3.0f), normal(shape.v_size(), 3));
        const Floats q = Floats(shape.q_size(), 0.0f);
        const Answer got = attend(shape.attention(), cache.view(0), len, q);
        CHECK(relative_error(got.out, expected(shape, cache, q).out, len) <= shape.out_bound());
        for (const float lse : got.lse) {
            CHECK(lse == doctest::Approx(std::log(len)).epsilon(shape.lse_bound()));
        }
    }
}

TEST_CASE("attention: a score that dominates gives that token's value, exactly where none is stored as integers") {
    constexpr int64_t len = 700;
    for (const Format format : formats) {
        for (const int64_t token : {int64_t{0}, int64_t{63}, int64_t{64}, int64_t{300}, int64_t{512}, len - 1}) {
            Shape shape{1, 5, 64, 40, format, format, len};
            Floats k(shape.k_size(), 0.0f);
            std::fill_n(k.begin() + token * shape.head_dim, shape.head_dim, 32.0f);
            const Cache cache = filled(shape, k, normal(shape.v_size(), 3));
            const Floats q(shape.q_size(), 1.0f), v = cache.read_v(0);
            for (const Precision precision : shape.precisions()) {
                shape.precision = precision;
                INFO(shape.text() << ", token " << token);
                const Answer got = attend(shape.attention(), cache.view(0), len, q);
                const double of_value = shape.rounds_weights() ? integer_rounding : rounding;
                const int n_roundings = format == Format::q4 ? 5 : 4;  // of elements up to 4, when they are rotated back
                for (size_t i = 0; i < got.out.size(); ++i) {
                    const float value = v[static_cast<size_t>(token) * shape.v_head_dim + i % shape.v_head_dim];
                    CHECK(std::abs(got.out[i] - value) <=
                          (test::is_scaled(format) ? 4 * of_value * std::abs(value) + n_roundings * rounding : 0));
                }
                CHECK(lse_error(got.lse, expected(shape, cache, q).lse) <= shape.lse_bound());
            }
        }
    }
}

TEST_CASE("attention: a score too large for f32 shows as NaN") {
    const Shape shape{1, 2, 8, 8, Format::f32, Format::f32, 5, 100.0f};
    Floats k(shape.k_size(), 1.0f);
    k[2 * shape.head_dim] = 2e18f;  // times q and scale: over the largest f32
    const Cache cache = filled(shape, k, normal(shape.v_size(), 3));
    const Answer got = attend(shape.attention(), cache.view(0), shape.len, Floats(shape.q_size(), 1e19f));
    CHECK(std::all_of(got.out.begin(), got.out.end(), [](float x) { return std::isnan(x); }));
    CHECK(std::all_of(got.lse.begin(), got.lse.end(), [](float x) { return std::isnan(x); }));
}

TEST_CASE("attention: scale may be negative, and is 1 / sqrt(head_dim) where none is given") {
    Shape shape = usual_shape(Format::f16);
    const Cache cache = random_cache(shape);
    const Floats q = normal(shape.q_size(), 1);
    for (const float scale : {-0.25f, 0.01f, 0.4f}) {
        shape.scale = scale;
        const Answer got = attend(shape.attention(), cache.view(0), shape.len, q);
        const oracle::Answer want = expected(shape, cache, q);
        CHECK(relative_error(got.out, want.out, shape.len) <= shape.out_bound());
        CHECK(lse_error(got.lse, want.lse) <= shape.lse_bound());
    }
    for (const uint32_t head_dim : {1u, 16u, 64u, 256u}) {  // where the root is exact
        Shape with_default{2, 3, head_dim, 40, Format::f16, Format::f16, 700};
        Shape with_scale = with_default;
        with_scale.scale = 1 / std::sqrt(static_cast<float>(head_dim));
        const Cache other = random_cache(with_default);
        const Floats query = normal(with_default.q_size(), 1);
        CHECK(attend(with_default.attention(), other.view(0), 700, query) ==
              attend(with_scale.attention(), other.view(0), 700, query));
    }
}

TEST_CASE("attention: a rotation changes nothing but the rounding, at any head_dim") {
    for (const Format format : formats) {
        for (const Dims dims : grid_dims) {
            Shape shape{.n_kv_heads = 2,
                        .group = 5,
                        .head_dim = dims.head_dim,
                        .v_head_dim = dims.v_head_dim,
                        .k_format = format,
                        .v_format = format,
                        .len = 150,
                        .rotation = kvlane::Rotation::hadamard};
            const Cache cache = random_cache(shape);
            const Floats q = normal(shape.q_size(), 1);
            const oracle::Answer want = expected(shape, cache, q);
            for (const Precision precision : shape.precisions()) {
                shape.precision = precision;
                INFO(shape.text());
                const Answer got = attend(shape.attention(), cache.view(0), shape.len, q);
                CHECK(relative_error(got.out, want.out, shape.len) <= shape.out_bound());
                CHECK(lse_error(got.lse, want.lse) <= shape.lse_bound());
            }
        }
    }
}

// ---- What shows, and what does not

TEST_CASE("attention: what lies behind len does not show") {
    constexpr int64_t n_tokens = 1100;
    for (const Format format : formats) {
        for (const float poison : {quiet_nan, infinity}) {
            for (const int64_t len : {0, 1, 15, 17, 63, 64, 65, 511, 512, 513, 1025}) {
                const Shape seen = usual_shape(format, len);
                INFO(seen.text());
                Floats k = normal(seen.k_size(), 2);
                Floats v = normal(seen.v_size(), 3);
                const Cache cache = filled(seen, k, v);
                const Shape whole = usual_shape(format, n_tokens);
                k.resize(whole.k_size(), poison);
                v.resize(whole.v_size(), poison);
                const Cache poisoned = filled(whole, k, v);
                const Floats q = normal(seen.q_size(), 1);
                CHECK(attend(seen.attention(), poisoned.view(0), len, q) == attend(seen.attention(), cache.view(0), len, q));
            }
        }
    }
}

TEST_CASE("attention: NaN or infinity in a visible key shows in the heads that read it, and only there") {
    constexpr int64_t len = 700;
    std::vector<Shape> shapes;
    for (const Format format : formats) {
        shapes.push_back(usual_shape(format, len));
        if (test::is_scaled(format)) {
            shapes.push_back(usual_shape(format, len));
            shapes.back().precision = Precision::by_format;
        }
    }
    for (const Shape &shape : shapes) {
        const Floats k = normal(shape.k_size(), 2);
        const Floats v = normal(shape.v_size(), 3);
        const Floats q(shape.q_size(), 0.5f);  // of one sign, so that an infinite key is an infinite score
        const Answer clean = attend(shape.attention(), filled(shape, k, v).view(0), len, q);
        for (const float poison : {quiet_nan, infinity}) {
            for (const int64_t token :
                 {int64_t{0}, int64_t{1}, int64_t{62}, int64_t{63}, int64_t{64}, int64_t{511}, int64_t{512}, len - 1}) {
                for (const uint32_t d : {0u, 15u, 76u}) {
                    INFO(shape.text() << ", " << poison << " in element " << d << " of token " << token);
                    Floats bad = k;
                    bad[(static_cast<size_t>(token) * 2 + 1) * shape.head_dim + d] = poison;
                    const Answer got = attend(shape.attention(), filled(shape, bad, v).view(0), len, q);
                    CHECK(same_bits(of_kv_head(got.out, shape, 0), of_kv_head(clean.out, shape, 0)));
                    CHECK(same_bits(of_kv_head(got.lse, shape, 0), of_kv_head(clean.lse, shape, 0)));
                    for (const float x : of_kv_head(got.out, shape, 1)) {
                        CHECK(std::isnan(x));
                    }
                    for (const float x : of_kv_head(got.lse, shape, 1)) {
                        CHECK(!std::isfinite(x));
                    }
                }
            }
        }
    }
}

TEST_CASE(
    "attention: NaN or infinity in a visible value shows in its element, or its row, of the heads that read it alone") {
    constexpr int64_t len = 700;
    for (const Format format : formats) {
        const Shape shape = usual_shape(format, len);
        const Floats k = normal(shape.k_size(), 2);
        const Floats v = normal(shape.v_size(), 3);
        const Floats q = normal(shape.q_size(), 1);
        const Answer clean = attend(shape.attention(), filled(shape, k, v).view(0), len, q);
        for (const float poison : {quiet_nan, infinity, -infinity}) {
            for (const int64_t token : {int64_t{0}, int64_t{1}, int64_t{63}, int64_t{64}, int64_t{512}, len - 1}) {
                for (const uint32_t d : {0u, 15u, 44u}) {
                    INFO(shape.text() << ", " << poison << " in element " << d << " of token " << token);
                    Floats bad = v;
                    bad[(static_cast<size_t>(token) * 2 + 1) * shape.v_head_dim + d] = poison;
                    Answer got = attend(shape.attention(), filled(shape, k, bad).view(0), len, q);
                    for (uint32_t i = shape.group * shape.v_head_dim; i < got.out.size(); ++i) {
                        float &x = got.out[i];
                        if (test::is_scaled(format)) {  // the row's scale is NaN
                            CHECK(std::isnan(x));
                        } else if (i % shape.v_head_dim == d) {
                            CHECK((std::isnan(poison) ? std::isnan(x) : x == poison));
                        } else {
                            continue;
                        }
                        x = clean.out[i];
                    }
                    CHECK(got == clean);
                }
            }
        }
    }
}

TEST_CASE("attention: the bits do not depend on where q and out lie") {
    for (const Format format : formats) {
        for (const Shape &shape : {usual_shape(format), Shape{1, 7, 33, 1, format, format, 65}}) {
            INFO(shape.text());
            const Cache cache = random_cache(shape);
            const Floats q = normal(shape.q_size(), 1);
            const Answer aligned = attend(shape.attention(), cache.view(0), shape.len, q, {0, 0});
            for (const size_t q_shift : {1, 5, 15}) {
                for (const size_t out_shift : {1, 2, 13}) {
                    CHECK(attend(shape.attention(), cache.view(0), shape.len, q, {q_shift, out_shift}) == aligned);
                }
            }
        }
    }
}

// ---- Views

namespace {

// A view of one span, this cut at the given tokens; a cut that repeats makes an empty span.
struct CutView {
    std::vector<kvl_span> spans;
    kvl_view view;

    CutView(const kvl_view &straight, const std::vector<int64_t> &cuts) : view(straight) {
        const auto *k = static_cast<const std::byte *>(straight.spans[0].k);
        const auto *v = static_cast<const std::byte *>(straight.spans[0].v);
        const int64_t stride_tokens = straight.flags & KVL_VIEW_TILES ? tile_tokens : 1;
        int64_t from = 0;
        const auto cut = [&](int64_t to) {
            const int64_t n_strides = from / stride_tokens;
            spans.push_back(
                {k + n_strides * straight.k_token_stride_bytes, v + n_strides * straight.v_token_stride_bytes, to - from});
            from = to;
        };
        std::for_each(cuts.begin(), cuts.end(), cut);
        cut(straight.len);
        view.spans = spans.data();
        view.n_spans = static_cast<uint32_t>(spans.size());
    }
    CutView(const CutView &) = delete;
};

// Cuts at every so many tokens.
std::vector<int64_t> cuts_at_each(int64_t step, int64_t len) {
    std::vector<int64_t> cuts;
    for (int64_t t = step; t < len; t += step) {
        cuts.push_back(t);
    }
    return cuts;
}

// Checks that a view gives the bits of the cache, wherever it is cut.
void check_cuts(const Shape &shape, const Cache &cache, const kvl_view &view,
                const std::vector<std::vector<int64_t>> &all_cuts) {
    const Floats q = normal(shape.q_size(), 1);
    for (const int64_t seen : {int64_t{0}, int64_t{1}, int64_t{65}, int64_t{600}, shape.len}) {
        const Answer straight = attend(shape.attention(), cache.view(0), seen, q);
        for (const std::vector<int64_t> &cuts : all_cuts) {
            INFO(shape.text() << ", " << cuts.size() << " cuts, the first at " << cuts[0] << ", len " << seen);
            const CutView cut(view, cuts);
            CHECK(attend(shape.attention(), cut.view, seen, q) == straight);
        }
    }
}

}  // namespace

TEST_CASE("view: rows in several spans, cut anywhere, give the bits of the cache") {
    constexpr int64_t len = 1100;
    const std::vector<std::vector<int64_t>> all_cuts = {{1},
                                                        {16},
                                                        {63},
                                                        {64},
                                                        {65},
                                                        {100},
                                                        {511},
                                                        {512},
                                                        {513},
                                                        {1099},
                                                        {0},
                                                        {1100},
                                                        {0, 0, 0},
                                                        {1, 1, 64, 64, 512, 512, 1100},
                                                        {63, 64, 65},
                                                        {16, 100, 612, 613},
                                                        cuts_at_each(1, len)};
    for (const Format format : test::row_formats()) {
        const Shape shape{2, 5, 77, 45, format, format, len};
        const Cache cache = random_cache(shape);
        test::RowMemory rows(cache);
        check_cuts(shape, cache, rows.view(), all_cuts);
    }
}

TEST_CASE("view: tiles in several spans give the bits of one straight span") {
    constexpr int64_t len = 1100;
    const std::vector<std::vector<int64_t>> all_cuts = {
        {64}, {448}, {512}, {576}, {1088}, {0}, {1100}, {0, 0, 0}, {64, 64, 512, 512, 1100}, cuts_at_each(tile_tokens, len)};
    for (const Format format : formats) {
        const Shape shape{2, 5, 77, 45, format, format, len};
        const Cache cache = random_cache(shape);
        check_cuts(shape, cache, cache.view(0), all_cuts);
    }
}

TEST_CASE("view: rows of any order, stride and alignment give the bits of the cache") {
    for (const Format k_format : test::row_formats()) {
        for (const Format v_format : test::row_formats()) {
            for (const Shape &shape :
                 {Shape{2, 3, 64, 64, k_format, v_format, 600}, Shape{3, 1, 33, 7, k_format, v_format, 130}}) {
                const Cache cache = random_cache(shape);
                const Floats q = normal(shape.q_size(), 1);
                const Answer of_cache = attend(shape.attention(), cache.view(0), shape.len, q);
                for (const int64_t gap : {0, 1, 2, 3, 36, 64}) {
                    for (const size_t shift : {0, 1, 2, 4, 20, 60}) {
                        const bool token_major = (gap + static_cast<int64_t>(shift)) % 3 != 0;
                        INFO(shape.text() << (token_major ? ", by token, " : ", by head, ") << gap << " bytes between rows, "
                                          << shift << " off a cache line");
                        test::RowMemory rows(cache, 0, token_major, gap, shift);
                        CHECK(attend(shape.attention(), rows.view(), shape.len, q) == of_cache);
                    }
                }
            }
        }
    }
}

TEST_CASE("view: one without spans, or with an empty one, has no token to see") {
    const kvl_span empty{};
    for (const uint32_t n_spans : {0u, 1u}) {
        const Shape shape{1, 1, 8, 8, Format::f16, Format::f16, 0};
        kvl_view view{};
        view.struct_size = sizeof view;
        view.n_kv_heads = 1;
        view.head_dim = view.v_head_dim = 8;
        view.k_format = view.v_format = KVL_F16;
        view.k_rotation = view.v_rotation = KVL_ROTATION_NONE;
        view.spans = n_spans ? &empty : nullptr;
        view.n_spans = n_spans;
        const Answer got = attend(shape.attention(), view, 0, Floats(8, 1.0f));
        CHECK(same_bits(got.out, Floats(8, 0.0f)));
        CHECK(same_bits(got.lse, Floats(1, -infinity)));
    }
}

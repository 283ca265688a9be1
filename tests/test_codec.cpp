// What the cache stores of an f32 value, against conversions written from the formats' definitions.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kvlane/kvlane.hpp"
#include "stored_tiles.hpp"

using kvlane::Cache;
using kvlane::Format;
using test::StoredTiles;

namespace {

using Floats = std::vector<float>;

// A binary format of 16 bits: a sign, an exponent and `mantissa_bits`, as in IEEE 754.
struct Binary16Bits {
    Format format;
    int mantissa_bits;
    int bias;

    int min_exponent() const { return 1 - bias; }
    uint16_t infinity() const { return static_cast<uint16_t>(0x7fff >> mantissa_bits << mantissa_bits); }
    uint16_t quiet_bit() const { return static_cast<uint16_t>(1 << (mantissa_bits - 1)); }
    bool is_nan(uint16_t h) const { return (h & 0x7fff) > infinity(); }

    // The value of a pattern; NaN keeps sign and payload.
    float value(uint16_t h) const {
        const int exponent = (h & 0x7fff) >> mantissa_bits;
        const int mantissa = h & ((1 << mantissa_bits) - 1);
        if ((h & 0x7fff) >= infinity()) {
            return std::bit_cast<float>((h & 0x8000u) << 16 | 0x7f800000u |
                                        static_cast<uint32_t>(mantissa) << (23 - mantissa_bits));
        }
        const int significand = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
        const double magnitude = std::ldexp(significand, std::max(exponent, 1) - bias - mantissa_bits);
        return static_cast<float>(h & 0x8000 ? -magnitude : magnitude);
    }

    // The nearest value of the format, ties to even, for a number.
    float nearest(float x) const {
        const int exponent = x == 0 ? min_exponent() : std::max(std::ilogb(x), min_exponent());
        const double unit = std::ldexp(1.0, exponent - mantissa_bits);
        const double rounded = std::nearbyint(x / unit) * unit;
        const double limit = std::ldexp(1.0, bias + 1);
        return static_cast<float>(std::abs(rounded) >= limit ? std::copysign(HUGE_VAL, x) : std::copysign(rounded, x));
    }
};

constexpr Binary16Bits f16{Format::f16, 10, 15};
constexpr Binary16Bits bf16{Format::bf16, 7, 127};
const std::vector<Format> formats = test::all_formats();

// Row dims with and without a tail, and with rows shorter than any vector.
constexpr std::array<uint32_t, 6> dims = {1, 7, 17, 33, 64, 576};

uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }

std::string hex(float x) {
    char text[16];
    std::snprintf(text, sizeof text, "0x%08x", bits(x));
    return text;
}

// Values as keys, and from behind as values, in rows of `dim`, over two KV heads.
Cache stored(Format format, uint32_t dim, Floats &k, Floats &v) {
    const size_t entry = 2 * size_t{dim};
    k.resize((k.size() + entry - 1) / entry * entry, 1.0f);
    v.assign(k.rbegin(), k.rend());
    const auto n_tokens = static_cast<int64_t>(k.size() / entry);
    const auto none = kvlane::Rotation::none;
    Cache cache(1, {2, dim, dim, format, format, none, none}, n_tokens + 1, KVL_CACHE_NO_HUGE_PAGES);
    cache.append(0, k, v);
    cache.advance(n_tokens);
    return cache;
}

Cache stored_rows(Format format, uint32_t dim, Floats x) {
    Floats behind;
    return stored(format, dim, x, behind);
}

// Sees that the bits of what is read back are those of expected(x) for each x that was appended, as keys and as values.
template <class Expected>
void check_survives(Format format, uint32_t dim, Floats x, Expected expected) {
    INFO(std::string(test::name_of(format)) << ", rows of " << dim);
    Floats behind;
    const Cache cache = stored(format, dim, x, behind);
    const auto check = [&](const Floats &in, const Floats &out) {
        REQUIRE(in.size() == out.size());
        size_t n_wrong = 0;
        for (size_t i = 0; i < in.size(); ++i) {
            if (bits(out[i]) != bits(expected(in[i])) && ++n_wrong == 1) {
                FAIL_CHECK(hex(in[i]) << " became " << hex(out[i]) << ", not " << hex(expected(in[i])));
            }
        }
        CHECK(n_wrong == 0);
    };
    check(x, cache.read_k(0));
    check(behind, cache.read_v(0));
}

Floats all_values(const Binary16Bits &format) {
    Floats x(1 << 16);
    for (uint32_t h = 0; h < x.size(); ++h) {
        x[h] = format.value(static_cast<uint16_t>(h));
    }
    return x;
}

Floats random_bits(size_t n, uint32_t seed) {
    std::mt19937 random(seed);
    Floats x(n);
    std::generate(x.begin(), x.end(), [&] { return std::bit_cast<float>(static_cast<uint32_t>(random())); });
    return x;
}

// A NaN of the format with the sign and the payload's upper bits of x, quiet.
float as_quiet(const Binary16Bits &format, float x) {
    return format.value(static_cast<uint16_t>(bits(x) >> 31 << 15 | format.infinity() | format.quiet_bit() |
                                              ((bits(x) & 0x7fffff) >> (23 - format.mantissa_bits))));
}

}  // namespace

TEST_CASE("codec: all 65536 values of f16 and bf16 come back as they were, NaN as a quiet one") {
    for (const Binary16Bits &format : {f16, bf16}) {
        for (const uint32_t dim : dims) {
            check_survives(format.format, dim, all_values(format),
                           [&](float x) { return std::isnan(x) ? as_quiet(format, x) : x; });
        }
    }
}

TEST_CASE("codec: all 65536 values of f16 and bf16 are stored as their own bits, NaN as a quiet one") {
    for (const Binary16Bits &format : {f16, bf16}) {
        constexpr uint32_t dim = 64;
        Floats x = all_values(format);
        Floats behind;
        const Cache cache = stored(format.format, dim, x, behind);
        const StoredTiles tiles(cache);
        const auto last = static_cast<uint32_t>(x.size()) - 1;
        size_t n_wrong = 0;
        for (uint32_t h = 0; h <= last; ++h) {
            const uint32_t token = h / (2 * dim), head = h / dim % 2;
            const uint32_t want = format.is_nan(static_cast<uint16_t>(h)) ? h | format.quiet_bit() : h;
            n_wrong += tiles.bits(true, token, head, h % dim) != want;
            n_wrong += tiles.bits(false, last / (2 * dim) - token, 1 - head, dim - 1 - h % dim) != want;
        }
        CHECK(n_wrong == 0);
    }
}

TEST_CASE("codec: f16 and bf16 round to the nearest value, ties to even") {
    for (const Binary16Bits &format : {f16, bf16}) {
        Floats x;
        // Every tie between neighbours, the one at infinity included, and what lies close on either side of it.
        for (uint16_t h = 0; h < format.infinity(); ++h) {
            const double above =
                h + 1 == format.infinity() ? std::ldexp(1.0, format.bias + 1) : format.value(static_cast<uint16_t>(h + 1));
            const auto tie = static_cast<float>((format.value(h) + above) / 2);
            for (const float magnitude : {std::nextafter(tie, 0.0f), tie, std::nextafter(tie, HUGE_VALF)}) {
                x.push_back(magnitude);
                x.push_back(-magnitude);
            }
        }
        for (const float limit : {std::numeric_limits<float>::max(), std::numeric_limits<float>::min(),
                                  std::numeric_limits<float>::denorm_min(), HUGE_VALF, 0.0f}) {
            x.push_back(limit);
            x.push_back(-limit);
        }
        const Floats random = random_bits(1 << 17, 1);
        std::copy_if(random.begin(), random.end(), std::back_inserter(x), [](float value) { return !std::isnan(value); });
        for (const uint32_t dim : dims) {
            check_survives(format.format, dim, x,
                           [&](float value) { return std::isinf(value) ? value : format.nearest(value); });
        }
    }
}

TEST_CASE("codec: f32 is stored verbatim, any bits") {
    for (const uint32_t dim : dims) {
        check_survives(Format::f32, dim, random_bits(1 << 15, 2), [](float x) { return x; });
    }
}

TEST_CASE("codec: NaN stays NaN, whatever its payload") {
    Floats x;
    for (const uint32_t payload : {0x1u, 0x2u, 0xfffu, 0x1000u, 0x1fffu, 0x2000u, 0x7fffu, 0x8000u, 0xffffu, 0x10000u,
                                   0x3fffffu, 0x400000u, 0x400001u, 0x7fffffu}) {
        x.push_back(std::bit_cast<float>(0x7f800000u | payload));
        x.push_back(std::bit_cast<float>(0xff800000u | payload));
    }
    for (const uint32_t dim : dims) {
        check_survives(Format::f32, dim, x, [](float value) { return value; });
        for (const Binary16Bits &format : {f16, bf16}) {
            check_survives(format.format, dim, x,
                           [&](float value) { return std::isnan(value) ? as_quiet(format, value) : value; });
        }
    }
}

// A q8 row by its definition.
struct Q8Row {
    float scale;
    std::vector<int> integers;

    explicit Q8Row(std::span<const float> x) {
        float largest = 0;
        bool is_finite = true;
        for (const float value : x) {
            is_finite = is_finite && std::isfinite(value);
            largest = std::max(largest, std::abs(value));
        }
        scale = is_finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
        scale = scale < std::numeric_limits<float>::min() ? 0 : scale;
        for (const float value : x) {
            integers.push_back(scale > 0 ? static_cast<int>(std::nearbyint(value * (1 / scale))) : 0);
        }
    }
};

// Sees that a row that was x is stored and read back as q8 defines it.
void check_q8_row(std::span<const float> x, const StoredTiles &tiles, bool keys, int64_t token, uint32_t head,
                  std::span<const float> read) {
    const Q8Row want(x);
    const float scale = tiles.scale(keys, token, head);
    CHECK((std::isnan(want.scale) ? std::isnan(scale) : scale == want.scale));
    size_t n_wrong = 0;
    for (uint32_t d = 0; d < x.size(); ++d) {
        const auto integer = static_cast<int8_t>(tiles.bits(keys, token, head, d));
        n_wrong += std::isnan(want.scale)
                       ? !std::isnan(read[d])
                       : integer != want.integers[d] || read[d] != want.scale * static_cast<float>(want.integers[d]);
    }
    CHECK(n_wrong == 0);
}

using CheckRow = void (*)(std::span<const float> x, const StoredTiles &, bool keys, int64_t token, uint32_t head,
                          std::span<const float> read);

// Sees that of rows of `dim` of x, as keys and from behind as values, each is stored and read back as it should.
void check_rows(Format format, uint32_t dim, Floats x, CheckRow check) {
    Floats behind;
    const Cache cache = stored(format, dim, x, behind);
    const StoredTiles tiles(cache);
    for (const bool keys : {true, false}) {
        const Floats &in = keys ? x : behind;
        const Floats read = keys ? cache.read_k(0) : cache.read_v(0);
        for (size_t row = 0; row < in.size() / dim; ++row) {
            INFO(std::string(keys ? "key " : "value ") << row << " of " << dim << ", from " << hex(in[row * dim]));
            check(std::span(in).subspan(row * dim, dim), tiles, keys, static_cast<int64_t>(row / 2), row % 2,
                  std::span(read).subspan(row * dim, dim));
        }
    }
}

void check_q8(uint32_t dim, const Floats &x) { check_rows(Format::q8, dim, x, check_q8_row); }

TEST_CASE("q8 is a scale, the row's largest magnitude over 127, times integers: elements times its inverse, ties to even") {
    Floats ties;  // of a scale of 1
    for (int i = 0; i < 64; ++i) {
        ties.push_back(i == 0 ? 127.0f : static_cast<float>(i) - 32.5f);
    }
    check_q8(64, ties);
    for (const uint32_t dim : dims) {
        check_q8(dim, test::random_values(1 << 14, 1));
    }
}

TEST_CASE("codec: a q8 row is 0 where its scale is no normal number, and NaN where an element is no finite one") {
    constexpr float smallest = std::numeric_limits<float>::min();
    for (const uint32_t dim : dims) {
        for (const float largest : {0.0f, -0.0f, 1e-45f, smallest, 126 * smallest, 127 * smallest, 128 * smallest, 3e38f,
                                    std::numeric_limits<float>::max(), HUGE_VALF, -HUGE_VALF,
                                    std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()}) {
            for (const size_t at : {size_t{0}, size_t{dim - 1}}) {
                Floats x(4 * dim, 0.0f);
                x[at] = largest;
                x[2 * dim + at] = -largest;
                check_q8(dim, x);
            }
        }
    }
}

// What q4's codes stand for, times a group's step.
constexpr int q4_levels[] = {-127, -108, -90, -73, -57, -42, -28, -14, 0, 14, 28, 42, 57, 73, 90, 108};

// An element that is x steps may have another level than the nearest where that is farther from it by this much at most.
constexpr double level_excess = 5.0 / 7;

double distance_to_nearest(double x) {
    double least = HUGE_VAL;
    for (const int level : q4_levels) {
        least = std::min(least, std::abs(x - level));
    }
    return least;
}

// The level of an element of x steps: a quadratic beyond +-49.5 and a line between, rounded, number the levels from that of
// 0.
double level_of(double x) {
    const double beyond = std::max(std::abs(x) - 49.5, 0.0);
    const double index = std::min(std::abs(x), 49.5) * 3.5 / 49.5 + beyond * (0.0662 - 1.084e-4 * beyond);
    return q4_levels[8 + static_cast<int>(std::clamp(std::nearbyint(std::copysign(index, x)), -8.0, 7.0))];
}

// The step of least squared error for the levels that elements have by a step tried, and by how much it lowers that error.
struct Fit {
    double step, gain;
};

// With the step tried as it is, and a little smaller and larger: an element halfway between levels may have either.
std::vector<Fit> fits(std::span<const float> group, double tried) {
    std::vector<Fit> all;
    for (const double factor : {1 - 1e-6, 1.0, 1 + 1e-6}) {
        double products = 0, squares = 0;
        for (const float x : group) {
            const double level = level_of(x / (tried * factor));
            products += x * level;
            squares += level * level;
        }
        all.push_back({products / squares, products * products / squares});
    }
    return all;
}

// The steps that a q4 group may have: its largest element, which has the sign of -127, is -128 steps or -108; of the two
// fits that follow the better counts. Those that are as good, but for rounding, are all returned.
std::vector<double> best_steps(std::span<const float> group) {
    constexpr float smallest = std::numeric_limits<float>::min();
    const auto [least, most] = std::ranges::minmax(group);
    const float largest = most > -least ? most : least;
    if (std::abs(largest) / 128 < smallest) {
        return {0};
    }
    const std::vector<Fit> first = fits(group, -largest / 128.0), second = fits(group, -largest / 108.0);
    std::vector<double> best;
    for (const auto &[some, others] : {std::pair(first, second), std::pair(second, first)}) {
        const double to_reach = std::ranges::min(others, {}, &Fit::gain).gain;
        for (const Fit &fit : some) {
            if (fit.gain >= (1 - 1e-5) * to_reach) {
                best.push_back(std::abs(fit.step) < smallest ? 0 : fit.step);
            }
        }
    }
    return best;
}

// Sees that a group that was x is stored and read back as q4 defines it, by one of these steps, given its row's scale.
void check_q4_group(std::span<const float> x, const std::vector<double> &steps, uint32_t group, const StoredTiles &tiles,
                    bool keys, int64_t token, uint32_t head, std::span<const float> read) {
    const float scale = tiles.scale(keys, token, head);
    const int multiplier = tiles.multiplier(keys, token, head, group);
    CHECK(std::ranges::any_of(
        steps, [=](double best) { return std::abs(multiplier - (scale > 0 ? best / scale * 128 : 0)) <= 0.5001; }));
    const double step = double{scale} * multiplier / 128;
    size_t n_wrong = 0;
    for (uint32_t d = 0; d < x.size(); ++d) {
        const int of_code = q4_levels[tiles.bits(keys, token, head, 32 * group + d)];
        const double level = x[d] / step;
        n_wrong += step != 0 && std::abs(level - of_code) > distance_to_nearest(level) + level_excess + 1e-4;
        n_wrong += read[d] != scale * (static_cast<float>(of_code * multiplier) / 128);
    }
    CHECK(n_wrong == 0);
}

float largest_magnitude(std::span<const float> x) {
    float largest = 0;
    for (const float value : x) {
        largest = std::max(largest, std::abs(value));
    }
    return largest;
}

// The same of a row, whose scale is its largest step times 128 / 127.
void check_q4_row(std::span<const float> x, const StoredTiles &tiles, bool keys, int64_t token, uint32_t head,
                  std::span<const float> read) {
    const float scale = tiles.scale(keys, token, head);
    if (!std::ranges::all_of(x, [](float value) { return std::isfinite(value); })) {
        CHECK(std::isnan(scale));
        CHECK(std::ranges::all_of(read, [](float value) { return std::isnan(value); }));
        return;
    }
    bool is_of_a_group = false;
    const float largest = largest_magnitude(x);
    for (uint32_t first = 0; first < x.size(); first += 32) {
        const size_t n = std::min<size_t>(32, x.size() - first);
        const float bound = 0.22f * largest_magnitude(x.subspan(first, n)) + largest / 100;
        const std::vector<double> steps = best_steps(x.subspan(first, n));
        is_of_a_group |= std::ranges::any_of(
            steps, [=](double step) { return std::abs(std::abs(step) * 128 / 127 - scale) <= 1e-5 * scale; });
        for (size_t d = first; std::ranges::find(steps, 0) == steps.end() && d < first + n; ++d) {
            CHECK(std::abs(read[d] - x[d]) <= bound);
        }
        check_q4_group(x.subspan(first, n), steps, first / 32, tiles, keys, token, head, read.subspan(first, n));
    }
    CHECK(is_of_a_group);
}

void check_q4(uint32_t dim, const Floats &x) { check_rows(Format::q4, dim, x, check_q4_row); }

TEST_CASE("q4 is a scale a row and a multiplier a group, times 16 levels, by the better of two least-squares fits") {
    for (const uint32_t dim : {1u, 2u, 7u, 31u, 32u, 33u, 63u, 64u, 80u, 128u, 576u, 1024u}) {
        check_q4(dim, test::random_values(80 * size_t{dim}, 1));
    }
}

TEST_CASE("codec: q4 groups of few different elements, halfway between levels or beyond them, are within its bound") {
    constexpr float some[] = {-128, 128, 127, -117.5f, 98.8f, -65, 65, -49.5f, 49.6f, 35.4f, -22.6f, 22.5f, 8.3f, 7, 0};
    std::mt19937 random(1);
    Floats x(4000 * 128);
    float likely = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        likely = i % 32 == 0 ? some[random() % std::size(some)] : likely;  // three quarters of a group
        x[i] = (random() % 4 != 0 ? likely : some[random() % std::size(some)]) * (random() % 2 != 0 ? 1.0f : -1.0f) +
               static_cast<float>(random() % 64) / 512;
    }
    check_q4(128, x);
}

TEST_CASE("codec: a q4 element has the nearest of 16 levels, or one that is farther by 5/7 of a step at most") {
    constexpr uint32_t dim = 32;
    Floats x;  // every group goes over the levels, beside a largest element
    for (int row = 0; row < 4096; ++row) {
        for (uint32_t d = 0; d < dim; ++d) {
            x.push_back(d == 0 ? -128.0f : static_cast<float>(8 * (d - 1.0) - 124 + row / 512.0));
        }
    }
    const Cache cache = stored_rows(Format::q4, dim, x);
    const StoredTiles tiles(cache);
    double largest = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        const auto row = static_cast<int64_t>(i / dim);
        const auto token = row / 2;
        const auto head = static_cast<uint32_t>(row % 2);
        const double step = double{tiles.scale(true, token, head)} * tiles.multiplier(true, token, head, 0) / 128;
        const double level = x[i] / step;
        const int of_code = q4_levels[tiles.bits(true, token, head, static_cast<uint32_t>(i % dim))];
        largest = std::max(largest, std::abs(level - of_code) - distance_to_nearest(level));
    }
    CHECK(largest == doctest::Approx(level_excess).epsilon(0.01));
}

TEST_CASE("codec: a q4 row times a power of two has the same codes and multipliers") {
    constexpr uint32_t dim = 80;
    const Floats x = test::random_values(80 * size_t{dim}, 1);
    const Cache cache = stored_rows(Format::q4, dim, x);
    for (const int exponent : {-118, -60, -10, 10, 60, 120}) {
        CAPTURE(exponent);
        Floats scaled = x;
        std::ranges::for_each(scaled, [=](float &value) { value = std::ldexp(value, exponent); });
        const Floats read = stored_rows(Format::q4, dim, scaled).read_k(0);
        Floats want = cache.read_k(0);
        std::ranges::for_each(want, [=](float &value) { value = std::ldexp(value, exponent); });
        CHECK(test::same_bits(read, want));
    }
}

TEST_CASE("codec: groups of a q4 row that differ in size are as exact as it allows, down to the smallest scale") {
    constexpr uint32_t dim = 64;
    for (const int exponent : {-118, -115, 0, 120}) {
        for (const int smaller : {1, 3, 5, 7}) {
            Floats x = test::random_values(40 * size_t{dim}, 1);
            for (size_t i = 0; i < x.size(); ++i) {
                x[i] = std::ldexp(x[i], exponent - (i % dim < 32 ? smaller : 0));
            }
            CAPTURE(exponent);
            CAPTURE(smaller);
            check_q4(dim, x);
        }
    }
}

TEST_CASE("codec: a q4 row is 0 where its scale is no normal number, and NaN where an element is no finite one") {
    for (const uint32_t dim : {1u, 33u, 64u}) {
        for (const float largest :
             {0.0f, 1e-45f, std::numeric_limits<float>::min(), 1e-36f, 2e-36f, std::numeric_limits<float>::max(), HUGE_VALF,
              -HUGE_VALF, std::numeric_limits<float>::quiet_NaN()}) {
            for (const size_t at : {size_t{0}, size_t{dim - 1}}) {
                Floats x(4 * dim, 0.0f);
                x[at] = largest;
                x[2 * dim + at] = -largest;
                check_q4(dim, x);
            }
        }
    }
}

TEST_CASE("codec: the padding of tiles stays zero, whatever they hold") {
    for (const Format format : formats) {
        for (const uint32_t dim : dims) {
            INFO(std::string(test::name_of(format)) << ", rows of " << dim);
            Cache cache = stored_rows(format, dim, random_bits(150 * 2 * dim, 3));
            const StoredTiles tiles(cache);
            CHECK(tiles.is_zero_beside(150, 151));
            cache.truncate(67);
            const Floats others = random_bits(20 * dim, 4);
            cache.append(0, others, others);
            cache.advance(10);
            CHECK(tiles.is_zero_beside(77, 128));
        }
    }
}

TEST_CASE("codec: a Hadamard rotation spreads what is stored over its block, and what is read is rotated back") {
    for (const uint32_t dim : dims) {
        for (const uint32_t at : {0u, dim / 2, dim - 1}) {
            Cache cache(1, {1, dim, dim, Format::f32, Format::f32, kvlane::Rotation::hadamard, kvlane::Rotation::hadamard},
                        1);
            Floats x(dim, 0.0f);
            x[at] = 3;
            cache.append(0, x, x);
            // Blocks are the powers of two of dim, the largest first.
            uint32_t first = 0, size = std::bit_floor(dim);
            while (at >= first + size) {
                first += size;
                size = std::bit_floor(dim - first);
            }
            const float magnitude = 3 / std::sqrt(static_cast<float>(size));
            const StoredTiles tiles(cache);
            for (const bool keys : {true, false}) {
                for (uint32_t d = 0; d < dim; ++d) {
                    const float stored = std::abs(std::bit_cast<float>(tiles.bits(keys, 0, 0, d)));
                    CHECK(stored == doctest::Approx(d >= first && d < first + size ? magnitude : 0).epsilon(1e-6));
                }
            }
        }
        const auto n_tokens = 20;
        Cache cache(1, {1, dim, dim, Format::f32, Format::f32, kvlane::Rotation::hadamard, kvlane::Rotation::none},
                    n_tokens);
        const Floats x = test::random_values(size_t{dim} * n_tokens, 1);
        cache.append(0, x, x);
        CHECK(cache.info(0).k_rotation == KVL_ROTATION_HADAMARD);
        CHECK(cache.info(0).v_rotation == KVL_ROTATION_NONE);
        CHECK(test::same_bits(cache.read_v(0), x));
        const Floats back = cache.read_k(0);
        for (size_t i = 0; i < x.size(); ++i) {
            CHECK(std::abs(back[i] - x[i]) <= 4e-6f);
        }
    }
}

TEST_CASE(
    "codec: rotated rows bear elements of 0.9 of the largest f32 / sqrt(dim); larger ones come back infinite or NaN, not "
    "wrong") {
    constexpr float largest = std::numeric_limits<float>::max();
    for (const uint32_t dim : {8u, 64u, 128u}) {
        const float borne = 0.9f * largest / std::sqrt(static_cast<float>(dim));
        for (const Format format : {Format::q8, Format::q4}) {
            for (const float sign : {1.0f, -1.0f}) {
                Cache cache(1, {1, dim, dim, format, format, kvlane::Rotation::hadamard, kvlane::Rotation::hadamard}, 3);
                Floats x(3 * dim, sign * borne);
                std::fill_n(x.begin() + dim, dim, sign * largest);
                std::fill_n(x.begin() + 2 * dim, dim, 0.0f);
                x[2 * dim] = sign * largest;  // alone
                cache.append(0, x, x);
                const Floats back = cache.read_k(0);
                for (uint32_t d = 0; d < dim; ++d) {
                    CHECK(std::abs(back[d] / (sign * borne) - 1) <= 0.1f);
                    CHECK(std::isnan(back[dim + d]));
                }
                const float alone = sign * back[2 * dim];
                CHECK((std::isnan(alone) || alone >= 0.9f * largest));
            }
        }
    }
}

TEST_CASE("codec: by default keys of q8 and q4 and values of q4 are rotated") {
    for (const Format format : formats) {
        const kvl_layer_info info = Cache(1, {1, 8, 8, format, format}, 1).info(0);
        const bool is_integer = test::is_scaled(format);
        CHECK(info.k_rotation == (is_integer ? KVL_ROTATION_HADAMARD : KVL_ROTATION_NONE));
        CHECK(info.v_rotation == (format == Format::q4 ? KVL_ROTATION_HADAMARD : KVL_ROTATION_NONE));
    }
}

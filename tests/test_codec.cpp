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
#include "support.hpp"

using kvlane::Cache;
using kvlane::Format;

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
        const kvl_view view = cache.view(0);
        size_t n_wrong = 0;
        for (uint32_t h = 0; h < x.size(); ++h) {
            const uint32_t token = h / (2 * dim);
            const uint32_t head = h / dim % 2;
            uint16_t got;
            std::memcpy(&got,
                        static_cast<const std::byte *>(view.spans[0].k) + token * view.k_token_stride_bytes +
                            head * view.k_head_stride_bytes + h % dim * sizeof got,
                        sizeof got);
            n_wrong += got != (format.is_nan(static_cast<uint16_t>(h)) ? h | format.quiet_bit() : h);
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
            integers.push_back(scale > 0 ? static_cast<int>(std::nearbyint(value / scale)) : 0);
        }
    }
};

// Sees that rows of `dim` of x are stored and read back as q8 defines it.
void check_q8(uint32_t dim, Floats x) {
    Floats behind;
    const Cache cache = stored(Format::q8, dim, x, behind);
    const kvl_view view = cache.view(0);
    const Floats read = cache.read_k(0);
    for (size_t row = 0; row < x.size() / dim; ++row) {
        INFO("row " << row << " of " << dim << ", from " << hex(x[row * dim]));
        const Q8Row want(std::span<const float>(x).subspan(row * dim, dim));
        const auto token = static_cast<int64_t>(row / 2), head = static_cast<int64_t>(row % 2);
        float scale;
        std::memcpy(&scale,
                    static_cast<const std::byte *>(view.spans[0].k_scales) + token * view.k_scale_token_stride_bytes +
                        head * view.k_scale_head_stride_bytes,
                    sizeof scale);
        CHECK((std::isnan(want.scale) ? std::isnan(scale) : scale == want.scale));
        const auto *integers = static_cast<const int8_t *>(view.spans[0].k) + token * view.k_token_stride_bytes +
                               head * view.k_head_stride_bytes;
        size_t n_wrong = 0;
        for (uint32_t d = 0; d < dim; ++d) {
            const float value = read[row * dim + d];
            n_wrong += std::isnan(want.scale)
                           ? !std::isnan(value)
                           : integers[d] != want.integers[d] || value != want.scale * static_cast<float>(want.integers[d]);
        }
        CHECK(n_wrong == 0);
    }
}

TEST_CASE("q8 is the row's largest magnitude over 127, times the nearest integers, ties to even") {
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

// A q4 row by its definition: groups of up to 32 elements, the first half of each in the lower 4 bits.
struct Q4Row {
    float scale;
    std::vector<int> multipliers;
    Floats values;
    std::vector<uint8_t> bytes;

    explicit Q4Row(std::span<const float> x) {
        const auto largest_of = [](std::span<const float> some) {
            float largest = 0;
            for (const float value : some) {
                largest = std::isfinite(value) ? std::max(largest, std::abs(value)) : HUGE_VALF;
            }
            return largest;
        };
        scale = largest_of(x) / (7.5f * 15);
        scale = std::isinf(scale) ? std::numeric_limits<float>::quiet_NaN() : scale;
        scale = scale < std::numeric_limits<float>::min() ? 0 : scale;
        for (size_t first = 0; first < x.size(); first += 32) {
            const std::span<const float> group = x.subspan(first, std::min<size_t>(32, x.size() - first));
            const float needed = std::ceil(largest_of(group) / (7.5f * scale));
            const int multiplier = scale > 0 ? static_cast<int>(std::min(needed, 15.0f)) : 0;
            const float step = static_cast<float>(multiplier) * scale;
            std::vector<int> numbers;
            for (const float value : group) {
                numbers.push_back(step > 0 ? std::min(7, static_cast<int>(std::nearbyint(value / step))) : 0);
                values.push_back(scale * static_cast<float>(multiplier * numbers.back()));
            }
            const size_t half = (group.size() + 1) / 2;
            numbers.resize(2 * half);
            for (size_t i = 0; i < half; ++i) {
                bytes.push_back(static_cast<uint8_t>((numbers[i] + 8) | (numbers[half + i] + 8) << 4));
            }
            multipliers.push_back(multiplier);
        }
    }
};

// Sees that rows of `dim` of x, which are not rotated, are stored and read back as q4 defines it.
void check_q4(uint32_t dim, const Floats &x) {
    const auto n_tokens = static_cast<int64_t>(x.size() / dim);
    const auto none = kvlane::Rotation::none;
    Cache cache(1, {1, dim, dim, Format::q4, Format::q4, none, none}, n_tokens);
    cache.append(0, x, x);
    const kvl_view view = cache.view(0);
    const Floats read = cache.read_k(0);
    CHECK(test::same_bits(read, cache.read_v(0)));
    for (int64_t t = 0; t < n_tokens; ++t) {
        INFO("row " << t << " of " << dim << ", from " << hex(x[static_cast<size_t>(t) * dim]));
        const Q4Row want(std::span<const float>(x).subspan(static_cast<size_t>(t) * dim, dim));
        const auto *entry = static_cast<const std::byte *>(view.spans[0].k_scales) + t * view.k_scale_token_stride_bytes;
        float scale;
        std::memcpy(&scale, entry, sizeof scale);
        CHECK((std::isnan(want.scale) ? std::isnan(scale) : scale == want.scale));
        for (size_t g = 0; g < want.multipliers.size(); ++g) {
            CHECK(static_cast<int>(entry[sizeof scale + g]) == want.multipliers[g]);
        }
        const std::span<const float> got = std::span(read).subspan(static_cast<size_t>(t) * dim, dim);
        if (std::isnan(want.scale)) {
            CHECK(std::all_of(got.begin(), got.end(), [](float value) { return std::isnan(value); }));
        } else {
            CHECK(std::memcmp(static_cast<const std::byte *>(view.spans[0].k) + t * view.k_token_stride_bytes,
                              want.bytes.data(), want.bytes.size()) == 0);
            CHECK(std::equal(got.begin(), got.end(), want.values.begin()));
        }
    }
}

TEST_CASE("q4 is a scale a row and a multiplier a group, times numbers of 4 bits, rounded to nearest, ties to even") {
    for (const uint32_t dim : {1u, 2u, 7u, 31u, 32u, 33u, 63u, 64u, 80u, 128u, 576u, 1024u}) {
        check_q4(dim, test::random_values(40 * size_t{dim}, 1));
    }
    Floats ties(32, 0.5f);  // of a step of 1
    for (int i = 0; i < 16; ++i) {
        ties[static_cast<size_t>(i)] = static_cast<float>(i) - 7.5f;
    }
    check_q4(32, ties);
}

TEST_CASE("codec: a q4 row is 0 where its scale is no normal number, and NaN where an element is no finite one") {
    for (const uint32_t dim : {1u, 33u, 64u}) {
        for (const float largest :
             {0.0f, 1e-45f, std::numeric_limits<float>::min(), 1e-36f, 2e-36f, std::numeric_limits<float>::max(), HUGE_VALF,
              -HUGE_VALF, std::numeric_limits<float>::quiet_NaN()}) {
            for (const size_t at : {size_t{0}, size_t{dim - 1}}) {
                Floats x(2 * dim, 0.0f);
                x[at] = largest;
                x[dim + at] = -largest;
                check_q4(dim, x);
            }
        }
    }
}

TEST_CASE("codec: the padding behind rows stays zero") {
    for (const Format format : formats) {
        for (const uint32_t dim : dims) {
            INFO(std::string(test::name_of(format)) << ", rows of " << dim);
            Floats k = random_bits(40 * 2 * dim, 3);
            Floats v;
            Cache cache = stored(format, dim, k, v);
            cache.truncate(3);
            cache.append(0, std::span(v).subspan(0, 20 * dim), std::span(k).subspan(0, 20 * dim));
            cache.advance(10);
            const kvl_view view = cache.view(0);
            const auto row_bytes = static_cast<int64_t>(test::row_bytes(static_cast<kvl_format>(format), dim));
            const auto is_padded = [&](const void *plane, int64_t token_stride, int64_t head_stride) {
                for (int64_t head = 0; head < 2; ++head) {
                    for (int64_t token = 0; token < 40; ++token) {
                        const auto *row = static_cast<const std::byte *>(plane) + head * head_stride + token * token_stride;
                        if (!std::all_of(row + row_bytes, row + token_stride,
                                         [](std::byte b) { return b == std::byte{0}; })) {
                            return false;
                        }
                    }
                }
                return true;
            };
            CHECK(is_padded(view.spans[0].k, view.k_token_stride_bytes, view.k_head_stride_bytes));
            CHECK(is_padded(view.spans[0].v, view.v_token_stride_bytes, view.v_head_stride_bytes));
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
            const kvl_view view = cache.view(0);
            for (const void *row : {view.spans[0].k, view.spans[0].v}) {
                for (uint32_t d = 0; d < dim; ++d) {
                    const float stored = std::abs(static_cast<const float *>(row)[d]);
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

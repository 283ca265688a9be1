// The exponentials that the softmax takes: 2^x for x <= 0, of the isa in force.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <tuple>

#include "functions.hpp"
#include "support.hpp"

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

auto exp2_in_force() { return test::functions_in_force().exp2; }

float exp2_of(float x) {
    const std::vector<float> xs(16, x);
    std::vector<float> ys(16);
    exp2_in_force()(xs.data(), ys.data(), 16);
    return ys[0];
}

struct Worst {
    double error = 0;
    float x = 0;
};

/// The largest error(x, 2^x as the library has it) over every step-th float from `from` to `to`, farther from 0 on the same
/// side.
template <class Error>
Worst worst_of(float from, float to, uint32_t step, Error error) {
    const auto exp2 = exp2_in_force();
    constexpr int block = 4096;
    std::vector<float> x(block), y(block);
    const uint64_t last = std::bit_cast<uint32_t>(to);
    Worst worst;
    for (uint64_t bits = std::bit_cast<uint32_t>(from); bits <= last;) {
        for (float &each : x) {
            each = std::bit_cast<float>(static_cast<uint32_t>(std::min(bits, last)));
            bits += step;
        }
        exp2(x.data(), y.data(), block);
        for (int i = 0; i < block; ++i) {
            if (const double e = error(x[i], y[i]); !(e <= worst.error)) {
                worst = {std::isnan(e) ? infinity : e, x[i]};
            }
        }
    }
    return worst;
}

double absolute_error(float x, float y) { return std::abs(y - std::exp2(static_cast<double>(x))); }

/// In units of the last place of floats as large as the exact value.
double ulp_error(float x, float y) { return std::ldexp(absolute_error(x, y), 23 - static_cast<int>(std::floor(x))); }

// Steps: odd, so that they meet all patterns of low bits. An emulator takes its time.
#if defined(KVLANE_TEST_EMULATED)
constexpr uint32_t dense = 61;
#else
constexpr uint32_t dense = 1;
#endif
constexpr uint32_t thin = 61 * dense;

}  // namespace

// The polynomial sees what the nearest whole number leaves of x. All that it can see stands in [-2, -1/16], but for numbers
// nearer to 0 with more digits, where its value is near 1; those are sampled, and what is above 0.
TEST_CASE("2^x is within 1.3 ulp where it is a normal number") {
    for (const auto &[from, to, step] :
         {std::tuple{-0x1p-4f, -2.0f, dense}, std::tuple{-0x1p-149f, -126.0f, thin}, std::tuple{0x1p-149f, 127.0f, thin}}) {
        const Worst worst = worst_of(from, to, step, ulp_error);
        CAPTURE(worst.x);
        CHECK(worst.error <= 1.3);
    }
}

TEST_CASE("2^x is within 2^-126.5 where it is less than a normal number") {
    const Worst worst = worst_of(-126.0f, -std::numeric_limits<float>::max(), thin, absolute_error);
    CAPTURE(worst.x);
    CHECK(worst.error <= std::exp2(-126.5));
}

TEST_CASE("2^0 is exactly 1") {
    CHECK(exp2_of(0.0f) == 1.0f);
    CHECK(exp2_of(-0.0f) == 1.0f);
}

TEST_CASE("2^x is exactly 0 far below 0, and at minus infinity") {
    for (const float x : {-160.0f, -1e4f, -0x1p31f, -std::numeric_limits<float>::max(), -infinity}) {
        CAPTURE(x);
        CHECK(std::bit_cast<uint32_t>(exp2_of(x)) == 0);
    }
}

TEST_CASE("2^x of a whole number is exact") {
    for (int n = -126; n <= 127; ++n) {
        CAPTURE(n);
        CHECK(exp2_of(static_cast<float>(n)) == std::ldexp(1.0f, n));
    }
}

TEST_CASE("2^NaN is NaN") { CHECK(std::isnan(exp2_of(std::numeric_limits<float>::quiet_NaN()))); }

// What the kernels of q8 and q4 take from an isa: products of words, levels of codes, sums of bytes.

#include <numeric>

#include "../kernels/q4_levels.hpp"
#include "functions.hpp"
#include "support.hpp"

TEST_CASE("words: products of 31 bits are rounded to their upper 16") {
    std::vector<int16_t> a, b;
    for (int multiplier = -127; multiplier <= 127; ++multiplier) {
        for (const int unit : {1, 256}) {
            for (int weight = -32767; weight <= 32767; weight += 97) {
                a.push_back(static_cast<int16_t>(weight));
                b.push_back(static_cast<int16_t>(multiplier * unit));
            }
        }
    }
    a.resize((a.size() + 31) / 32 * 32);
    b.resize(a.size());
    std::vector<int16_t> got(a.size());
    test::functions_in_force().multiply_words(a.data(), b.data(), got.data(), static_cast<int>(a.size()));
    size_t n_wrong = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        n_wrong += got[i] != (a[i] * b[i] + (1 << 14)) >> 15;
    }
    CHECK(n_wrong == 0);
}

TEST_CASE("words: each half of a byte selects one of q4's levels") {
    std::vector<std::byte> codes(256), lower(256), upper(256);
    for (size_t i = 0; i < codes.size(); ++i) {
        codes[i] = static_cast<std::byte>(i);
    }
    test::functions_in_force().unpack_codes(codes.data(), lower.data(), upper.data(), 256);
    for (size_t i = 0; i < codes.size(); ++i) {
        CHECK(std::to_integer<int8_t>(lower[i]) == kvlane::q4::levels[i % 16]);
        CHECK(std::to_integer<int8_t>(upper[i]) == kvlane::q4::levels[i / 16]);
    }
}

TEST_CASE("words: signed bytes are summed") {
    std::vector<int8_t> x(1024);
    for (size_t i = 0; i < x.size(); ++i) {
        x[i] = static_cast<int8_t>(static_cast<int>(i * 37 % 255) - 127);
    }
    for (const int n : {16, 32, 48, 64, 80, 128, 1024}) {
        CHECK(test::functions_in_force().sum_of(x.data(), n) == std::accumulate(x.begin(), x.begin() + n, 0));
    }
}

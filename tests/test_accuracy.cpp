// What is lost by storing keys and values in few bits.

#include <doctest/doctest.h>

#include <cstdio>
#include <string>

#include "accuracy.hpp"

using kvlane::Format;
using kvlane::Rotation;

namespace {

// Of normal data, and of keys with outliers, without rotation and with it.
struct OfPair {
    double normal, normal_rotated, outliers, outliers_rotated;
};

OfPair of_pair(Format k, Format v) {
    return {test::errors_of({k, v, Rotation::none, false}).total, test::errors_of({k, v, Rotation::hadamard, false}).total,
            test::errors_of({k, v, Rotation::none, true}).total, test::errors_of({k, v, Rotation::hadamard, true}).total};
}

double bits_per_value(Format format) {
    return 8.0 *
           static_cast<double>(test::row_bytes(static_cast<kvl_format>(format), 128) +
                               test::entry_bytes(static_cast<kvl_format>(format), 128)) /
           128;
}

}  // namespace

TEST_CASE("accuracy: every pair of formats is within its bound, on normal data and with outliers") {
    // What one format alone, for keys or for values, may cost; of keys with outliers, where it is not rotated and where it
    // is.
    struct Bound {
        double keys, values, outliers, outliers_rotated;
    };
    constexpr Bound bounds[] = {{1e-6, 1e-6, 1e-5, 1e-5},
                                {4e-4, 4e-4, 1.5e-3, 1.5e-3},
                                {3e-3, 3e-3, 1.2e-2, 1.2e-2},
                                {8e-3, 8e-3, 8e-2, 2e-2},
                                {8.6e-2, 8.2e-2, 4.5e-1, 2e-1}};
    std::string table = "| keys | values | bits | normal | normal, rotated | outliers | outliers, rotated |\n";
    for (const Format k : test::all_formats()) {
        for (const Format v : test::all_formats()) {
            const OfPair e = of_pair(k, v);
            const Bound &of_k = bounds[static_cast<size_t>(k)], &of_v = bounds[static_cast<size_t>(v)];
            INFO(test::name_of(k) << "+" << test::name_of(v));
            CHECK(e.normal <= std::hypot(of_k.keys, of_v.values));
            CHECK(e.normal_rotated <= std::hypot(of_k.keys, of_v.values));
            CHECK(e.outliers <= std::hypot(of_k.outliers, of_v.values));
            CHECK(e.outliers_rotated <= std::hypot(of_k.outliers_rotated, of_v.values));
            char row[160];
            std::snprintf(row, sizeof row, "| %s | %s | %.2f | %.1e | %.1e | %.1e | %.1e |\n", test::name_of(k),
                          test::name_of(v), (bits_per_value(k) + bits_per_value(v)) / 2, e.normal, e.normal_rotated,
                          e.outliers, e.outliers_rotated);
            table += row;
        }
    }
    MESSAGE(table);
}

TEST_CASE("accuracy: q4 keys and values together cost at most 0.115 on normal data") {
    const OfPair e = of_pair(Format::q4, Format::q4);
    CHECK(e.normal <= 0.115);
    CHECK(e.normal_rotated <= 0.118);
}

TEST_CASE("accuracy: a rotation saves keys with outliers from the rounding to few bits") {
    for (const Format format : {Format::q8, Format::q4}) {
        const double plain = test::errors_of({format, Format::f32, Rotation::none, true}).total;
        const double rotated = test::errors_of({format, Format::f32, Rotation::hadamard, true}).total;
        INFO(test::name_of(format) << ": " << plain << ", rotated " << rotated);
        CHECK(rotated <= 0.8 * plain);
    }
}

TEST_CASE(
    "accuracy: integers' arithmetic costs a thousandth of what storing costs where it is exact, of 16 bits a fiftieth") {
    for (const Format k : {Format::f32, Format::q8, Format::q4}) {
        for (const Format v : {Format::f32, Format::q8, Format::q4}) {
            for (const bool has_outliers : {false, true}) {
                if (!test::is_scaled(k) && !test::is_scaled(v)) {
                    continue;
                }
                test::Storing storing{k, v, Rotation::by_format, has_outliers};
                const test::Errors exact = test::errors_of(storing);
                storing.precision = kvlane::Precision::by_format;
                const test::Errors by_default = test::errors_of(storing);
                INFO(test::name_of(k) << "+" << test::name_of(v) << ": " << exact.of_arithmetic << " and "
                                      << by_default.of_arithmetic << " of " << exact.total);
                CHECK(exact.of_arithmetic < 1e-3 * exact.total);
                const bool may_be_of_8_bits = test::is_scaled(k) && test::is_scaled(v);
                CHECK((may_be_of_8_bits || by_default.of_arithmetic <= 0.02 * by_default.total));
            }
        }
    }
}

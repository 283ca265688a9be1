// What the demo says of a row: of one that was disturbed, of one that is wrong, and of one that is very slow.

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "demo_report.hpp"

namespace {

bench::DemoRow good_row() {
    bench::DemoRow row{};
    row.shape = {bench::model_of("qwen3-30b-a3b"), kvlane::Format::bf16, kvlane::Format::bf16, 1048576, 2, true};
    row.decode = {.seconds = 123456.7e-6,
                  .kv_bytes_per_second = 21.9e9,
                  .roofline_bytes_per_second = 30e9,
                  .multiply_adds_per_second = 100e9,
                  .roofline_fraction = 0.73,
                  .limit_fraction = 0.73,
                  .concurrency = 0.98};
    row.naive_seconds = 3 * row.decode.seconds;
    row.difference = 1e-6;
    row.largest_difference = 1e-4;
    row.spread = 0.1;
    return row;
}

}  // namespace

TEST_CASE("a row of calls that had their cores is neither disturbed nor wrong, and fits into 80 columns") {
    const bench::DemoRow row = good_row();
    CHECK_FALSE(row.is_disturbed());
    CHECK(row.is_right());
    CHECK(bench::table_row(row).find(" 21.9 ") != std::string::npos);
    CHECK(bench::table_row(row).size() <= 76);
}

TEST_CASE("a row is disturbed where times spread, threads did not run side by side, or it is faster than the limit") {
    bench::DemoRow spread = good_row(), alone = good_row(), fast = good_row();
    spread.spread = 0.5;
    alone.decode.concurrency = 0.5;
    fast.decode.limit_fraction = 1.2;
    for (const bench::DemoRow &row : {spread, alone, fast}) {
        CHECK(row.is_disturbed());
        CHECK(bench::table_row(row).ends_with(" ~"));
        CHECK(bench::table_row(row).size() <= 80);
    }
}

TEST_CASE("a row is wrong where its error is too large, or is NaN") {
    for (const double difference : {1e-3, std::nan("")}) {
        bench::DemoRow row = good_row();
        row.difference = difference;
        CHECK_FALSE(row.is_right());
        CHECK(bench::table_row(row).ends_with(" !"));
    }
}

TEST_CASE("a rate is never shown as 0: a call that is a thousand times slower has its digits") {
    bench::DemoRow row = good_row();
    row.decode.kv_bytes_per_second = 0.0219e9;
    CHECK(bench::table_row(row).find(" 0.0219 ") != std::string::npos);
}

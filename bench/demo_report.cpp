#include "demo_report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "system.hpp"

namespace bench {
namespace {

// Beyond these a row is disturbed. Calls that had their cores spread by 0.02 to 0.3, with a concurrency of 0.9 to 1, on a
// shared virtual machine of two cores; a core that is taken for good makes no spread, but halves the concurrency.
constexpr double largest_spread = 0.4;
constexpr double least_concurrency = 0.8;
constexpr double largest_limit_fraction = 1.1;  // over 1 the calls had what the limits' samples had not

// Three digits, in six columns.
std::string rate(double gigabytes_per_second) {
    const double magnitude = std::floor(std::log10(std::max(gigabytes_per_second, 1e-3)));
    const int decimals = std::clamp(2 - static_cast<int>(magnitude), 1, 4);
    char text[32];
    std::snprintf(text, sizeof text, "%.*f", decimals, gigabytes_per_second);
    return text;
}

}  // namespace

bool DemoRow::is_disturbed() const {
    return spread > largest_spread || decode.concurrency < least_concurrency ||
           decode.limit_fraction > largest_limit_fraction;
}

bool all_right(const std::vector<DemoRow> &rows) { return std::ranges::all_of(rows, &DemoRow::is_right); }

void print_table_head(int threads) {
    std::printf("kvlane %s, isa %s, %d thread%s; keys and values come from memory\n\n", kvl_version(),
                kvlane::isa_in_force(), threads, threads == 1 ? "" : "s");
    std::printf("%-13s %-6s %7s %9s %6s %8s %5s %7s %7s\n", "model", "format", "context", "us/layer", "GB/s", "roofline",
                "limit", "x naive", "error");
}

std::string table_row(const DemoRow &row) {
    char text[128];
    std::snprintf(text, sizeof text, "%-13s %-6s %7lld %9.1f %6s %7.0f%% %4.0f%% %7.1f %7.1e%s%s", row.shape.model.name,
                  row.shape.format_name().c_str(), static_cast<long long>(row.shape.ctx), row.decode.seconds * 1e6,
                  rate(row.decode.kv_bytes_per_second / 1e9).c_str(), 100 * row.decode.roofline_fraction,
                  100 * row.decode.limit_fraction, row.naive_seconds / row.decode.seconds, row.difference,
                  row.is_disturbed() ? " ~" : "", row.is_right() ? "" : " !");
    return text;
}

void print_table_legend(const std::vector<DemoRow> &rows) {
    const auto n_wrong = std::ranges::count_if(rows, [](const DemoRow &row) { return !row.is_right(); });
    const auto n_disturbed = std::ranges::count_if(rows, &DemoRow::is_disturbed);
    std::puts(
        "\n"
        "us/layer  microseconds of one token's attention through one layer, the median\n"
        "GB/s      bytes of keys and values read, over that time\n"
        "roofline  share of the read bandwidth measured in the same run\n"
        "limit     share of what bandwidth and multiply-add peak allow together\n"
        "x naive   times as fast as a loop over one head at a time; of q8 and q4: as that\n"
        "          loop over f16\n"
        "error     relative, from the scalar reference");
    if (n_disturbed > 0) {
        std::printf(
            "~         disturbed, not what the machine can do: half of the times lie more\n"
            "          than %.0f %% of the median apart, or threads ran side by side less than\n"
            "          %.0f %% of the time, or limit is over %.0f %%; run it again\n",
            100 * largest_spread, 100 * least_concurrency, 100 * largest_limit_fraction);
    }
    if (n_wrong > 0) {
        std::printf("!         WRONG: the error is larger than the format allows\n\n%lld of %zu results are WRONG\n",
                    static_cast<long long>(n_wrong), rows.size());
    } else {
        std::puts("\nAll results are right.");
    }
}

namespace {

nlohmann::ordered_json json_of(const DemoRow &row) {
    return {{"model", row.shape.model.name},
            {"n_query_heads", row.shape.model.n_query_heads},
            {"n_kv_heads", row.shape.model.n_kv_heads},
            {"head_dim", row.shape.model.head_dim},
            {"format", row.shape.format_name()},
            {"ctx", row.shape.ctx},
            {"repetitions", row.repetitions},
            {"median_seconds", row.decode.seconds},
            {"kv_bytes_per_second", row.decode.kv_bytes_per_second},
            {"roofline_bytes_per_second", row.decode.roofline_bytes_per_second},
            {"multiply_adds_per_second", row.decode.multiply_adds_per_second},
            {"roofline_fraction", row.decode.roofline_fraction},
            {"limit_fraction", row.decode.limit_fraction},
            {"naive_seconds", row.naive_seconds},
            {"naive_format", row.shape.is_quantized() ? "f16" : row.shape.format_name()},
            {"error", row.difference},
            {"largest_error_allowed", row.largest_difference},
            {"is_right", row.is_right()},
            {"spread", row.spread},
            {"concurrency", row.decode.concurrency},
            {"is_disturbed", row.is_disturbed()}};
}

}  // namespace

void print_json(const std::vector<DemoRow> &rows, int threads) {
    nlohmann::ordered_json document{{"context",
                                     {{"kvlane_version", kvl_version()},
                                      {"kvlane_isa", kvlane::isa_in_force()},
                                      {"threads", threads},
                                      {"num_cpus", tbb::info::default_concurrency()},
                                      {"cold_bytes", cold_bytes()},
                                      {"largest_spread", largest_spread},
                                      {"least_concurrency", least_concurrency},
                                      {"largest_limit_fraction", largest_limit_fraction}}},
                                    {"is_right", all_right(rows)},
                                    {"rows", nlohmann::ordered_json::array()}};
    for (const DemoRow &row : rows) {
        document["rows"].push_back(json_of(row));
    }
    std::puts(document.dump(2).c_str());
}

Progress::Progress(size_t n_rows) : n_rows_(n_rows), started_(now()), is_shown_(stderr_is_terminal()) {}

void Progress::start(size_t row) {
    if (!is_shown_) {
        return;
    }
    if (row == 0) {
        std::fprintf(stderr, "1 of %zu", n_rows_);
    } else {
        const double seconds_a_row = (now() - started_) / static_cast<double>(row);
        std::fprintf(stderr, "%zu of %zu, about %.0f s left", row + 1, n_rows_,
                     seconds_a_row * static_cast<double>(n_rows_ - row));
    }
    std::fflush(stderr);
}

void Progress::erase() const {
    if (is_shown_) {
        std::fprintf(stderr, "\r%60s\r", "");
        std::fflush(stderr);
    }
}

}  // namespace bench

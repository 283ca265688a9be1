#include "demo_table.hpp"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "timing.hpp"

namespace bench {
namespace {

constexpr int most_repetitions = 30;
constexpr int least_repetitions = 2 * n_read_variants;  // two samples of each way to read

// How far outputs may be from the scalar reference: sums of f32 in another order differ by far less; for integers, which
// queries and weights are rounded for, it is what the library promises of their precision.
double largest_difference(const Shape &shape, bool is_fast) { return is_fast ? 2e-2 : shape.is_quantized() ? 2e-4 : 1e-4; }

// Makes calls until the deadline, but no fewer than the least repetitions.
void measure_calls(DecodeCase &decode, DecodeCase &naive, double deadline, DemoRow &row) {
    std::vector<double> decode_seconds, naive_seconds;
    decode.forget();
    for (int i = 0; i < most_repetitions && (i < least_repetitions || now() < deadline); ++i) {
        decode_seconds.push_back(decode.time_decode());
        decode.sample_limits();
        if (i % 3 == 0) {
            naive_seconds.push_back(naive.time_naive());
        }
    }
    row.repetitions = static_cast<int>(decode_seconds.size());
    row.decode = decode.figures(median(decode_seconds));
    row.spread = (quantile(decode_seconds, 0.75) - quantile(decode_seconds, 0.25)) / row.decode.seconds;
    row.naive_seconds = median(naive_seconds);
}

// The naive attention's case, which rows that follow each other share where they can: to fill it takes longer than to
// measure it.
class NaiveCase {
public:
    DecodeCase &of(const Shape &shape) {
        if (!held_ || !(held_->shape() == in_rows(shape))) {
            held_.reset();  // there is memory for one at a time
            held_.emplace(in_rows(shape));
        }
        return *held_;
    }

private:
    std::optional<DecodeCase> held_;
};

DemoRow measure(const Shape &shape, NaiveCase &naive_case, double deadline) {
    DemoRow row{};
    row.shape = shape;
    DecodeCase &naive = naive_case.of(shape);
    DecodeCase decode(shape);
    row.difference = decode.error_against_reference();
    row.largest_difference = largest_difference(shape, decode.is_fast());
    measure_calls(decode, naive, deadline, row);
    return row;
}

}  // namespace

// Every row has its share of the time that is left.
std::vector<DemoRow> run_table(const DemoOptions &options) {
    const std::vector<Shape> shapes = shapes_of(options);
    check_memory(shapes);
    if (!options.json) {
        print_table_head(options.threads);
    }
    std::vector<DemoRow> rows;
    NaiveCase naive;
    Progress progress(shapes.size());
    const double end = now() + options.seconds;
    for (const Shape &shape : shapes) {
        progress.start(rows.size());
        const double start = now();
        rows.push_back(measure(shape, naive, start + (end - start) / static_cast<double>(shapes.size() - rows.size())));
        progress.erase();
        if (!options.json) {
            std::puts(table_row(rows.back()).c_str());
            std::fflush(stdout);
        }
    }
    options.json ? print_json(rows, options.threads) : print_table_legend(rows);
    return rows;
}

}  // namespace bench

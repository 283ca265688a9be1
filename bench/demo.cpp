// The main job, measured in a minute: decode attention at the geometry of real models, checked, beside the machine's limits.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <thread>

#include "decode_case.hpp"
#include "timing.hpp"

namespace bench {
namespace {

struct Options {
    std::vector<std::string> models{"llama-3-8b", "qwen2.5-0.5b", "llama-2-7b"};
    std::vector<int64_t> contexts{512, 2048, 8192};
    std::vector<std::string> formats{"f32", "f16", "bf16", "q8", "q4"};
    int threads = static_cast<int>(std::thread::hardware_concurrency());
};

constexpr int n_repetitions = 30;

// How far outputs may be from the scalar reference: sums of f32 in another order differ by far less; for integers, which
// queries and weights are rounded for, it is what the library promises of their precision.
double largest_difference(const Shape &shape, bool is_fast) {
    const auto has = [&](kvlane::Format format) { return shape.k_format == format || shape.v_format == format; };
    const bool has_integers = has(kvlane::Format::q8) || has(kvlane::Format::q4);
    return is_fast ? 2e-2 : has_integers ? 2e-4 : 1e-4;
}

struct Row {
    DecodeFigures decode;
    double naive_seconds;
    double difference;
    bool is_right;
};

Row measure(const Shape &shape) {
    DecodeCase c(shape);
    Row row{};
    row.difference = c.error_against_reference();
    row.is_right = row.difference <= largest_difference(shape, c.is_fast());
    std::vector<double> decode, naive;
    for (int i = 0; i < n_repetitions; ++i) {
        decode.push_back(c.time_decode());
        c.sample_limits();
        if (i % 3 == 0) {
            naive.push_back(c.time_naive());
        }
    }
    row.decode = c.figures(median(decode));
    row.naive_seconds = median(naive);
    return row;
}

void print_head(const Options &options) {
    std::printf("kvlane %s, isa %s, %d thread%s; keys and values come from memory\n\n", kvl_version(),
                kvlane::isa_in_force(), options.threads, options.threads == 1 ? "" : "s");
    std::printf("%-14s %-6s %7s %14s %7s %9s %7s %8s %11s\n", "model", "format", "context", "us/layer/token", "GB/s",
                "roofline", "limit", "x naive", "difference");
}

// Returns whether the result is right.
bool print_row(const Shape &shape) {
    std::fprintf(stderr, "%s %s %lld: filling and measuring...\r", shape.model.name, shape.format_name().c_str(),
                 static_cast<long long>(shape.ctx));
    const Row row = measure(shape);
    std::fprintf(stderr, "%70s\r", "");
    std::printf("%-14s %-6s %7lld %14.1f %7.1f %8.0f%% %6.0f%% %8.1f %11.1e\n", shape.model.name,
                shape.format_name().c_str(), static_cast<long long>(shape.ctx), row.decode.seconds * 1e6,
                row.decode.kv_bytes_per_second / 1e9, 100 * row.decode.roofline_fraction, 100 * row.decode.limit_fraction,
                row.naive_seconds / row.decode.seconds, row.difference);
    std::fflush(stdout);
    return row.is_right;
}

int run(const Options &options) {
    print_head(options);
    bool right = true;
    for (const std::string &model : options.models) {
        for (const std::string &format : options.formats) {
            const kvlane::Format f = kvlane::format_from_name(format);
            for (const int64_t ctx : options.contexts) {
                right &= print_row({model_of(model), f, f, ctx, options.threads, true});
            }
        }
    }
    std::printf(
        "\nroofline: share of the read bandwidth measured in the same run.  limit: share of what bandwidth and\n"
        "multiply-add peak allow.  x naive: times faster than one head at a time.  difference: relative, from the\n"
        "scalar reference; %s.\n",
        right ? "all are right" : "SOME ARE WRONG");
    return right ? 0 : 1;
}

}  // namespace
}  // namespace bench

int main(int argc, char **argv) {
    bench::Options options;
    CLI::App app("Decode attention at the geometry of real models", "kvlane-demo");
    app.add_option("--model", options.models, "Models, of those that the benchmarks name")->capture_default_str();
    app.add_option("--ctx", options.contexts, "Context lengths in tokens")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    app.add_option("--format", options.formats, "Storage formats of keys and values")->capture_default_str();
    app.add_option("--threads", options.threads, "Threads")->check(CLI::Range(1, 1024))->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    try {
        return bench::run(options);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "kvlane-demo: %s\n", error.what());
        return 1;
    }
}

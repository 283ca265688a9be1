// The benchmarks: decode/<model>/<format>/ctx:<n>/threads:<n>/<cold|hot>, and naive/… alike.

#include <benchmark/benchmark.h>

#include <memory>
#include <set>
#include <thread>

#include "case.hpp"

namespace bench {
namespace {

using TimeOnce = double (Case::*)();

// The case of that shape: the last one, where it is asked for again, as a row's trials and repetitions do.
Case &case_of(const Shape &shape) {
    static std::unique_ptr<Case> last;
    if (!last || !(last->shape() == shape)) {
        last.reset();
        last = std::make_unique<Case>(shape);
    }
    return *last;
}

// Each iteration times one call, then samples the machine's limits: all of a row's figures are of one stretch of time.
void run(benchmark::State &state, const Shape &shape, TimeOnce time_once) {
    Case &c = case_of(shape);
    c.forget_limits();
    for (int i = 0; i < 3 * n_read_variants; ++i) {
        (c.*time_once)();
        c.sample_limits();
    }
    std::vector<double> seconds;
    for (auto _ : state) {
        seconds.push_back((c.*time_once)());
        state.SetIterationTime(seconds.back());
        c.sample_limits();
    }
    const Timing timing = c.timing(seconds);
    state.counters["kv_bytes_per_second"] = static_cast<double>(shape.kv_bytes()) / timing.seconds;
    state.counters["roofline_bytes_per_second"] = timing.read_bytes_per_second;
    state.counters["multiply_adds_per_second"] = timing.multiply_adds_per_second;
    state.counters["roofline_fraction"] = roofline_fraction(shape, timing);
    state.counters["limit_fraction"] = limit_fraction(shape, timing);
    state.counters["median_seconds"] = timing.seconds;
    state.counters["tokens_per_second"] = 1 / timing.seconds;
}

void add(const char *kind, const Shape &shape, TimeOnce time_once) {
    const std::string label = std::string(kind) + "/" + shape.model.name + "/" + shape.format_name() +
                              "/ctx:" + std::to_string(shape.ctx) + "/threads:" + std::to_string(shape.threads) +
                              (shape.cold ? "/cold" : "/hot");
    benchmark::RegisterBenchmark(label.c_str(), [=](benchmark::State &state) { run(state, shape, time_once); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond)
        ->MinTime(0.2);
}

void add_model(const Model &model) {
    const int all_threads = static_cast<int>(std::thread::hardware_concurrency());
    using kvlane::Format;
    std::vector<std::pair<Format, Format>> formats{{Format::f16, Format::bf16}};
    for (kvl_format format = 0; kvl_format_name(format); ++format) {
        formats.emplace_back(Format{format}, Format{format});
    }
    for (const auto &[k_format, v_format] : formats) {
        for (const int64_t ctx : {128, 512, 2048, 8192, 32768}) {
            for (const int threads : std::set{1, all_threads}) {
                for (const bool cold : {true, false}) {
                    const Shape shape{model, k_format, v_format, ctx, threads, cold};
                    add("decode", shape, &Case::time_decode);
                    add("naive", shape, &Case::time_naive);
                }
            }
        }
    }
}

}  // namespace
}  // namespace bench

int main(int argc, char **argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
        return 1;
    }
    try {
        benchmark::AddCustomContext("kvlane_version", kvl_version());
        benchmark::AddCustomContext("kvlane_isa", kvlane::isa_in_force());
    } catch (const kvlane::Error &error) {
        std::fprintf(stderr, "kvlane-bench: %s\n", error.what());
        return 1;
    }
    for (const bench::Model &model : bench::models) {
        bench::add_model(model);
    }
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}

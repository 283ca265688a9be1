// The benchmarks: decode/<model>/<format>/ctx:<n>[/queries:<n>]/threads:<n>/<cold|hot>; naive/…, batch/…, append/… and, by
// score rule, window/…, softcap/…, alibi/… and mask/…, by layout of the memory, token-major/…, blocks:<n>/…, prefix/… and
// latent/… alike, f16-window/… of caches that keep some tokens in f16; exact/… with that precision.

#include <benchmark/benchmark.h>

#include <memory>
#include <set>
#include <thread>
#include <variant>

#include "append_case.hpp"
#include "decode_case.hpp"
#include "timing.hpp"

namespace bench {
namespace {

std::variant<std::monostate, std::unique_ptr<DecodeCase>, std::unique_ptr<AgainstF16Case>, std::unique_ptr<AppendCase>>
    last_case;

// The case of that shape: the last one, where it is asked for again, as a row's trials and repetitions do. There is memory
// for one at a time.
template <class Case>
Case &case_of(const Shape &shape) {
    const auto *held = std::get_if<std::unique_ptr<Case>>(&last_case);
    if (!held || !((*held)->shape() == shape)) {
        last_case = std::monostate{};
        held = &last_case.emplace<std::unique_ptr<Case>>(std::make_unique<Case>(shape));
    }
    return **held;
}

// Each iteration times a call, or one and the same of f16, then samples the machine's limits: all of a row's figures are of
// one stretch of time.
template <class Case>
auto measure(benchmark::State &state, Case &c, double (Case::*time_once)()) {
    c.forget();
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
    return c.figures(median(seconds));
}

void add(const char *kind, const Shape &shape, void (*run)(benchmark::State &, const Shape &), double min_seconds = 0.2) {
    const std::string queries = shape.n_queries > 1 ? "/queries:" + std::to_string(shape.n_queries) : "";
    const std::string label = std::string(kind) + "/" + shape.model.name + "/" + shape.format_name() +
                              "/ctx:" + std::to_string(shape.ctx) + queries + "/threads:" + std::to_string(shape.threads) +
                              (shape.cold ? "/cold" : "/hot");
    benchmark::RegisterBenchmark(label.c_str(), [=](benchmark::State &state) { run(state, shape); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond)
        ->MinTime(min_seconds);
}

void set_counters(benchmark::State &state, const Shape &shape, const DecodeFigures &figures) {
    state.counters["median_seconds"] = figures.seconds;
    state.counters["kv_bytes_per_second"] = figures.kv_bytes_per_second;
    state.counters["roofline_bytes_per_second"] = figures.roofline_bytes_per_second;
    state.counters["multiply_adds_per_second"] = figures.multiply_adds_per_second;
    state.counters["roofline_fraction"] = figures.roofline_fraction;
    state.counters["limit_fraction"] = figures.limit_fraction;
    state.counters["tokens_per_second"] = shape.n_sequences / figures.seconds;
}

void decode(benchmark::State &state, const Shape &shape) {
    set_counters(state, shape, measure(state, case_of<DecodeCase>(shape), &DecodeCase::time_decode));
}

void naive(benchmark::State &state, const Shape &shape) {
    set_counters(state, shape, measure(state, case_of<DecodeCase>(shape), &DecodeCase::time_naive));
}

// By turns with f16, whose time it is to be a part of.
void decode_against_f16(benchmark::State &state, const Shape &shape) {
    AgainstF16Case &c = case_of<AgainstF16Case>(shape);
    set_counters(state, shape, measure(state, c, &AgainstF16Case::time_decode));
    state.counters["time_against_f16"] = c.time_against_f16();
}

void append(benchmark::State &state, const Shape &shape) {
    const AppendFigures figures = measure(state, case_of<AppendCase>(shape), &AppendCase::time_append);
    state.counters["median_seconds"] = figures.seconds;
    state.counters["bytes_per_second"] = figures.bytes_per_second;
    state.counters["roofline_bytes_per_second"] = figures.roofline_bytes_per_second;
    state.counters["limit_fraction"] = figures.limit_fraction;
    state.counters["tokens_per_second"] = static_cast<double>(shape.ctx) / figures.seconds;
}

// Every format, cold at all lengths of real use, hot where keys and values may fit into a core's own cache.
void add_model(const Model &model, int all_threads) {
    for (kvl_format format = 0; kvl_format_name(format); ++format) {
        const kvlane::Format f{format};
        const auto run = is_quantized(f) ? decode_against_f16 : decode;
        for (const int threads : std::set{1, all_threads}) {
            for (const int64_t ctx : {128, 512, 2048, 8192, 32768}) {
                add("decode", {model, f, f, ctx, threads, true}, run);
            }
            for (const int64_t ctx : {128, 256, 512}) {
                add("decode", {model, f, f, ctx, threads, false}, run);
            }
        }
        if (!is_quantized(f)) {
            add("naive", {model, f, f, 2048, 1, true, 1, Rule::none, 1, Layout::head_major}, naive);
        }
    }
    for (const kvlane::Format f : {kvlane::Format::q8, kvlane::Format::q4}) {
        add("exact", {model, f, f, 8192, 1, true, 1, Rule::exact}, decode_against_f16);
    }
}

// What one model shows for all.
void add_details(const Model &model, int all_threads) {
    using kvlane::Format;
    for (const int threads : std::set{1, all_threads}) {
        for (const auto &[k, v] :
             {std::pair{Format::f16, Format::bf16}, {Format::f16, Format::q8}, {Format::q8, Format::q4}}) {
            add("decode", {model, k, v, 2048, threads, true}, decode);
        }
        add("decode", {model, Format::f16, Format::f16, 1, threads, false}, decode);
    }
    add("decode", {model, Format::f16, Format::f16, 8192, all_threads + 1, true}, decode);  // more workers than cores
    add("batch", {model, Format::f16, Format::f16, 8192, all_threads, true, 16}, decode);
    for (const uint32_t n_queries : {2u, 4u, 8u, 16u, 512u}) {
        add("decode", {model, Format::f16, Format::f16, 8192, 1, true, 1, Rule::none, n_queries}, decode);
    }
    for (const auto &[kind, rule] :
         {std::pair{"window", Rule::window}, {"softcap", Rule::softcap}, {"alibi", Rule::alibi}, {"mask", Rule::mask}}) {
        add(kind, {model, Format::f16, Format::f16, 8192, 1, true, 1, rule}, decode);
    }
    add("window", {model, Format::f16, Format::f16, 8192, 1, true, 1, Rule::window, 4}, decode);
    for (const auto &[kind, layout] : {std::pair{"token-major", Layout::token_major},
                                       {"blocks:16", Layout::blocks_16},
                                       {"blocks:256", Layout::blocks_256}}) {
        add(kind, {model, Format::f16, Format::f16, 8192, 1, true, 1, Rule::none, 1, layout}, decode);
    }
    for (const Format format : {Format::q8, Format::q4}) {
        add("blocks:256", {model, format, format, 8192, 1, true, 1, Rule::none, 1, Layout::blocks_256}, decode);
    }
    for (const int threads : std::set{1, all_threads}) {
        add("prefix", {model, Format::f16, Format::f16, 8192, threads, true, 8, Rule::none, 1, Layout::prefix}, decode);
    }
    for (const Format format : {Format::q8, Format::q4}) {
        add("f16-window", {model, format, format, 8192, 1, true, 1, Rule::none, 1, Layout::f16_window}, decode);
    }
    for (const Format format : {Format::f16, Format::q8, Format::q4}) {
        add("append", {model, format, format, 1, 1, true}, append, 0.002);
        add("append", {model, format, format, 2048, 1, true}, append);
    }
}

void add_latent(int all_threads) {
    using kvlane::Format;
    for (const Format format : {Format::f32, Format::f16, Format::bf16}) {
        for (const int threads : std::set{1, all_threads}) {
            add("latent", {deepseek, format, format, 8192, threads, true, 1, Rule::none, 1, Layout::latent}, decode);
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
    const int all_threads = static_cast<int>(std::thread::hardware_concurrency());
    for (const bench::Model &model : bench::models) {
        bench::add_model(model, all_threads);
    }
    bench::add_details(bench::model_of("llama-3-8b"), all_threads);
    bench::add_latent(all_threads);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}

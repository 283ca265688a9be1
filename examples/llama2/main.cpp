// kvlane-llama2: writes text with a small llama, whose attention and cache are kvlane.

#include <kvlane/kvlane.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "generate.hpp"
#include "input_file.hpp"
#include "model.hpp"
#include "options.hpp"
#include "perplexity.hpp"
#include "sampler.hpp"
#include "threads.hpp"
#include "tokenizer.hpp"

namespace {

using namespace llama2;

struct Options : CommonOptions {
    std::string prompt;
    int64_t n_first_f16 = 0;
    int64_t n_recent_f16 = 0;
    std::string perplexity_text;
    float temperature = 0;
    uint64_t seed = std::random_device{}();
    uint32_t most_drafted = 0;
};

void declare(CLI::App &app, Options &options) {
    declare_common(app, options);
    app.add_option("--prompt", options.prompt, "Text to go on from");
    app.add_option("--temperature", options.temperature, "0: the likeliest token always")->capture_default_str();
    app.add_option("--seed", options.seed, "Of the random choices at a temperature over 0 (default: another each run)")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--draft", options.most_drafted,
                   "Tokens to guess from the text so far, and to verify in one step; the text stays the same")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    app.add_option("--first-f16", options.n_first_f16, "Tokens of the beginning that a cache of q8 or q4 keeps in f16");
    app.add_option("--recent-f16", options.n_recent_f16, "Newest tokens that it keeps in f16");
    app.add_option("--perplexity", options.perplexity_text,
                   "Instead of writing: how well the model foretells this file's text, beside a cache of f32");
}

void check_temperature(float temperature) {
    if (!std::isfinite(temperature) || temperature < 0) {
        throw std::runtime_error("--temperature is " + std::to_string(temperature) + "; it must be 0 or more, and finite");
    }
}

// A cache that keeps tokens in f16 forgets no more guesses without loss.
void check_draft(const Options &options) {
    if (options.most_drafted > KVL_TRUNCATABLE_TOKENS && (options.n_first_f16 > 0 || options.n_recent_f16 > 0)) {
        throw std::runtime_error("--draft is " + std::to_string(options.most_drafted) + "; it must be at most " +
                                 std::to_string(KVL_TRUNCATABLE_TOKENS) +
                                 " with --first-f16 or --recent-f16, or the text would be another");
    }
}

CacheFormat all_of_format(const Options &options) {
    CacheFormat format = cache_format_of(options);
    format.n_first_f16 = options.n_first_f16;
    format.n_recent_f16 = options.n_recent_f16;
    return format;
}

std::string text_of(const std::string &path) {
    std::string text = InputFile(path).read_text();
    while (text.ends_with('\n')) {
        text.pop_back();
    }
    return text;
}

// Prints the perplexity of a text, cut to what the model sees.
void report_perplexity(const Options &options, const Checkpoint &checkpoint, const Tokenizer &tokenizer,
                       const kvl_executor *executor) {
    std::vector<uint32_t> tokens = tokenizer.encode(text_of(options.perplexity_text));
    tokens.resize(std::min<size_t>(tokens.size(), checkpoint.config.seq_len));
    if (tokens.size() < 2) {
        throw std::runtime_error("--perplexity is " + options.perplexity_text + "; its text must have at least one token");
    }
    Model model(checkpoint, all_of_format(options), executor);
    Model reference(checkpoint, {kvlane::Format::f32, kvlane::Format::f32}, executor);
    const Perplexity p = perplexity_of(model, reference, tokens);
    std::printf("%zu tokens, cache %s: perplexity %.5f, of f32 %.5f (%+.3f %%), largest logit difference %.2g\n",
                tokens.size(), options.cache_format.c_str(), p.perplexity, p.reference_perplexity,
                100 * (p.perplexity / p.reference_perplexity - 1), p.logit_difference);
}

void report(const Options &options, const Effort &effort, const kvlane::Cache &cache, double seconds) {
    std::fprintf(stderr, "%u tokens, %.1f tokens/s, isa %s, threads %d, cache %s of %" PRIu64 " bytes", effort.n_tokens,
                 effort.n_tokens / seconds, kvlane::isa_in_force(), options.n_threads, options.cache_format.c_str(),
                 cache.bytes());
    if (options.temperature > 0) {
        std::fprintf(stderr, ", seed %" PRIu64, options.seed);
    }
    if (options.most_drafted > 0) {
        std::fprintf(stderr, "; %u of %u guesses accepted, %.2f in each of %u steps", effort.n_accepted, effort.n_drafted,
                     static_cast<double>(effort.n_accepted) / effort.n_steps, effort.n_steps);
    }
    std::fputc('\n', stderr);
}

void run(const CLI::App &app, const Options &options) {
    check_temperature(options.temperature);
    check_draft(options);
    const CacheFormat format = all_of_format(options);
    const std::string tokenizer_file = tokenizer_path(options);
    const Threads threads(options.n_threads);
    const Checkpoint checkpoint = load_checkpoint(options.checkpoint);
    const Tokenizer tokenizer(tokenizer_file, checkpoint.config.vocab_size);
    if (!options.perplexity_text.empty()) {
        return report_perplexity(options, checkpoint, tokenizer, threads.executor());
    }
    const std::vector<uint32_t> prompt = tokenizer.encode(options.prompt);
    const uint32_t steps = fit_steps(app, options.steps, checkpoint.config.seq_len, prompt.size());
    Sampler sampler(options.temperature, options.seed);
    Model model(checkpoint, format, threads.executor());
    Sequence sequence = model.sequence();

    const auto start = std::chrono::steady_clock::now();
    const Effort effort =
        generate(model, sequence, sampler, prompt, steps, options.most_drafted,
                 [&](uint32_t previous, uint32_t token) { std::cout << tokenizer.decode(previous, token) << std::flush; });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    std::cout << '\n' << std::flush;
    if (!std::cout) {
        throw std::runtime_error("the text cannot be written to standard output");
    }
    report(options, effort, sequence.cache(), elapsed.count());
}

}  // namespace

int main(int argc, char **argv) {
    Options options;
    CLI::App app("Writes text with a small llama, whose attention and cache are kvlane", "kvlane-llama2");
    declare(app, options);
    return run_program(app, argc, argv, [&] { run(app, options); });
}

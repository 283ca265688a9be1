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
#include <map>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "input_file.hpp"
#include "model.hpp"
#include "perplexity.hpp"
#include "sampler.hpp"
#include "threads.hpp"
#include "tokenizer.hpp"

namespace {

using namespace llama2;

constexpr const char *program = "kvlane-llama2";

struct Options {
    std::string checkpoint;
    std::string tokenizer;
    std::string prompt;
    std::string cache_format = "f16";
    kvlane::Rotation rotation = kvlane::Rotation::by_format;
    int64_t n_first_f16 = 0;
    int64_t n_recent_f16 = 0;
    std::string perplexity_text;
    uint32_t steps = 256;
    float temperature = 0;
    uint64_t seed = std::random_device{}();
    int n_threads = 1;
};

void declare(CLI::App &app, Options &options) {
    app.add_option("CHECKPOINT", options.checkpoint, "Model in llama2.c's first format")->required();
    app.add_option("--tokenizer", options.tokenizer, "The model's tokenizer in llama2.c's format")->required();
    app.add_option("--prompt", options.prompt, "Text to go on from");
    app.add_option("--steps", options.steps, "Tokens in all, those of the prompt included")
        ->check(CLI::Range(1, 1 << 30))
        ->capture_default_str();
    app.add_option("--temperature", options.temperature, "0: the likeliest token always")->capture_default_str();
    app.add_option("--seed", options.seed, "Of the random choices at a temperature over 0 (default: another each run)")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--cache", options.cache_format,
                   "How keys and values are stored: f32, f16, bf16, q8 or q4, or two of them as f16+q8")
        ->capture_default_str();
    const std::map<std::string, kvlane::Rotation> rotations{{"none", kvlane::Rotation::none},
                                                            {"hadamard", kvlane::Rotation::hadamard}};
    app.add_option("--rotation", options.rotation, "What keys and values are multiplied by before (default: the format's)")
        ->transform(CLI::CheckedTransformer(rotations));
    app.add_option("--first-f16", options.n_first_f16, "Tokens of the beginning that a cache of q8 or q4 keeps in f16");
    app.add_option("--recent-f16", options.n_recent_f16, "Newest tokens that it keeps in f16");
    app.add_option("--perplexity", options.perplexity_text,
                   "Instead of writing: how well the model foretells this file's text, beside a cache of f32");
    app.add_option("--threads", options.n_threads, "Threads that share the work")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
}

void check_temperature(float temperature) {
    if (!std::isfinite(temperature) || temperature < 0) {
        throw std::runtime_error("--temperature is " + std::to_string(temperature) + "; it must be 0 or more, and finite");
    }
}

// The steps to go: at most seq_len, and enough for the prompt.
uint32_t fit_steps(uint32_t steps, uint32_t seq_len, size_t n_prompt_tokens) {
    if (steps > seq_len) {
        std::cerr << program << ": --steps is " << steps << "; the model sees at most " << seq_len << " tokens, so it is "
                  << seq_len << '\n';
        steps = seq_len;
    }
    if (n_prompt_tokens > steps) {
        throw std::runtime_error("--prompt is " + std::to_string(n_prompt_tokens) +
                                 " tokens; it must be at most the steps, " + std::to_string(steps));
    }
    return steps;
}

// "q8", or "f16+q8" where keys and values differ.
CacheFormat cache_format_of(const Options &options) {
    const std::string &name = options.cache_format;
    const size_t plus = name.find('+');
    return {kvlane::format_from_name(name.substr(0, plus)),
            kvlane::format_from_name(plus == std::string::npos ? name : name.substr(plus + 1)), options.rotation,
            options.n_first_f16, options.n_recent_f16};
}

std::string text_of(const std::string &path) {
    InputFile file(path);
    std::string text(file.size(), ' ');
    file.read(std::span(text));
    while (text.ends_with('\n')) {
        text.pop_back();
    }
    return text;
}

// Prints the perplexity of a text, cut to what the model sees.
void report_perplexity(const Options &options, const Checkpoint &checkpoint, const Tokenizer &tokenizer,
                       const kvl_executor *executor) {
    std::vector<uint32_t> tokens = tokenizer.encode(text_of(options.perplexity_text));
    tokens.resize(std::min<size_t>(tokens.size(), checkpoint.config().seq_len));
    if (tokens.size() < 2) {
        throw std::runtime_error("--perplexity is " + options.perplexity_text + "; its text must have at least one token");
    }
    Model model(checkpoint, cache_format_of(options), executor);
    Model reference(checkpoint, {kvlane::Format::f32, kvlane::Format::f32}, executor);
    const Perplexity p = perplexity_of(model, reference, tokens);
    std::printf("%zu tokens, cache %s: perplexity %.5f, of f32 %.5f (%+.3f %%), largest logit difference %.2g\n",
                tokens.size(), options.cache_format.c_str(), p.perplexity, p.reference_perplexity,
                100 * (p.perplexity / p.reference_perplexity - 1), p.logit_difference);
}

// Prints the prompt and what the model adds to it, until it begins another text. Returns how many tokens it ran.
uint32_t generate(Model &model, const Tokenizer &tokenizer, Sampler &sampler, const std::vector<uint32_t> &prompt,
                  uint32_t steps) {
    uint32_t token = prompt[0];
    uint32_t step = 0;
    while (step < steps) {
        const std::span<const float> logits = model.forward(token);
        ++step;
        const uint32_t next = step < prompt.size() ? prompt[step] : sampler.choose(logits);
        if (next == Tokenizer::bos) {
            break;
        }
        std::cout << tokenizer.decode(token, next) << std::flush;
        token = next;
    }
    std::cout << '\n' << std::flush;
    if (!std::cout) {
        throw std::runtime_error("the text cannot be written to standard output");
    }
    return step;
}

void report_speed(const Options &options, const kvlane::Cache &cache, uint32_t n_tokens, double seconds) {
    const std::string seed = options.temperature > 0 ? ", seed " + std::to_string(options.seed) : "";
    std::fprintf(stderr, "%u tokens, %.1f tokens/s, isa %s, threads %d, cache %s of %" PRIu64 " bytes%s\n", n_tokens,
                 n_tokens / seconds, kvlane::isa_in_force(), options.n_threads, options.cache_format.c_str(), cache.bytes(),
                 seed.c_str());
}

void run(const Options &options) {
    check_temperature(options.temperature);
    const CacheFormat format = cache_format_of(options);
    const Threads threads(options.n_threads);
    const Checkpoint checkpoint(options.checkpoint);
    const Tokenizer tokenizer(options.tokenizer, checkpoint.config().vocab_size);
    if (!options.perplexity_text.empty()) {
        return report_perplexity(options, checkpoint, tokenizer, threads.executor());
    }
    const std::vector<uint32_t> prompt = tokenizer.encode(options.prompt);
    const uint32_t steps = fit_steps(options.steps, checkpoint.config().seq_len, prompt.size());
    Sampler sampler(options.temperature, options.seed);
    Model model(checkpoint, format, threads.executor());

    const auto start = std::chrono::steady_clock::now();
    const uint32_t n_tokens = generate(model, tokenizer, sampler, prompt, steps);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    report_speed(options, model.cache(), n_tokens, elapsed.count());
}

}  // namespace

int main(int argc, char **argv) {
    Options options;
    CLI::App app("Writes text with a small llama, whose attention and cache are kvlane", program);
    try {
        declare(app, options);
        app.parse(argc, argv);
        run(options);
        return 0;
    } catch (const CLI::CallForHelp &help) {
        return app.exit(help);
    } catch (const std::exception &error) {
        std::cerr << program << ": " << error.what() << '\n';
        return 1;
    }
}

#include "demo_text.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <span>
#include <stdexcept>

#include "llama2/checkpoint.hpp"
#include "llama2/generate.hpp"
#include "llama2/model.hpp"
#include "llama2/sampler.hpp"
#include "llama2/sequence.hpp"
#include "llama2/threads.hpp"
#include "llama2/tokenizer.hpp"
#include "timing.hpp"

namespace bench {
namespace {

// The likeliest token always would soon repeat itself. The same text each time.
constexpr float temperature = 0.8f;
constexpr uint64_t seed = 1;

constexpr const char *option_group = "Text";

CLI::Validator cache_formats() {
    const auto check = [](const std::string &value) -> std::string {
        try {
            llama2::cache_format(value);
            return "";
        } catch (const std::exception &error) {
            return error.what();
        }
    };
    return {check, ""};
}

CLI::Validator not_empty() {
    return {[](const std::string &value) { return value.empty() ? "it must not be empty" : ""; }, ""};
}

llama2::Checkpoint load(const std::string &directory) {
    if (!std::filesystem::is_directory(directory)) {
        throw std::runtime_error("--checkpoint: " + directory + " is no directory; --table-only needs no model");
    }
    return llama2::load_checkpoint(directory);
}

void check_lengths(size_t n_prompt, uint32_t n_tokens, uint32_t seq_len) {
    if (n_prompt > seq_len) {
        throw std::runtime_error("--prompt is " + std::to_string(n_prompt) + " tokens; it must be at most the model's " +
                                 std::to_string(seq_len));
    }
    const size_t most = seq_len - n_prompt + 1;  // the last token is not run
    if (n_tokens > most) {
        throw std::runtime_error("--tokens is " + std::to_string(n_tokens) + "; behind the prompt's " +
                                 std::to_string(n_prompt) + " it must be at most " + std::to_string(most));
    }
}

void print_head(const TextOptions &options, const llama2::Checkpoint &checkpoint, int n_threads) {
    std::printf("%s: a Llama of %u layers, %.1f million weights; cache %s, isa %s, %d thread%s\n\n",
                (std::filesystem::path(options.checkpoint) / "").parent_path().filename().c_str(),
                checkpoint.config.n_layers, static_cast<double>(llama2::n_weights(checkpoint.config)) / 1e6,
                options.cache_format.c_str(), kvlane::isa_in_force(), n_threads, n_threads == 1 ? "" : "s");
}

struct Speed {
    size_t n_tokens;
    double seconds;

    double tokens_per_second() const { return static_cast<double>(n_tokens) / seconds; }
};

void print_speeds(const Speed &prompt, const Speed &generation, const llama2::Effort &effort) {
    std::printf("\n\nprompt %zu tokens, %.0f tokens/s; generation %zu tokens, %.0f tokens/s", prompt.n_tokens,
                prompt.tokens_per_second(), generation.n_tokens, generation.tokens_per_second());
    if (effort.n_drafted > 0) {
        std::printf("\n%u of %u drafted tokens accepted (%.0f%%), %.2f tokens per pass", effort.n_accepted, effort.n_drafted,
                    100.0 * effort.n_accepted / effort.n_drafted, static_cast<double>(generation.n_tokens) / effort.n_steps);
    }
    std::puts("\n");
    std::fflush(stdout);
}

}  // namespace

void declare(CLI::App &app, TextOptions &options) {
    app.add_flag("--table-only", options.is_left_out, "Write no text");
    const auto add = [&](const char *name, auto &value, const char *what) {
        return app.add_option(name, value, what)->group(option_group);
    };
    add("--prompt", options.prompt, "Text to go on from")->check(not_empty())->capture_default_str();
    add("--tokens", options.n_tokens, "Tokens to generate")
        ->check(CLI::Range(1, 1 << 30).description(""))
        ->capture_default_str();
    add("--cache", options.cache_format, "Format of keys and values, or two as f16+q8")
        ->check(cache_formats())
        ->capture_default_str();
    add("--draft", options.most_drafted, "Tokens to guess from the text so far and to\nverify in one pass, 0 to 1024")
        ->check(CLI::Range(0, 1024).description(""))
        ->capture_default_str();
    add("--checkpoint", options.checkpoint,
        "Directory of a model as examples/llama2/README.md\ndescribes it, by default examples/llama2/kjv");
}

void refuse_text_options(const CLI::App &app) {
    for (const CLI::Option *option : app.get_options()) {
        if (option->get_group() == option_group && option->count() > 0) {
            throw CLI::ExcludesError(option->get_name(), "--table-only and --json");
        }
    }
}

void write_text(const TextOptions &options, int n_threads) {
    const llama2::Checkpoint checkpoint = load(options.checkpoint);
    const llama2::Tokenizer tokenizer(options.checkpoint + "/tokenizer.bin", checkpoint.config.vocab_size);
    const std::vector<uint32_t> prompt = tokenizer.encode(options.prompt);
    check_lengths(prompt.size(), options.n_tokens, checkpoint.config.seq_len);
    const llama2::Threads threads(n_threads);
    llama2::Model model(checkpoint, llama2::cache_format(options.cache_format), threads.executor());
    llama2::Sequence sequence = model.sequence();
    llama2::Sampler sampler(temperature, seed);
    print_head(options, checkpoint, n_threads);

    // All of the prompt but the token that the first generated one follows.
    const double start = now();
    const std::span<const uint32_t> begin = std::span(prompt).first(prompt.size() - 1);
    model.forward(sequence, begin);
    const double prompt_end = now();
    const auto n_steps = static_cast<uint32_t>(prompt.size()) + options.n_tokens - 1;
    const llama2::Effort effort = llama2::generate(model, sequence, sampler, prompt, n_steps, options.most_drafted,
                                                   [&](uint32_t previous, uint32_t token) {
                                                       std::fputs(tokenizer.decode(previous, token).c_str(), stdout);
                                                       std::fflush(stdout);
                                                   });
    print_speeds({begin.size(), prompt_end - start}, {effort.n_tokens - begin.size(), now() - prompt_end}, effort);
}

}  // namespace bench

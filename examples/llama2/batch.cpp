// kvlane-llama2-batch: goes on from several prompts side by side. What they begin with alike is stored once, by 64 tokens,
// and read by all.

#include <kvlane/kvlane.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "generate.hpp"
#include "model.hpp"
#include "options.hpp"
#include "threads.hpp"
#include "tokenizer.hpp"

namespace {

using namespace llama2;

struct Options : CommonOptions {
    std::vector<std::string> prompts;
};

void print_texts(const Tokenizer &tokenizer, const Batch &batch) {
    for (const std::vector<uint32_t> &text : batch.texts) {
        for (size_t i = 1; i < text.size(); ++i) {
            std::cout << tokenizer.decode(text[i - 1], text[i]);
        }
        std::cout << '\n';
    }
    std::cout << std::flush;
    if (!std::cout) {
        throw std::runtime_error("the texts cannot be written to standard output");
    }
}

void report(const Options &options, const Batch &batch, double seconds) {
    const Effort &effort = batch.effort;
    std::fprintf(stderr, "%zu texts, %u tokens in %u steps, %.1f tokens/s, isa %s, threads %d\n", batch.texts.size(),
                 effort.n_tokens, effort.n_steps, effort.n_tokens / seconds, kvlane::isa_in_force(), options.n_threads);
    std::fprintf(stderr, "%zu tokens shared, cache %s of %" PRIu64 " bytes, %" PRIu64 " more without sharing\n",
                 batch.n_shared, options.cache_format.c_str(), batch.cache_bytes, batch.bytes_saved);
}

void run(const CLI::App &app, const Options &options) {
    const CacheFormat format = cache_format_of(options);
    const std::string tokenizer_file = tokenizer_path(options);
    const Threads threads(options.n_threads);
    const Checkpoint checkpoint = load_checkpoint(options.checkpoint);
    const Tokenizer tokenizer(tokenizer_file, checkpoint.config.vocab_size);
    std::vector<std::vector<uint32_t>> prompts;
    size_t longest = 0;
    for (const std::string &prompt : options.prompts) {
        prompts.push_back(tokenizer.encode(prompt));
        longest = std::max(longest, prompts.back().size());
    }
    const uint32_t steps = fit_steps(app, options.steps, checkpoint.config.seq_len, longest);
    Model model(checkpoint, format, threads.executor());

    const auto start = std::chrono::steady_clock::now();
    const Batch batch = generate_batch(model, prompts, steps);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    print_texts(tokenizer, batch);
    report(options, batch, elapsed.count());
}

}  // namespace

int main(int argc, char **argv) {
    Options options;
    CLI::App app("Goes on from several prompts side by side, and stores once what they begin with alike",
                 "kvlane-llama2-batch");
    declare_common(app, options);
    app.add_option("--prompt", options.prompts, "Text to go on from; again for each of them")
        ->required()
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    return run_program(app, argc, argv, [&] { run(app, options); });
}

#pragma once

#include <kvlane/kvlane.hpp>

#include <CLI/CLI.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>

#include "sequence.hpp"

namespace llama2 {

/// What every program of this example is told.
struct CommonOptions {
    std::string checkpoint;
    std::string tokenizer;
    std::string cache_format = "f16";
    kvlane::Rotation rotation = kvlane::Rotation::by_format;
    kvlane::Precision precision = kvlane::Precision::by_format;
    uint32_t steps = 256;
    int n_threads = 1;
};

inline void declare_common(CLI::App &app, CommonOptions &options) {
    app.add_option("CHECKPOINT", options.checkpoint,
                   "Model: a file in llama2.c's first format, or a directory with config.json and\n"
                   "model.safetensors")
        ->required();
    app.add_option("--tokenizer", options.tokenizer,
                   "The model's tokenizer in llama2.c's format (default: tokenizer.bin in the directory)");
    app.add_option("--steps", options.steps, "Tokens of a text in all, those of the prompt included")
        ->check(CLI::Range(1, 1 << 30))
        ->capture_default_str();
    app.add_option("--cache", options.cache_format,
                   "How keys and values are stored: f32, f16, bf16, q8 or q4, or two of them as f16+q8")
        ->capture_default_str();
    const std::map<std::string, kvlane::Rotation> rotations{{"none", kvlane::Rotation::none},
                                                            {"hadamard", kvlane::Rotation::hadamard}};
    app.add_option("--rotation", options.rotation, "What keys and values are multiplied by before (default: the format's)")
        ->transform(CLI::CheckedTransformer(rotations));
    const std::map<std::string, kvlane::Precision> precisions{{"exact", kvlane::Precision::exact},
                                                              {"fast", kvlane::Precision::fast}};
    app.add_option("--precision", options.precision, "What q8 and q4 are multiplied in (default: fast where both are those)")
        ->transform(CLI::CheckedTransformer(precisions));
    app.add_option("--threads", options.n_threads, "Threads that share the work")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
}

/// Finds the model's tokenizer: that of the options, or the one in the model's directory.
inline std::string tokenizer_path(const CommonOptions &options) {
    if (!options.tokenizer.empty()) {
        return options.tokenizer;
    }
    if (!std::filesystem::is_directory(options.checkpoint)) {
        throw std::runtime_error("--tokenizer is required: " + options.checkpoint + " is no directory with a tokenizer.bin");
    }
    return options.checkpoint + "/tokenizer.bin";
}

/// Returns how the options have keys and values stored.
inline CacheFormat cache_format_of(const CommonOptions &options) {
    CacheFormat format = cache_format(options.cache_format);
    format.rotation = options.rotation;
    format.precision = options.precision;
    return format;
}

/// Returns the steps to go: at most seq_len, which it says, and enough for the prompt.
inline uint32_t fit_steps(const CLI::App &app, uint32_t steps, uint32_t seq_len, size_t n_prompt_tokens) {
    if (steps > seq_len) {
        std::cerr << app.get_name() << ": --steps is " << steps << "; the model sees at most " << seq_len
                  << " tokens, so it is " << seq_len << '\n';
        steps = seq_len;
    }
    if (n_prompt_tokens > steps) {
        throw std::runtime_error("--prompt is " + std::to_string(n_prompt_tokens) +
                                 " tokens; it must be at most the steps, " + std::to_string(steps));
    }
    return steps;
}

/// Parses the arguments and runs; what goes wrong is a line on standard error, and 1 is returned.
template <class Run>
int run_program(CLI::App &app, int argc, char **argv, Run &&run) {
    try {
        app.parse(argc, argv);
        run();
        return 0;
    } catch (const CLI::CallForHelp &help) {
        return app.exit(help);
    } catch (const std::exception &error) {
        std::cerr << app.get_name() << ": " << error.what() << '\n';
        return 1;
    }
}

}  // namespace llama2

#pragma once

// The demo's text: written by a small Llama, whose attention and cache are kvlane's.

#include <cstdint>
#include <string>

namespace CLI {
class App;
}

namespace bench {

struct TextOptions {
    std::string checkpoint = KVLANE_DEMO_CHECKPOINT;  // a directory of Hugging Face's format with a tokenizer.bin
    std::string prompt = "In the beginning";
    std::string cache_format = "f16";
    uint32_t n_tokens = 200;    // to generate
    uint32_t most_drafted = 0;  // tokens per pass of speculative decoding
    bool is_left_out = false;
};

// The text's options, with what each may be.
void declare(CLI::App &app, TextOptions &options);

// Errors: CLI::ParseError where the command line has an option of the text that is not to be written
void refuse_text_options(const CLI::App &app);

// Prints what runs, the prompt and each token as it comes, then the speed of both.
// Errors: std::runtime_error, before anything is printed, where the model cannot be loaded, or prompt and tokens are more
//         than it allows
void write_text(const TextOptions &options, int n_threads);

}  // namespace bench

#pragma once

// What the demo is told, checked before anything is measured.

#include <cstdint>
#include <string>
#include <vector>

#include "shape.hpp"

namespace CLI {
class App;
}

namespace bench {

struct DemoOptions {
    std::vector<std::string> models{"llama-3-8b", "qwen2.5-0.5b", "llama-2-7b"};
    std::vector<int64_t> contexts{512, 2048, 8192};
    std::vector<std::string> formats{"f32", "f16", "bf16", "q8", "q4"};
    int threads;
    double seconds = 40;
    bool json = false;
};

// The demo's options, with what each may be.
void declare(CLI::App &app, DemoOptions &options);

// The rows that are asked for, in the table's order.
std::vector<Shape> shapes_of(const DemoOptions &options);

// Errors: std::invalid_argument where a row takes more memory than there is, with the longest context that would do.
void check_memory(const std::vector<Shape> &shapes);

}  // namespace bench

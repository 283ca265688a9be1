#pragma once

// The subcommands. Each function declares one and its options; when the arguments name it, it runs within app.parse and sets
// the program's exit status. Errors are exceptions whose text names the option, its value and what is allowed.

namespace CLI {
class App;
}

namespace tool {

void declare_info(CLI::App &app);
void declare_size(CLI::App &app);
void declare_bench(CLI::App &app, int &status);
void declare_check(CLI::App &app, int &status);

}  // namespace tool

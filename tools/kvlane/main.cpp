// kvlane: what this machine and a model mean for the library: its kernels, a cache's size, speeds, and whether they are
// right.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "commands.hpp"
#include "kvlane/kvlane.h"
#include "text.hpp"

namespace {

constexpr int wrong_usage = 2;

std::string message(const std::string &text) { return tool::wrapped("kvlane:", text); }

// What is wrong with the arguments. Without a subcommand it is said which there are.
std::string failure(const CLI::App *app, const CLI::Error &error) {
    std::string text = error.what();
    if (app->get_subcommands().empty()) {
        const std::vector<std::string> others = app->remaining();
        text = others.empty() ? "a subcommand is missing; it is one of"
                              : "\"" + others.front() + "\" is no subcommand; it is one of";
        for (const CLI::App *subcommand : app->get_subcommands({})) {
            text += " " + subcommand->get_name();
        }
    }
    return message(text) + "Run with --help for more information.\n";
}

}  // namespace

int main(int argc, char **argv) {
    int status = 0;
    CLI::App app("Attention for LLM inference on CPUs", "kvlane");
    try {
        app.set_version_flag("--version", std::string("kvlane ") + kvl_version());
        app.require_subcommand(1);
        app.failure_message(failure);
        app.footer("Exit status: 0, 1 when a result is wrong, 2 when an argument is refused or the\nrun fails.");
        tool::declare_info(app);
        tool::declare_size(app);
        tool::declare_bench(app, status);
        tool::declare_check(app, status);
        app.parse(argc, argv);
        return status;
    } catch (const CLI::ParseError &error) {
        return app.exit(error) == 0 ? 0 : wrong_usage;
    } catch (const std::exception &error) {
        std::fputs(message(error.what()).c_str(), stderr);
        return wrong_usage;
    }
}

// The main job, shown and measured in a minute: a text by a small model; then decode attention at the geometry of real
// models, checked, beside the machine's limits.

#include <CLI/CLI.hpp>
#include <cstdio>

#include "demo_table.hpp"
#include "demo_text.hpp"

int main(int argc, char **argv) {
    constexpr int failed = 2;
    CLI::App app("Text by a small Llama, then decode attention at the geometry of real models", "kvlane-demo");
    try {
        bench::DemoOptions options;
        bench::TextOptions text;
        bench::declare(app, options);
        bench::declare(app, text);
        app.parse(argc, argv);
        bench::check_memory(bench::shapes_of(options));
        if (text.is_left_out || options.json) {
            bench::refuse_text_options(app);
        } else {
            bench::write_text(text, options.threads);
        }
        return bench::all_right(bench::run_table(options)) ? 0 : 1;
    } catch (const CLI::ParseError &error) {
        return app.exit(error) == 0 ? 0 : failed;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "kvlane-demo: %s\n", error.what());
        return failed;
    }
}

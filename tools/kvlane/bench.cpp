// kvlane bench: the demo's table on this machine, as text, as JSON, or drawn.

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "../../bench/demo_table.hpp"
#include "commands.hpp"
#include "plot.hpp"

namespace tool {

void declare_bench(CLI::App &app, int &status) {
    CLI::App *bench = app.add_subcommand("bench", "Speed of decode attention, as a table or a plot");
    const auto options = std::make_shared<bench::DemoOptions>();
    const auto picture = std::make_shared<std::string>();
    bench::declare(*bench, *options);
    bench->add_option("--plot", *picture,
                      "Draw GB/s over the context into a file\nthat ends in .svg or .png (needs gnuplot)");
    bench->callback([options, picture, &status] {
        std::optional<Plot> plot;
        if (!picture->empty()) {
            plot.emplace(*picture);  // what is wrong with it is an error now, not after the measurements
        }
        const std::vector<bench::DemoRow> rows = bench::run_table(*options);
        if (plot) {
            plot->draw(rows);
        }
        status = bench::all_right(rows) ? 0 : 1;
    });
}

}  // namespace tool

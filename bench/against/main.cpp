// Two versions of the library in one process, by turns, benchmark by benchmark.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <regex>
#include <stdexcept>

#include "report.hpp"

namespace against {
namespace {

struct Options {
    std::string tree;
    std::string revision;
    std::string name = "the revision";
    std::string filter;
    Effort effort;
    std::string json;
};

void declare(CLI::App &app, Options &options) {
    const auto is_regex = [](const std::string &text) {
        try {
            const std::regex compiled(text);
            return std::string();
        } catch (const std::regex_error &error) {
            return "\"" + text + "\" is no regular expression: " + error.what();
        }
    };
    app.add_option("tree", options.tree, "The working tree's shim; without shims\nthe arguments are checked");
    app.add_option("revision", options.revision, "The revision's shim");
    app.add_option("--name", options.name, "What the revision is called");
    app.add_option("--benchmark_filter", options.filter, "Labels with a match of this expression")
        ->check(CLI::Validator(is_regex, "REGEX"));
    app.add_option("--benchmark_min_time", options.effort.min_seconds, "Seconds of a label's calls, but 15 pairs\nat least")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--benchmark_repetitions", options.effort.repetitions,
                   "How often keys and values are laid out in\nmemory anew")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--json", options.json, "A file for the results");
}

struct Labels {
    std::vector<std::string> both;
    std::vector<Skipped> skipped;
};

// Those that the filter matches, in the working tree's order.
Labels labels_of(const Side &tree, const Side &revision, const Options &options) {
    const std::regex filter(options.filter);
    const auto add = [&](const Side &side, const Side &other, const auto &add_one) {
        for (const std::string &label : side.labels()) {
            if (std::regex_search(label, filter)) {
                add_one(label, std::ranges::find(other.labels(), label) != other.labels().end());
            }
        }
    };
    Labels labels;
    add(tree, revision, [&](const std::string &label, bool in_both) {
        in_both ? labels.both.push_back(label) : labels.skipped.push_back({label, options.name + " does not know them"});
    });
    add(revision, tree, [&](const std::string &label, bool in_both) {
        if (!in_both) {
            labels.skipped.push_back({label, "the working tree does not know them"});
        }
    });
    return labels;
}

void run(const Options &options) {
    Side tree(options.tree), revision(options.revision);
    Labels labels = labels_of(tree, revision, options);
    if (labels.both.empty()) {
        throw std::runtime_error("--benchmark_filter: no label that both versions know has a match of \"" + options.filter +
                                 "\"");
    }
    const Versions versions{options.name, tree.context("kvlane_isa"), revision.context("kvlane_isa")};
    print_head(versions, labels.both.size());
    std::vector<Comparison> comparisons;
    for (const std::string &label : labels.both) {
        try {
            comparisons.push_back(compare(label, tree, revision, options.effort));
            print_row(comparisons.back());
        } catch (const std::exception &error) {
            labels.skipped.push_back({label, error.what()});
        }
    }
    print_end(comparisons, labels.skipped);
    if (!options.json.empty()) {
        write_json(options.json, versions, comparisons, labels.skipped);
    }
}

}  // namespace
}  // namespace against

int main(int argc, char **argv) {
    constexpr int failed = 2;
    CLI::App app("Two versions of the library in one process, by turns", "kvlane-against");
    try {
        against::Options options;
        against::declare(app, options);
        app.parse(argc, argv);
        if (!options.tree.empty()) {
            against::run(options);
        }
        return 0;
    } catch (const CLI::ParseError &error) {
        return app.exit(error) == 0 ? 0 : failed;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "kvlane-against: %s\n", error.what());
        return failed;
    }
}

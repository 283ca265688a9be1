#include "demo_options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "decode_case.hpp"
#include "system.hpp"

namespace bench {
namespace {

std::vector<std::string> model_names() {
    std::vector<std::string> names;
    for (const Model &model : models) {
        names.emplace_back(model.name);
    }
    return names;
}

std::vector<std::string> format_names() {
    std::vector<std::string> names;
    for (kvl_format format = 0; const char *name = kvl_format_name(format); ++format) {
        names.emplace_back(name);
    }
    return names;
}

std::string footer() {
    std::string text = "Models              query heads  KV heads  head_dim\n";
    for (const Model &model : models) {
        char line[80];
        std::snprintf(line, sizeof line, "  %-17s %11u %9u %9u\n", model.name, model.n_query_heads, model.n_kv_heads,
                      model.head_dim);
        text += line;
    }
    return text +
           "\nLists are separated by commas or spaces. Exit status: 0 when all results are\n"
           "right, 1 when some are wrong, 2 when an argument is refused or the run fails.";
}

std::string listed(const std::vector<std::string> &names) {
    std::string text;
    for (const std::string &name : names) {
        text += (text.empty() ? "" : ", ") + name;
    }
    return text;
}

CLI::Validator one_of(const std::vector<std::string> &names) {
    const auto check = [=](const std::string &value) {
        return std::ranges::find(names, value) != names.end() ? "" : "\"" + value + "\" is none of " + listed(names);
    };
    return {check, ""};
}

template <class Number>
CLI::Validator within(Number least, Number most) {
    const auto check = [=](const std::string &value) {
        Number number;
        const bool is_number = CLI::detail::lexical_cast(value, number);
        std::ostringstream text;
        if (!is_number || !(number >= least && number <= most)) {
            text << "\"" << value << "\" is not a number from " << least << " to " << most;
        }
        return text.str();
    };
    return {check, ""};
}

// The row's keys and values, those that the naive attention reads, and what the roofline is sampled over.
uint64_t memory_bytes(const Shape &shape) {
    const uint64_t call_bytes = static_cast<uint64_t>(shape.ctx) * shape.bytes_per_token();
    return DecodeCase::memory_bytes(shape) + DecodeCase::memory_bytes(in_rows(shape)) + std::max(cold_bytes(), call_bytes);
}

int64_t longest_context(Shape shape, uint64_t bytes) {
    int64_t fits = 0;
    for (int64_t too_long = shape.ctx; fits + 1 < too_long;) {
        shape.ctx = fits + (too_long - fits) / 2;
        (memory_bytes(shape) <= bytes ? fits : too_long) = shape.ctx;
    }
    return fits;
}

}  // namespace

void declare(CLI::App &app, DemoOptions &options) {
    const int n_cores = tbb::info::default_concurrency();
    options.threads = n_cores;
    app.set_version_flag("--version", std::string("kvlane ") + kvl_version());
    app.add_option("--model", options.models, "Models, of those below")
        ->delimiter(',')
        ->check(one_of(model_names()))
        ->capture_default_str();
    app.add_option("--format", options.formats, "Storage formats, of " + listed(format_names()))
        ->delimiter(',')
        ->check(one_of(format_names()))
        ->capture_default_str();
    app.add_option("--ctx", options.contexts, "Contexts in tokens, 1 to what memory holds")
        ->delimiter(',')
        ->check(within<int64_t>(1, KVL_MAX_TOKENS))
        ->capture_default_str();
    app.add_option("--threads", options.threads, "Threads, 1 to the cores that there are")
        ->check(within(1, n_cores))
        ->capture_default_str();
    app.add_option("--seconds", options.seconds, "How long all may take; but a row makes 12\ncalls, however long these take")
        ->check(within(1.0, 86400.0))
        ->capture_default_str();
    app.add_flag("--json", options.json, "Print one JSON document of the table, and no text");
    app.footer(footer());
}

std::vector<Shape> shapes_of(const DemoOptions &options) {
    std::vector<Shape> shapes;
    for (const std::string &model : options.models) {
        for (const int64_t ctx : options.contexts) {
            for (const std::string &format : options.formats) {
                const kvlane::Format f = kvlane::format_from_name(format);
                shapes.push_back({model_of(model), f, f, ctx, options.threads, true});
            }
        }
    }
    return shapes;
}

void check_memory(const std::vector<Shape> &shapes) {
    const std::optional<uint64_t> available = available_bytes();
    if (!available) {
        return;
    }
    for (const Shape &shape : shapes) {
        const uint64_t needed = memory_bytes(shape);
        if (needed > *available) {
            char text[200];
            std::snprintf(text, sizeof text,
                          "--ctx: %lld tokens of %s in %s take %.1f GB of memory, of which %.1f GB are available;\n"
                          "it must be at most %lld",
                          static_cast<long long>(shape.ctx), shape.model.name, shape.format_name().c_str(),
                          static_cast<double>(needed) / 1e9, static_cast<double>(*available) / 1e9,
                          static_cast<long long>(longest_context(shape, *available)));
            throw std::invalid_argument(text);
        }
    }
}

}  // namespace bench

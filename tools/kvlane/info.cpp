// kvlane info: what this machine has, and what of it the kernels use.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "kvlane/kvlane.h"
#include "machine.hpp"
#include "text.hpp"

namespace tool {
namespace {

void print_words(const char *label, const std::string &words) {
    std::string padded = label;
    padded.resize(15, ' ');
    std::fputs(wrapped(padded, words.empty() ? "none" : words).c_str(), stdout);
}

std::string joined(const std::vector<std::string> &words) {
    std::string text;
    for (const std::string &word : words) {
        text += (text.empty() ? "" : " ") + word;
    }
    return text;
}

std::string names_of(const std::vector<Isa> &isas, bool only_supported) {
    std::vector<std::string> names;
    for (const Isa &isa : isas) {
        if (isa.is_supported || !only_supported) {
            names.push_back(isa.name);
        }
    }
    return joined(names);
}

void print_caches(const std::vector<CpuCache> &caches) {
    const char *label = "CPU caches";
    for (const CpuCache &cache : caches) {
        char text[96];
        std::snprintf(text, sizeof text, "L%d %s, %s of %d CPU%s", cache.level, cache.type.c_str(),
                      bytes_text(cache.bytes).c_str(), cache.n_cpus, cache.n_cpus == 1 ? "" : "s");
        print_words(label, text);
        label = "";
    }
    if (caches.empty()) {
        print_words(label, "unknown");
    }
}

void print_kernels(const std::vector<FormatKernels> &kernels) {
    std::printf("\n%-6s %-36s %s\n", "format", "kernel, group 1", "kernel, group 4");
    for (const FormatKernels &row : kernels) {
        std::printf("%-6s %-36s %s\n", row.format.c_str(), row.group_1.c_str(), row.group_4.c_str());
    }
}

void print_limits(const std::vector<Limits> &limits) {
    if (limits.empty()) {
        std::puts("\nToo little memory is available to measure the read bandwidth.");
        return;
    }
    std::printf("\n%7s %25s %25s\n", "threads", "read bandwidth, GB/s", "f32 multiply-adds, G/s");
    for (const Limits &limit : limits) {
        std::printf("%7d %25.1f %25.1f\n", limit.n_threads, limit.bytes_per_second / 1e9,
                    limit.multiply_adds_per_second / 1e9);
    }
}

void print(const Machine &machine) {
    print_words("kvlane", kvl_version());
    print_words("CPU", machine.cpu);
    print_words("CPUs", std::to_string(machine.n_cpus) + " that this process may use");
    print_words("features", joined(machine.features));
    print_words("isas compiled", names_of(machine.isas, false));
    print_words("isas supported", names_of(machine.isas, true));
    print_words("isa in force", machine.isa_in_force);
    print_caches(machine.caches);
    print_words("NUMA nodes", machine.n_numa_nodes > 0 ? std::to_string(machine.n_numa_nodes) : "unknown");
    print_words("huge pages", machine.huge_pages);
    print_words("memory", machine.available_bytes ? bytes_text(*machine.available_bytes) + " available" : "unknown");
    print_kernels(machine.kernels);
    print_limits(machine.limits);
}

using Json = nlohmann::ordered_json;

// Maps every element to JSON by `to_json`.
template <class Element, class ToJson>
Json array_of(const std::vector<Element> &elements, ToJson &&to_json) {
    Json array = Json::array();
    for (const Element &element : elements) {
        array.push_back(to_json(element));
    }
    return array;
}

// What the system does not say is null.
Json json_of(const Machine &machine) {
    const auto known = [](const std::string &text) { return text == "unknown" ? Json() : Json(text); };
    const auto isa = [](const Isa &i) { return Json{{"name", i.name}, {"is_supported", i.is_supported}}; };
    const auto cache = [](const CpuCache &c) {
        return Json{{"level", c.level}, {"type", c.type}, {"bytes", c.bytes}, {"n_cpus", c.n_cpus}};
    };
    const auto kernels = [](const FormatKernels &k) {
        return Json{{"format", k.format}, {"group_1", k.group_1}, {"group_4", k.group_4}};
    };
    const auto limits = [](const Limits &l) {
        return Json{{"threads", l.n_threads},
                    {"bytes_per_second", l.bytes_per_second},
                    {"multiply_adds_per_second", l.multiply_adds_per_second}};
    };
    return {{"kvlane_version", kvl_version()},
            {"cpu", known(machine.cpu)},
            {"n_cpus", machine.n_cpus},
            {"features", machine.features},
            {"isas", array_of(machine.isas, isa)},
            {"isa_in_force", machine.isa_in_force},
            {"caches", array_of(machine.caches, cache)},
            {"n_numa_nodes", machine.n_numa_nodes > 0 ? Json(machine.n_numa_nodes) : Json()},
            {"huge_pages", known(machine.huge_pages)},
            {"available_bytes", machine.available_bytes ? Json(*machine.available_bytes) : Json()},
            {"kernels", array_of(machine.kernels, kernels)},
            {"limits", array_of(machine.limits, limits)}};
}

}  // namespace

void declare_info(CLI::App &app) {
    CLI::App *info = app.add_subcommand("info", "This CPU, its isas, kernels and limits");
    const auto json = std::make_shared<bool>(false);
    info->add_flag("--json", *json, "Print one JSON document instead of text");
    info->footer("The limits are measured, which takes about two seconds. Features are those that\nthe kernels use.");
    info->callback([json] {
        const Machine machine = this_machine();
        if (*json) {
            std::puts(json_of(machine).dump(2).c_str());
        } else {
            print(machine);
        }
    });
}

}  // namespace tool

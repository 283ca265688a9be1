#include "report.hpp"

#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "../timing.hpp"
#include "summary.hpp"

namespace against {
namespace {

using nlohmann::json;

void print_summary(const std::vector<Comparison> &comparisons) {
    std::printf("\n%-22s %6s %7s %6s   geometric means\n", "labels", "number", "time", "limit");
    for (const Class &c : summary_of(comparisons)) {
        const std::string name = c.by.empty() ? c.is : c.by + " " + c.is;
        std::printf("%-22s %6zu %7.3f %5.0f%%\n", name.c_str(), c.n_labels, c.ratio, 100 * c.limit_fraction);
    }
}

// Labels that are skipped for the same reason count together.
void print_skipped(const std::vector<Skipped> &skipped) {
    std::map<std::string, std::vector<std::string>> by_reason;
    for (const Skipped &one : skipped) {
        by_reason[one.why].push_back(one.label);
    }
    for (const auto &[why, labels] : by_reason) {
        std::printf("\n%zu skipped: %s\n", labels.size(), why.c_str());
        for (const std::string &label : labels) {
            std::printf("  %s\n", label.c_str());
        }
    }
}

json quartiles(const std::vector<double> &values) {
    return {{"median", bench::median(values)},
            {"lower_quartile", bench::quantile(values, 0.25)},
            {"upper_quartile", bench::quantile(values, 0.75)}};
}

json json_of(const Comparison &c) {
    return {{"label", c.label},
            {"pairs", c.ratios.size()},
            {"time_ratio", quartiles(c.ratios)},
            {"tree_seconds", quartiles(c.tree_seconds)},
            {"revision_seconds", quartiles(c.revision_seconds)},
            {"limit", c.reads_memory ? "memory" : "multiply-adds"},
            {"limit_fraction", c.limit_fraction},
            {"tree_counters", c.tree_counters},
            {"revision_counters", c.revision_counters}};
}

json json_of(const Class &c) {
    return {
        {"by", c.by}, {"is", c.is}, {"labels", c.n_labels}, {"time_ratio", c.ratio}, {"limit_fraction", c.limit_fraction}};
}

}  // namespace

void print_head(const Versions &versions, size_t n_labels) {
    std::printf("%zu labels on isa %s", n_labels, versions.tree_isa.c_str());
    if (versions.revision_isa != versions.tree_isa) {
        std::printf(", of %s on %s", versions.revision.c_str(), versions.revision_isa.c_str());
    }
    std::printf(
        "\ntime: of pairs of calls, the working tree's over %s's, median and quartiles\n"
        "limit: what the machine needs at least, of the working tree's time\n\n"
        "%6s  %-11s %5s %5s  label\n",
        versions.revision.c_str(), "time", "quartiles", "pairs", "limit");
}

void print_row(const Comparison &c) {
    std::printf("%6.3f  %.3f-%.3f %5zu %4.0f%%  %s\n", bench::median(c.ratios), bench::quantile(c.ratios, 0.25),
                bench::quantile(c.ratios, 0.75), c.ratios.size(), 100 * c.limit_fraction, c.label.c_str());
    std::fflush(stdout);
}

void print_end(const std::vector<Comparison> &comparisons, const std::vector<Skipped> &skipped) {
    if (!comparisons.empty()) {
        print_summary(comparisons);
    }
    print_skipped(skipped);
}

void write_json(const std::string &path, const Versions &versions, const std::vector<Comparison> &comparisons,
                const std::vector<Skipped> &skipped) {
    json document = {
        {"revision", versions.revision}, {"tree_isa", versions.tree_isa}, {"revision_isa", versions.revision_isa},
        {"labels", json::array()},       {"summary", json::array()},      {"skipped", json::array()}};
    for (const Comparison &c : comparisons) {
        document["labels"].push_back(json_of(c));
    }
    for (const Class &c : summary_of(comparisons)) {
        document["summary"].push_back(json_of(c));
    }
    for (const Skipped &one : skipped) {
        document["skipped"].push_back({{"label", one.label}, {"why", one.why}});
    }
    std::ofstream file(path);
    if (!(file << document.dump(2) << '\n' << std::flush)) {
        throw std::runtime_error("--json: cannot write " + path);
    }
}

}  // namespace against

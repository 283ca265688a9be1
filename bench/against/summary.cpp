#include "summary.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "../shape.hpp"
#include "../timing.hpp"
#include "label.hpp"

namespace against {
namespace {

using bench::Model;

const Model *model_named(const std::string &name) {
    const auto *found = std::ranges::find(bench::models, name, &Model::name);
    return found != std::end(bench::models) ? found : name == bench::deepseek.name ? &bench::deepseek : nullptr;
}

std::string bits_of(const std::string &format) {
    const auto digits = format.find_first_of("0123456789");
    return format.find('+') != std::string::npos || digits == std::string::npos ? format : format.substr(digits);
}

// The names of what a comparison belongs to, in the order of the summary; empty where its label does not say it.
std::vector<std::pair<const char *, std::string>> classes_of(const Comparison &c) {
    const Label label = parsed(c.label).value_or(Label{});
    const Model *model = model_named(label.model);
    return {{"", "all"},
            {"limit", c.reads_memory ? "memory" : "multiply-adds"},
            {"kind", label.kind},
            {"head_dim", model ? std::to_string(model->head_dim) : ""},
            {"group", model ? std::to_string(model->n_query_heads / model->n_kv_heads) : ""},
            {"bits", bits_of(label.format)},
            {"state", label.state},
            {"ctx", label.ctx},
            {"queries", label.queries},
            {"threads", label.threads}};
}

// Numbers by value.
struct ShorterFirst {
    bool operator()(const std::string &a, const std::string &b) const {
        return a.size() != b.size() ? a.size() < b.size() : a < b;
    }
};

struct Sum {
    double n = 0;
    double log_ratio = 0;
    double log_limit = 0;
};

}  // namespace

std::vector<Class> summary_of(const std::vector<Comparison> &comparisons) {
    std::vector<std::pair<std::string, std::map<std::string, Sum, ShorterFirst>>> sums;
    for (const Comparison &c : comparisons) {
        for (const auto &[by, is] : classes_of(c)) {
            auto found = std::ranges::find(sums, by, [](const auto &one) { return one.first; });
            Sum &sum = (found != sums.end() ? *found : sums.emplace_back(by, std::map<std::string, Sum, ShorterFirst>{}))
                           .second[is];
            sum.n += 1;
            sum.log_ratio += std::log(bench::median(c.ratios));
            sum.log_limit += std::log(c.limit_fraction);
        }
    }
    std::vector<Class> classes;
    for (const auto &[by, values] : sums) {
        for (const auto &[is, sum] : values) {
            if (!is.empty() && (by.empty() || values.size() > 1)) {
                classes.push_back(
                    {by, is, static_cast<size_t>(sum.n), std::exp(sum.log_ratio / sum.n), std::exp(sum.log_limit / sum.n)});
            }
        }
    }
    return classes;
}

}  // namespace against

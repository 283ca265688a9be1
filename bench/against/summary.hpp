#pragma once

// What labels of one kind have in common.

#include <string>
#include <vector>

#include "comparison.hpp"

namespace against {

struct Class {
    std::string by;  // "head_dim"
    std::string is;  // "128"
    size_t n_labels;
    double ratio;  // geometric means
    double limit_fraction;
};

// All labels, then what only some of them have in common.
std::vector<Class> summary_of(const std::vector<Comparison> &comparisons);

}  // namespace against

#pragma once

// One label on both sides, by turns.

#include <string>
#include <vector>

#include "side.hpp"

namespace against {

struct Comparison {
    std::string label;
    std::vector<double> tree_seconds;  // of each pair
    std::vector<double> revision_seconds;
    std::vector<double> ratios;  // tree_seconds over revision_seconds
    double limit_fraction;       // the working tree's
    bool reads_memory;           // whether that limit is memory, rather than multiply-adds
    Counters tree_counters;      // of the last repetition
    Counters revision_counters;
};

struct Effort {
    double min_seconds = 0.5;  // of a label's pairs, which are 15 at least
    int repetitions = 2;       // how often its cases are made
};

// Calls of both sides by turns.
// Errors: std::runtime_error where a side cannot run the label
Comparison compare(const std::string &label, Side &tree, Side &revision, const Effort &effort);

}  // namespace against

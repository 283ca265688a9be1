#pragma once

// What is printed and written of comparisons.

#include <string>
#include <vector>

#include "comparison.hpp"

namespace against {

struct Skipped {
    std::string label;
    std::string why;
};

struct Versions {
    std::string revision;  // its name
    std::string tree_isa;
    std::string revision_isa;
};

void print_head(const Versions &versions, size_t n_labels);
void print_row(const Comparison &comparison);
void print_end(const std::vector<Comparison> &comparisons, const std::vector<Skipped> &skipped);

// Errors: std::runtime_error where the file cannot be written
void write_json(const std::string &path, const Versions &versions, const std::vector<Comparison> &comparisons,
                const std::vector<Skipped> &skipped);

}  // namespace against

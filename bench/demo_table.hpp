#pragma once

// The demo's table: what is measured, row by row.

#include <vector>

#include "demo_options.hpp"
#include "demo_report.hpp"

namespace bench {

// Measures the rows that the options name and prints them, each as soon as it is measured, or all as one JSON document.
// Errors: std::invalid_argument where a row takes more memory than there is, before anything is measured
std::vector<DemoRow> run_table(const DemoOptions &options);

}  // namespace bench

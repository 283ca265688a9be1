#pragma once

// A picture of the table: a panel for each model, GB/s over the context, a line for each format and a dotted one for its
// limit.

#include <string>
#include <vector>

#include "../../bench/demo_report.hpp"

namespace tool {

// A file that gnuplot draws into.
class Plot {
public:
    // Creates the file, which keeps what it has until draw.
    // Errors: std::runtime_error when the name ends in neither .svg nor .png, gnuplot is not installed, or the file cannot
    //         be written
    explicit Plot(const std::string &path);
    ~Plot();
    Plot(const Plot &) = delete;
    Plot &operator=(const Plot &) = delete;

    // Errors: std::runtime_error when gnuplot fails
    void draw(const std::vector<bench::DemoRow> &rows) const;

private:
    std::string path_;
    std::string terminal_;
    int file_ = -1;
};

}  // namespace tool

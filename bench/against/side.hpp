#pragma once

// One of the two versions: its shim, loaded.

#include <map>
#include <string>
#include <vector>

#include "shim.hpp"

namespace against {

using Counters = std::map<std::string, double>;

// Errors: std::runtime_error where the version's benchmarks fail.
class Side {
public:
    explicit Side(const std::string &path);
    ~Side();
    Side(const Side &) = delete;
    Side &operator=(const Side &) = delete;

    const std::vector<std::string> &labels() const { return labels_; }
    std::string context(const char *key) const;

    // One is open at a time: what still is, is closed.
    void open(const std::string &label);
    double step();     // the seconds of one call
    Counters close();  // what the version says of the case
    void forget();     // frees the last case's memory, which the version keeps until another label is run

private:
    void abandon();

    const Shim *shim_;
    std::vector<std::string> labels_;
    std::string last_;  // label that was opened
    bool is_open_ = false;
};

}  // namespace against

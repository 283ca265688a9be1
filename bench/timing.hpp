#pragma once

// How seconds are taken and summed up.

#include <algorithm>
#include <chrono>
#include <vector>

namespace bench {

// Seconds since some moment.
inline double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class Work>
double seconds_of(Work &&work) {
    const double start = now();
    work();
    return now() - start;
}

// The value that a share of the values lies below; 0 of none.
inline double quantile(std::vector<double> values, double share) {
    if (values.empty()) {
        return 0;
    }
    const auto at = std::min(static_cast<size_t>(share * static_cast<double>(values.size())), values.size() - 1);
    const auto place = values.begin() + static_cast<std::ptrdiff_t>(at);
    std::nth_element(values.begin(), place, values.end());
    return *place;
}

inline double median(const std::vector<double> &values) { return quantile(values, 0.5); }

}  // namespace bench

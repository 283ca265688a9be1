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

inline double median(std::vector<double> values) {
    if (values.empty()) {
        return 0;
    }
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

}  // namespace bench

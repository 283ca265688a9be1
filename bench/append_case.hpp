#pragma once

// Appending ctx tokens to one layer of a cache at once, and what the machine can do for it.

#include "limits.hpp"
#include "shape.hpp"

namespace bench {

struct AppendFigures {
    double seconds;           // the median call
    double bytes_per_second;  // read and written
    double roofline_bytes_per_second;
    double limit_fraction;
};

// The rows that are appended were just read or made, as a model's are. The memory that they go to was committed by an
// earlier sequence, and no CPU cache holds it.
class AppendCase {
public:
    explicit AppendCase(const Shape &shape);

    const Shape &shape() const { return shape_; }
    CopyLimit &limits() { return limits_; }

    double time_append();  // runs once
    AppendFigures figures(double seconds) const;

private:
    void next_place();
    uint64_t bytes() const;

    Shape shape_;
    kvlane::Cache cache_;
    size_t k_size_;
    std::vector<float> rows_;  // k, then v
    uint32_t layer_;           // that was appended to last
    CopyLimit limits_;
};

}  // namespace bench

#pragma once

// Appending ctx tokens to one layer of a cache at once, as a model does between its other work, and what the machine can do
// for it.

#include "limits.hpp"
#include "shape.hpp"

namespace bench {

struct AppendFigures {
    double seconds;           // the median call
    double bytes_per_second;  // read and written
    double roofline_bytes_per_second;
    double limit_fraction;
};

// The memory that the rows go to was committed by an earlier sequence; no CPU cache holds it.
class AppendCase {
public:
    explicit AppendCase(const Shape &shape);

    const Shape &shape() const { return shape_; }

    // Each runs once; interleaved, they see the same machine.
    double time_append();
    void sample_limits() { limit_.sample(interlude_, rows_); }

    void forget() { limit_.forget(); }
    AppendFigures figures(double seconds) const;

private:
    uint64_t bytes() const;

    Shape shape_;
    kvlane::Cache cache_;
    size_t k_size_;
    std::vector<float> rows_;  // k, then v
    uint32_t layer_ = 0;       // the next to be appended to
    Interlude interlude_;
    CopyLimit limit_;
};

}  // namespace bench

#pragma once

// A model's attention over filled caches, one call at a time, and what the machine can do for it.

#include <optional>

#include "kvlane/tbb.hpp"
#include "layout.hpp"
#include "limits.hpp"
#include "timing.hpp"

namespace bench {

struct DecodeFigures {
    double seconds;  // the median call: one token of each sequence through one layer
    double kv_bytes_per_second;
    double roofline_bytes_per_second;
    double multiply_adds_per_second;  // the peak
    double roofline_fraction;
    double limit_fraction;
    double concurrency;  // of the limits' samples
};

// The same shape in f16.
Shape in_f16(Shape shape);

// What the naive attention reads instead: rows, those of f16 for integers.
Shape in_rows(const Shape &shape);

// Layers filled with random keys and values, a cache's or rows: more than the last-level cache holds where the shape is
// cold, one otherwise. Calls run on oneTBB's threads.
class DecodeCase {
public:
    explicit DecodeCase(const Shape &shape);

    // What a case of that shape takes, but for the memory that limits are sampled over.
    static uint64_t memory_bytes(const Shape &shape);

    const Shape &shape() const { return shape_; }

    // Each runs once, the first two return their seconds; interleaved, they see the same machine.
    double time_decode();
    double time_naive();  // of one sequence of rows
    void sample_limits() { limits_.sample(); }

    void forget() { limits_.forget(); }
    // What the limits sampled so far say of a call of that many seconds.
    DecodeFigures figures(double seconds) const;

    // Relative L2 difference between one sequence's output and the scalar isa's plain code over what the cache's same layer
    // reads back.
    double error_against_reference();
    bool is_fast() const { return std::string_view(attention_.kernel()).ends_with("/fast"); }

private:
    std::vector<kvl_view> views_of_layer();
    void next_layer();
    uint64_t kv_bytes() const;
    double multiply_adds() const;
    void decode();
    void naive(const Baseline &with, const kvl_view &rows);

    template <class Work>
    double seconds_of_call(Work &&work);

    Shape shape_;
    kvl_executor executor_;
    std::vector<std::vector<kvlane::Cache>> cache_sets_;  // all alike, each with one a sequence; none of rows
    std::optional<Plane> rows_;                           // of the only sequence
    std::vector<LaidOut> layouts_;                        // of the sequences
    kvlane::Attention attention_;
    kvlane::Workspace workspace_;
    std::vector<float> q_;  // the same for every sequence
    std::vector<float> out_;
    std::vector<float> naive_out_;
    std::vector<float> scores_;
    size_t set_ = 0;  // whose layer the views show
    uint32_t layer_ = 0;
    std::vector<kvl_view> views_;
    std::vector<uint64_t> mask_bits_;
    kvl_mask mask_;  // that the sequences have by rule
    std::vector<kvl_sequence> sequences_;
    ReadLimits limits_;
};

// The same over quantised keys and values, by turns with a cache of f16.
class AgainstF16Case {
public:
    explicit AgainstF16Case(const Shape &shape);

    const Shape &shape() const { return quantised_.shape(); }

    double time_decode();
    void sample_limits() { quantised_.sample_limits(); }

    void forget();
    DecodeFigures figures(double seconds) const { return quantised_.figures(seconds); }
    // The median call's time, of those since forget, over f16's.
    double time_against_f16() const { return median(seconds_) / median(f16_seconds_); }

private:
    DecodeCase quantised_;
    DecodeCase f16_;
    std::vector<double> seconds_;
    std::vector<double> f16_seconds_;
};

}  // namespace bench

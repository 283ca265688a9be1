#pragma once

// What the machine can do, sampled in between the calls that are measured against it.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "baseline.hpp"
#include "buffers.hpp"
#include "timing.hpp"

namespace bench {

// When a thread computed, on cache lines that no other writes.
struct alignas(128) Stretch {
    double start;
    double end;
};
using Stretches = std::vector<Stretch>;

// For calls that read that many bytes: reading as many, as cold or as hot, and multiply-adds; on the threads of their
// executor.
class ReadLimits {
public:
    ReadLimits(uint64_t bytes, const kvl_executor &executor, int n_threads, bool cold);

    void sample();  // one way to read, in turn, and the multiply-adds
    void forget();

    double bytes_per_second() const;  // the roofline: the best way to read
    double multiply_adds_per_second() const;

    // How much of the time from the first thread's start to the last one's end the threads computed, the median sample: 1
    // where each had a core from start to end, 1 / n where n threads took turns on one.
    double concurrency() const { return median(concurrencies_); }

private:
    void sample_read();
    void sample_multiply_adds();

    template <class Work>
    Stretches run_on_all_threads(bool warm, Work &&work) const;

    kvl_executor executor_;
    int n_threads_;
    bool cold_;
    size_t slice_;
    std::shared_ptr<Plane> plane_;  // once it is sampled
    int variant_ = 0;
    std::vector<double> read_rates_[n_read_variants];
    std::vector<double> multiply_add_rates_;
    std::vector<double> concurrencies_;
};

// What lies between two layers' appends when a model decodes: weights are read, so that no cache holds anything else, then
// new rows are made.
class Interlude {
public:
    Interlude();
    void pass(std::span<float> rows);

private:
    Plane weights_;
};

// For an append of rows that reads and writes that many bytes in all: a copy that reads and writes as many.
class CopyLimit {
public:
    explicit CopyLimit(uint64_t bytes_read_and_written);

    void sample(Interlude &interlude, std::span<float> rows);
    void forget() { rates_.clear(); }

    double bytes_per_second() const;  // read and written

private:
    size_t bytes_;
    Plane plane_;
    std::vector<double> rates_;
};

}  // namespace bench

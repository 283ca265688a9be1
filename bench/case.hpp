#pragma once

// One case to measure: a model's attention over filled caches, and what the machine can do for it.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "baseline.hpp"
#include "kvlane/kvlane.hpp"
#include "kvlane/openmp.hpp"

namespace bench {

struct Model {
    const char *name;
    uint32_t n_query_heads;
    uint32_t n_kv_heads;
    uint32_t head_dim;

    bool operator==(const Model &) const = default;
};

inline constexpr Model models[] = {
#define MODEL(name, n_query_heads, n_kv_heads, head_dim) {name, n_query_heads, n_kv_heads, head_dim},
#include "models.inc"
#undef MODEL
};

struct Shape {
    Model model;
    kvlane::Format k_format;
    kvlane::Format v_format;
    int64_t ctx;
    int threads;
    bool cold;  // every call's keys and values come from memory, or else from the caches of the call before

    bool operator==(const Shape &) const = default;
    std::string format_name() const;  // "f16", or "f16+bf16" where K and V differ
    uint64_t kv_bytes() const;
    double multiply_adds() const;
};

// Medians of seconds, and what they say.
struct Timing {
    double seconds;                   // one call: one token through one layer
    double read_bytes_per_second;     // the roofline: the best way to read, in this run
    double multiply_adds_per_second;  // the peak, in this run
};

double roofline_fraction(const Shape &shape, const Timing &timing);
double limit_fraction(const Shape &shape, const Timing &timing);

// Layers filled with random keys and values: more than the last-level cache holds where the shape is cold, one otherwise.
class Case {
public:
    explicit Case(const Shape &shape);

    const Shape &shape() const { return shape_; }

    // Each runs once and returns its seconds; interleaved, they see the same machine.
    double time_decode();
    double time_naive();
    void sample_limits();  // one way to read, in turn, and the multiply-adds
    void forget_limits();

    // The limits sampled so far, with the seconds that the caller took.
    Timing timing(std::vector<double> seconds) const;

    // Relative L2 difference between an output and the scalar isa's plain code over the same layer.
    double error_against_reference();

private:
    uint32_t next_layer();
    void naive_head(const Baseline &with, uint32_t layer, uint32_t query_head);

    Shape shape_;
    uint32_t n_layers_;
    kvlane::OpenMpPool pool_;
    kvl_executor executor_;
    kvlane::Cache cache_;
    kvlane::Cache read_pool_;
    kvlane::Attention attention_;
    kvlane::Workspace workspace_;
    std::vector<float> q_;
    std::vector<float> out_;
    std::vector<float> naive_out_;
    std::vector<float> scores_;
    uint32_t layer_ = 0;
    int variant_ = 0;
    size_t read_at_ = 0;
    std::vector<double> read_rates_[n_read_variants];
    std::vector<double> multiply_add_rates_;
};

double median(std::vector<double> values);

}  // namespace bench

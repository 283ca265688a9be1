#pragma once

#include <kvlane/kvlane.hpp>

#include <complex>
#include <cstdint>
#include <span>
#include <vector>

#include "checkpoint.hpp"

namespace llama2 {

/// How keys and values are stored.
struct CacheFormat {
    kvlane::Format k = kvlane::Format::f16;
    kvlane::Format v = kvlane::Format::f16;
    kvlane::Rotation rotation = kvlane::Rotation::by_format;  // of both
    int64_t n_first_f16 = 0;                                  // tokens of q8 and q4 that are kept in f16
    int64_t n_recent_f16 = 0;
};

/// A model and the one sequence that it is at: kvlane holds that sequence's keys and values and attends to them.
class Model {
public:
    /// Pre:    checkpoint and executor outlive the model; a null executor is the calling thread
    Model(const Checkpoint &checkpoint, const CacheFormat &format, const kvl_executor *executor);

    /// Appends a token to the sequence.
    /// -> logits of the token after it [vocab_size], good until the next call
    /// Pre:    token < vocab_size
    /// Errors: kvlane::Error when the sequence has seq_len tokens
    std::span<const float> forward(uint32_t token);

    const kvlane::Cache &cache() const { return cache_; }

private:
    void attend(uint32_t layer);
    void feed_forward(uint32_t layer);
    void multiply(std::span<float> out, std::span<const float> matrix, std::span<const float> x) const;

    const Config &config_;
    const Weights &weights_;
    const kvl_executor *executor_;
    kvlane::Cache cache_;
    kvlane::Attention attention_;
    kvlane::Workspace workspace_;

    std::vector<float> x_;                    // [dim], what the layers add to
    std::vector<float> normed_;               // [dim]
    std::vector<float> added_;                // [dim], what a block adds to x
    std::vector<float> q_;                    // [n_query_heads, head_dim]
    std::vector<float> k_;                    // [n_kv_heads, head_dim]
    std::vector<float> v_;                    // [n_kv_heads, head_dim]
    std::vector<float> attended_;             // [n_query_heads, head_dim]
    std::vector<float> gate_;                 // [hidden_dim]
    std::vector<float> up_;                   // [hidden_dim]
    std::vector<float> logits_;               // [vocab_size]
    std::vector<std::complex<float>> turns_;  // [head_dim / 2], of the token's position
};

}  // namespace llama2

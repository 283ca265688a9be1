#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llama2 {

/// The shape of a model.
struct Config {
    uint32_t dim;
    uint32_t hidden_dim;
    uint32_t n_layers;
    uint32_t n_query_heads;
    uint32_t n_kv_heads;
    uint32_t vocab_size;
    uint32_t seq_len;     // most tokens of one sequence
    bool has_classifier;  // false: the logits reuse the token embedding

    uint32_t head_dim() const { return dim / n_query_heads; }
    uint32_t kv_dim() const { return n_kv_heads * head_dim(); }
};

/// One layer's weights. Matrices are [rows, columns], to be multiplied by a column.
struct LayerWeights {
    std::span<const float> attention_norm;     // [dim]
    std::span<const float> query;              // [dim, dim]
    std::span<const float> key;                // [kv_dim, dim]
    std::span<const float> value;              // [kv_dim, dim]
    std::span<const float> output;             // [dim, dim]
    std::span<const float> feed_forward_norm;  // [dim]
    std::span<const float> gate;               // [hidden_dim, dim]
    std::span<const float> down;               // [dim, hidden_dim]
    std::span<const float> up;                 // [hidden_dim, dim]
};

/// All weights.
struct Weights {
    std::span<const float> token_embedding;  // [vocab_size, dim]
    std::vector<LayerWeights> layers;
    std::span<const float> final_norm;  // [dim]
    std::span<const float> classifier;  // [vocab_size, dim]
};

/// A model as llama2.c's first ("legacy") format stores it: seven int32, then float32 weights.
class Checkpoint {
public:
    /// Loads a file.
    /// Errors: the file cannot be read, a header value is out of its range, the size is not what the header asks for
    explicit Checkpoint(const std::string &path);
    Checkpoint(const Checkpoint &) = delete;
    Checkpoint &operator=(const Checkpoint &) = delete;

    const Config &config() const { return config_; }
    const Weights &weights() const { return weights_; }

private:
    Config config_;
    std::vector<float> data_;
    Weights weights_;  // points into data_
};

}  // namespace llama2

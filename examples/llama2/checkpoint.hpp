#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace llama2 {

/// The shape of a model, and the constants of its operators.
struct Config {
    uint32_t dim;
    uint32_t hidden_dim;
    uint32_t n_layers;
    uint32_t n_query_heads;
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t vocab_size;
    uint32_t seq_len;     // largest number of tokens of one sequence
    bool has_classifier;  // false: the logits reuse the token embedding
    float norm_epsilon = 1e-5f;
    float rope_theta = 10000;

    uint32_t query_dim() const { return n_query_heads * head_dim; }
    uint32_t kv_dim() const { return n_kv_heads * head_dim; }
};

/// One layer's weights. Matrices are [rows, columns], to be multiplied by a column. Rows of query and key are in the order
/// in which RoPE rotates adjacent pairs of a head.
struct LayerWeights {
    std::vector<float> attention_norm;     // [dim]
    std::vector<float> query;              // [query_dim, dim]
    std::vector<float> key;                // [kv_dim, dim]
    std::vector<float> value;              // [kv_dim, dim]
    std::vector<float> output;             // [dim, query_dim]
    std::vector<float> feed_forward_norm;  // [dim]
    std::vector<float> gate;               // [hidden_dim, dim]
    std::vector<float> down;               // [dim, hidden_dim]
    std::vector<float> up;                 // [hidden_dim, dim]
};

/// All weights.
struct Weights {
    std::vector<float> token_embedding;  // [vocab_size, dim]
    std::vector<LayerWeights> layers;
    std::vector<float> final_norm;  // [dim]
    std::vector<float> classifier;  // [vocab_size, dim]; empty without has_classifier
};

/// A model.
struct Checkpoint {
    Config config;
    Weights weights;
};

/// Returns the number of a model's weights.
uint64_t n_weights(const Config &config);

/// Loads a model: a file in llama2.c's first ("legacy") format, seven int32 and then f32 weights, or a directory of Hugging
/// Face's with a Llama's config.json and all weights in model.safetensors, in f32, f16 or bf16.
/// Errors: std::runtime_error, which names the file, what is wrong in it and what is allowed
Checkpoint load_checkpoint(const std::string &path);

}  // namespace llama2

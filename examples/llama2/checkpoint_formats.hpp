#pragma once

// What the two formats of checkpoints share. Each is read in a file of its own.

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "input_file.hpp"

namespace llama2 {

Checkpoint load_llama2c(const std::string &path);
Checkpoint load_hugging_face(const std::string &directory);

/// One kind of weight that every layer has.
struct LayerWeight {
    std::vector<float> LayerWeights::*weight;
    std::vector<uint64_t> shape;  // [elements] or [rows, columns]
    const char *name;             // Hugging Face's, after "model.layers.N."

    uint64_t size() const { return shape.front() * (shape.size() == 2 ? shape.back() : 1); }
};

/// Returns the number of the token embedding's weights, which is that of the classifier's.
inline uint64_t embedding_size(const Config &config) { return uint64_t{config.vocab_size} * config.dim; }

/// Returns a layer's weights in llama2.c's order.
std::vector<LayerWeight> layer_weights(const Config &config);

// What a config's numbers may be: far above any model, and small enough that no size computed from them overflows.
constexpr int64_t max_dim = 1 << 20;
constexpr int64_t max_vocab_size = 1 << 24;
constexpr int64_t min_vocab_size = 3;  // the unknown token, the one that begins a text, the one that ends it

/// Returns a number of a file.
/// Errors: it is not least to most, or not a multiple of of
uint32_t checked_range(const InputFile &file, const std::string &name, int64_t value, int64_t least, int64_t most);
void check_multiple(const InputFile &file, const std::string &name, uint32_t value, const std::string &of_name, uint32_t of);

}  // namespace llama2

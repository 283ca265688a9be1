// llama2.c's first format: seven int32, then f32 weights.

#include <kvlane/kvlane.hpp>

#include <cstdlib>
#include <limits>
#include <span>
#include <utility>

#include "checkpoint_formats.hpp"

namespace llama2 {
namespace {

constexpr uint64_t header_bytes = 7 * sizeof(int32_t);

Config read_config(InputFile &file) {
    if (file.size() < header_bytes) {
        file.fail("it is " + std::to_string(file.size()) + " bytes; the header of a checkpoint alone is " +
                  std::to_string(header_bytes));
    }
    const auto next = [&] { return int64_t{file.read<int32_t>()}; };
    Config config;
    config.dim = checked_range(file, "dim", next(), 1, max_dim);
    config.hidden_dim = checked_range(file, "hidden_dim", next(), 1, max_dim);
    config.n_layers = checked_range(file, "n_layers", next(), 1, KVL_MAX_LAYERS);
    config.n_query_heads = checked_range(file, "n_heads", next(), 1, KVL_MAX_HEADS);
    config.n_kv_heads = checked_range(file, "n_kv_heads", next(), 1, config.n_query_heads);
    const int64_t vocab_size = next();
    config.has_classifier = vocab_size < 0;
    config.vocab_size =
        checked_range(file, "vocab_size, its sign aside,", std::abs(vocab_size), min_vocab_size, max_vocab_size);
    config.seq_len = checked_range(file, "seq_len", next(), 1, std::numeric_limits<int32_t>::max());

    check_multiple(file, "dim", config.dim, "n_heads", config.n_query_heads);
    check_multiple(file, "n_heads", config.n_query_heads, "n_kv_heads", config.n_kv_heads);
    config.head_dim = checked_range(file, "dim / n_heads", config.dim / config.n_query_heads, 2, KVL_MAX_HEAD_DIM);
    check_multiple(file, "dim / n_heads", config.head_dim, "RoPE's pairs", 2);
    return config;
}

// Tables of RoPE, which the model computes itself.
uint64_t rope_size(const Config &config) { return uint64_t{config.seq_len} * config.head_dim; }

void check_size(const InputFile &file, const Config &config) {
    const uint64_t expected = header_bytes + (n_weights(config) + rope_size(config)) * sizeof(float);
    if (file.size() != expected) {
        file.fail("it is " + std::to_string(file.size()) + " bytes; a checkpoint with its header is " +
                  std::to_string(expected));
    }
}

std::vector<float> read_floats(InputFile &file, uint64_t n) {
    std::vector<float> floats(n);
    file.read(std::span(floats));
    return floats;
}

// One kind of weight of all layers follows the other.
std::vector<LayerWeights> read_layers(InputFile &file, const Config &config) {
    std::vector<LayerWeights> layers(config.n_layers);
    for (const LayerWeight &kind : layer_weights(config)) {
        for (LayerWeights &layer : layers) {
            layer.*kind.weight = read_floats(file, kind.size());
        }
    }
    return layers;
}

}  // namespace

Checkpoint load_llama2c(const std::string &path) {
    InputFile file(path);
    const Config config = read_config(file);
    check_size(file, config);
    Weights weights;
    weights.token_embedding = read_floats(file, embedding_size(config));
    weights.layers = read_layers(file, config);
    weights.final_norm = read_floats(file, config.dim);
    if (config.has_classifier) {
        read_floats(file, rope_size(config));
        weights.classifier = read_floats(file, embedding_size(config));
    }
    return {config, std::move(weights)};
}

}  // namespace llama2

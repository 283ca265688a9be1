#include "checkpoint.hpp"

#include <kvlane/kvlane.hpp>

#include <cstdlib>
#include <limits>

#include "input_file.hpp"

namespace llama2 {
namespace {

constexpr uint64_t header_bytes = 7 * sizeof(int32_t);

// Far above any model, and small enough that no size computed from them overflows.
constexpr int64_t max_dim = 1 << 20;
constexpr int64_t max_vocab_size = 1 << 24;
constexpr int64_t min_vocab_size = 3;  // the unknown token, the one that begins a text, the one that ends it

uint32_t checked(const InputFile &file, const char *name, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most) {
        file.fail(std::string(name) + " is " + std::to_string(value) + "; it must be " + std::to_string(least) + " to " +
                  std::to_string(most));
    }
    return static_cast<uint32_t>(value);
}

void check_multiple(const InputFile &file, const char *name, uint32_t value, const char *of_name, uint32_t of) {
    if (value % of != 0) {
        file.fail(std::string(name) + " is " + std::to_string(value) + "; it must be a multiple of " + of_name + ", " +
                  std::to_string(of));
    }
}

Config read_config(InputFile &file) {
    if (file.size() < header_bytes) {
        file.fail("it is " + std::to_string(file.size()) + " bytes; the header of a checkpoint alone is " +
                  std::to_string(header_bytes));
    }
    const auto next = [&] { return int64_t{file.read<int32_t>()}; };
    Config config;
    config.dim = checked(file, "dim", next(), 1, max_dim);
    config.hidden_dim = checked(file, "hidden_dim", next(), 1, max_dim);
    config.n_layers = checked(file, "n_layers", next(), 1, KVL_MAX_LAYERS);
    config.n_query_heads = checked(file, "n_heads", next(), 1, KVL_MAX_HEADS);
    config.n_kv_heads = checked(file, "n_kv_heads", next(), 1, config.n_query_heads);
    const int64_t vocab_size = next();
    config.has_classifier = vocab_size < 0;
    config.vocab_size = checked(file, "vocab_size, its sign aside,", std::abs(vocab_size), min_vocab_size, max_vocab_size);
    config.seq_len = checked(file, "seq_len", next(), 1, std::numeric_limits<int32_t>::max());

    check_multiple(file, "dim", config.dim, "n_heads", config.n_query_heads);
    check_multiple(file, "n_heads", config.n_query_heads, "n_kv_heads", config.n_kv_heads);
    checked(file, "dim / n_heads", config.head_dim(), 2, KVL_MAX_HEAD_DIM);
    check_multiple(file, "dim / n_heads", config.head_dim(), "RoPE's pairs", 2);
    return config;
}

// Cuts data into pieces. It counts on past the end, so that the size that was wanted is known at last.
class Cutter {
public:
    explicit Cutter(std::span<const float> data) : data_(data) {}

    std::span<const float> take(uint64_t n) {
        const uint64_t begin = taken_;
        taken_ += n;
        return taken_ <= data_.size() ? data_.subspan(begin, n) : std::span<const float>();
    }

    uint64_t taken() const { return taken_; }

private:
    std::span<const float> data_;
    uint64_t taken_ = 0;
};

// The file holds one kind of weight of all layers, then the next kind.
void cut_layers(Cutter &cutter, const Config &config, std::vector<LayerWeights> &layers) {
    const uint64_t dim = config.dim;
    const struct {
        std::span<const float> LayerWeights::*weight;
        uint64_t size;
    } kinds[] = {
        {&LayerWeights::attention_norm, dim},
        {&LayerWeights::query, dim * dim},
        {&LayerWeights::key, config.kv_dim() * dim},
        {&LayerWeights::value, config.kv_dim() * dim},
        {&LayerWeights::output, dim * dim},
        {&LayerWeights::feed_forward_norm, dim},
        {&LayerWeights::gate, config.hidden_dim * dim},
        {&LayerWeights::down, dim * config.hidden_dim},
        {&LayerWeights::up, config.hidden_dim * dim},
    };
    layers.resize(config.n_layers);
    for (const auto &kind : kinds) {
        for (LayerWeights &layer : layers) {
            layer.*kind.weight = cutter.take(kind.size);
        }
    }
}

Weights cut_weights(Cutter &cutter, const Config &config) {
    const uint64_t embedding_size = uint64_t{config.vocab_size} * config.dim;
    Weights weights;
    weights.token_embedding = cutter.take(embedding_size);
    cut_layers(cutter, config, weights.layers);
    weights.final_norm = cutter.take(config.dim);
    cutter.take(uint64_t{config.seq_len} * config.head_dim());  // tables of RoPE, which the model computes itself
    weights.classifier = config.has_classifier ? cutter.take(embedding_size) : weights.token_embedding;
    return weights;
}

}  // namespace

Checkpoint::Checkpoint(const std::string &path) {
    InputFile file(path);
    config_ = read_config(file);
    data_.resize((file.size() - header_bytes) / sizeof(float));
    file.read(std::span(data_));
    Cutter cutter(data_);
    weights_ = cut_weights(cutter, config_);
    const uint64_t expected = header_bytes + cutter.taken() * sizeof(float);
    if (file.size() != expected) {
        file.fail("it is " + std::to_string(file.size()) + " bytes; a checkpoint with its header is " +
                  std::to_string(expected));
    }
}

}  // namespace llama2

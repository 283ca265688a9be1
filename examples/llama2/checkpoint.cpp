#include "checkpoint.hpp"

#include <filesystem>
#include <system_error>

#include "checkpoint_formats.hpp"

namespace llama2 {

Checkpoint load_checkpoint(const std::string &path) {
    std::error_code ignored;  // what is wrong with a path is said where it is opened
    return std::filesystem::is_directory(path, ignored) ? load_hugging_face(path) : load_llama2c(path);
}

uint64_t n_weights(const Config &config) {
    uint64_t n = embedding_size(config) * (config.has_classifier ? 2 : 1) + config.dim;
    for (const LayerWeight &kind : layer_weights(config)) {
        n += config.n_layers * kind.size();
    }
    return n;
}

std::vector<LayerWeight> layer_weights(const Config &config) {
    const uint64_t dim = config.dim, query_dim = config.query_dim(), kv_dim = config.kv_dim(),
                   hidden_dim = config.hidden_dim;
    return {
        {&LayerWeights::attention_norm, {dim}, "input_layernorm.weight"},
        {&LayerWeights::query, {query_dim, dim}, "self_attn.q_proj.weight"},
        {&LayerWeights::key, {kv_dim, dim}, "self_attn.k_proj.weight"},
        {&LayerWeights::value, {kv_dim, dim}, "self_attn.v_proj.weight"},
        {&LayerWeights::output, {dim, query_dim}, "self_attn.o_proj.weight"},
        {&LayerWeights::feed_forward_norm, {dim}, "post_attention_layernorm.weight"},
        {&LayerWeights::gate, {hidden_dim, dim}, "mlp.gate_proj.weight"},
        {&LayerWeights::down, {dim, hidden_dim}, "mlp.down_proj.weight"},
        {&LayerWeights::up, {hidden_dim, dim}, "mlp.up_proj.weight"},
    };
}

uint32_t checked_range(const InputFile &file, const std::string &name, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most) {
        file.fail(name + " is " + std::to_string(value) + "; it must be " + std::to_string(least) + " to " +
                  std::to_string(most));
    }
    return static_cast<uint32_t>(value);
}

void check_multiple(const InputFile &file, const std::string &name, uint32_t value, const std::string &of_name,
                    uint32_t of) {
    if (value % of != 0) {
        file.fail(name + " is " + std::to_string(value) + "; it must be a multiple of " + of_name + ", " +
                  std::to_string(of));
    }
}

}  // namespace llama2

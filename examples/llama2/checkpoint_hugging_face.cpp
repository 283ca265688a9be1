// Hugging Face's format of a Llama: config.json and model.safetensors.

#include <kvlane/kvlane.hpp>

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "checkpoint_formats.hpp"
#include "safetensors.hpp"

namespace llama2 {
namespace {

using nlohmann::json;

/// The fields of config.json. One that is null counts as missing.
class ConfigFile {
public:
    explicit ConfigFile(const std::string &path) : file_(path) {
        try {
            fields_ = json::parse(file_.read_text());
        } catch (const json::exception &error) {
            file_.fail(error.what());
        }
        if (!fields_.is_object()) {
            file_.fail(std::string("it is a JSON ") + fields_.type_name() + "; it must be an object");
        }
        const json rope = fields_.value("rope_parameters", json());  // where later versions keep RoPE's fields
        if (rope.is_object()) {
            fields_.update(rope);
        }
    }

    uint32_t integer(const char *name, int64_t least, int64_t most, const json &if_missing = {}) const {
        const json value = get(name, if_missing);
        if (!value.is_number_integer()) {
            file_.fail(std::string(name) + " is " + value.dump() + "; it must be an integer");
        }
        return checked_range(file_, name, value, least, most);
    }

    float real(const char *name, double least, double most, const json &if_missing) const {
        const json value = get(name, if_missing);
        if (!value.is_number() || value < least || value > most) {
            file_.fail(std::string(name) + " is " + value.dump() + "; it must be " + json(least).dump() + " to " +
                       json(most).dump());
        }
        return value;
    }

    bool boolean(const char *name, bool if_missing) const {
        const json value = get(name, if_missing);
        if (!value.is_boolean()) {
            file_.fail(std::string(name) + " is " + value.dump() + "; it must be true or false");
        }
        return value;
    }

    /// Refuses what the model does not compute.
    void expect(const char *name, const json &only) const {
        const json value = get(name, only);
        if (value != only) {
            file_.fail(std::string(name) + " is " + value.dump() + "; it must be " + only.dump());
        }
    }

    const InputFile &file() const { return file_; }

private:
    json get(const char *name, const json &if_missing) const {
        const json value = fields_.value(name, json());
        return value.is_null() ? if_missing : value;
    }

    InputFile file_;
    json fields_;
};

// The defaults are those of Hugging Face's LlamaConfig.
Config read_config(const std::string &path) {
    const ConfigFile from(path);
    from.expect("model_type", "llama");
    from.expect("hidden_act", "silu");
    from.expect("attention_bias", false);
    from.expect("mlp_bias", false);
    from.expect("rope_scaling", nullptr);
    from.expect("rope_type", "default");
    Config config;
    config.dim = from.integer("hidden_size", 1, max_dim);
    config.hidden_dim = from.integer("intermediate_size", 1, max_dim);
    config.n_layers = from.integer("num_hidden_layers", 1, KVL_MAX_LAYERS);
    config.n_query_heads = from.integer("num_attention_heads", 1, KVL_MAX_HEADS);
    config.n_kv_heads = from.integer("num_key_value_heads", 1, config.n_query_heads, config.n_query_heads);
    config.head_dim = from.integer("head_dim", 2, KVL_MAX_HEAD_DIM, config.dim / config.n_query_heads);
    config.vocab_size = from.integer("vocab_size", min_vocab_size, max_vocab_size);
    config.seq_len = from.integer("max_position_embeddings", 1, std::numeric_limits<int32_t>::max());
    config.has_classifier = !from.boolean("tie_word_embeddings", false);
    config.norm_epsilon = from.real("rms_norm_eps", 0, 1, 1e-6);
    config.rope_theta = from.real("rope_theta", 1, 1e12, 1e4);
    check_multiple(from.file(), "num_attention_heads", config.n_query_heads, "num_key_value_heads", config.n_kv_heads);
    check_multiple(from.file(), "head_dim", config.head_dim, "RoPE's pairs", 2);
    return config;
}

// Hugging Face's RoPE rotates elements i and i + head_dim / 2 of a head together, the model adjacent ones: 2 i and 2 i + 1.
std::vector<float> interleave_halves(const std::vector<float> &rows, const Config &config) {
    const size_t half = config.head_dim / 2, n_rows = rows.size() / config.dim;
    std::vector<float> interleaved(rows.size());
    for (size_t row = 0; row < n_rows; ++row) {
        const size_t i = row % config.head_dim;
        const size_t to = row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
        std::copy_n(&rows[row * config.dim], config.dim, &interleaved[to * config.dim]);
    }
    return interleaved;
}

LayerWeights take_layer(Safetensors &tensors, const Config &config, uint32_t layer) {
    LayerWeights weights;
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    for (const LayerWeight &kind : layer_weights(config)) {
        weights.*kind.weight = tensors.take(prefix + kind.name, kind.shape);
    }
    weights.query = interleave_halves(weights.query, config);
    weights.key = interleave_halves(weights.key, config);
    return weights;
}

}  // namespace

Checkpoint load_hugging_face(const std::string &directory) {
    const Config config = read_config(directory + "/config.json");
    Safetensors tensors(directory + "/model.safetensors");
    const std::vector<uint64_t> embedding_shape{config.vocab_size, config.dim};
    Weights weights;
    weights.token_embedding = tensors.take("model.embed_tokens.weight", embedding_shape);
    for (uint32_t layer = 0; layer < config.n_layers; ++layer) {
        weights.layers.push_back(take_layer(tensors, config, layer));
    }
    weights.final_norm = tensors.take("model.norm.weight", {config.dim});
    if (config.has_classifier) {
        weights.classifier = tensors.take("lm_head.weight", embedding_shape);
    }
    tensors.check_all_taken();
    return {config, std::move(weights)};
}

}  // namespace llama2

#include "model_geometry.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "../../bench/shape.hpp"

namespace tool {
namespace {

using Json = nlohmann::json;

// A JSON object whose fields are checked as they are read.
class Config {
public:
    Config(std::string path, Json fields) : path_(std::move(path)), fields_(std::move(fields)) {}

    [[noreturn]] void fail(const std::string &text) const { throw std::runtime_error(path_ + ": " + text); }

    // A field that is null counts as one that is missing.
    bool has(const char *name) const { return fields_.contains(name) && !fields_[name].is_null(); }
    const Json &operator[](const char *name) const { return fields_[name]; }

    // Returns a whole number from 1 to `most`.
    uint32_t number(const char *name, uint32_t most) const {
        if (!has(name)) {
            fail(std::string("the field ") + name + " is missing");
        }
        const Json &value = fields_[name];
        if (!value.is_number_integer() || value < 1 || value > most) {
            fail(std::string(name) + " is " + value.dump() + "; it must be a whole number from 1 to " +
                 std::to_string(most));
        }
        return value.get<uint32_t>();
    }

private:
    std::string path_;
    Json fields_;
};

// The fields of the language model, which those of several modalities have in an object of its own.
Config config_in(const std::string &path) {
    std::ifstream file(path);
    if (!file || std::filesystem::is_directory(path)) {
        throw std::runtime_error("--config is " + path + "; the file cannot be read");
    }
    Json fields = Json::parse(file, nullptr, false);
    if (!fields.is_object()) {
        throw std::runtime_error("--config is " + path + "; the file must hold a JSON object");
    }
    const bool is_nested = fields.contains("text_config") && fields["text_config"].is_object();
    return {path, is_nested ? Json(fields["text_config"]) : fields};
}

uint32_t head_dim_of(const Config &config, uint32_t n_query_heads) {
    if (config.has("head_dim")) {
        return config.number("head_dim", KVL_MAX_HEAD_DIM);
    }
    const uint32_t hidden_size = config.number("hidden_size", KVL_MAX_HEAD_DIM * n_query_heads);
    if (hidden_size % n_query_heads != 0) {
        config.fail("hidden_size is " + std::to_string(hidden_size) +
                    "; without head_dim it must be a multiple of num_attention_heads, " + std::to_string(n_query_heads));
    }
    return hidden_size / n_query_heads;
}

void set_heads(const Config &config, ModelGeometry &model) {
    model.n_kv_heads =
        config.has("num_key_value_heads") ? config.number("num_key_value_heads", KVL_MAX_HEADS) : model.n_query_heads;
    if (model.n_query_heads % model.n_kv_heads != 0) {
        config.fail("num_key_value_heads is " + std::to_string(model.n_kv_heads) + "; it must divide num_attention_heads, " +
                    std::to_string(model.n_query_heads));
    }
    model.head_dim = model.v_head_dim = head_dim_of(config, model.n_query_heads);
}

// Multi-head latent attention after absorption: one KV head, a latent vector with the position encoding behind it.
void set_latent(const Config &config, ModelGeometry &model) {
    model.n_kv_heads = 1;
    model.v_head_dim = config.number("kv_lora_rank", KVL_MAX_HEAD_DIM - 1);
    model.head_dim = model.v_head_dim + config.number("qk_rope_head_dim", KVL_MAX_HEAD_DIM - model.v_head_dim);
}

// Which layers have the window is known from layer_types alone.
void set_windows(const Config &config, ModelGeometry &model) {
    if (!config.has("layer_types")) {
        return;
    }
    const Json &types = config["layer_types"];
    if (!types.is_array() || types.size() != model.n_layers) {
        config.fail("layer_types must be an array of num_hidden_layers elements, " + std::to_string(model.n_layers));
    }
    for (size_t i = 0; i < types.size(); ++i) {
        if (types[i] != "full_attention" && types[i] != "sliding_attention") {
            config.fail("layer_types[" + std::to_string(i) + "] is " + types[i].dump() +
                        "; it must be \"full_attention\" or \"sliding_attention\"");
        }
    }
    model.n_window_layers = static_cast<uint32_t>(std::ranges::count(types, Json("sliding_attention")));
    model.window = model.n_window_layers > 0 ? config.number("sliding_window", INT32_MAX) : 0;
}

}  // namespace

ModelGeometry listed_model(const std::string &name) {
    const bench::Model &model = bench::model_of(name);
    return {name, model.n_layers, model.n_query_heads, model.n_kv_heads, model.head_dim, model.head_dim};
}

ModelGeometry model_of_config(const std::string &path) {
    const Config config = config_in(path);
    ModelGeometry model{};
    model.name = path;
    model.n_layers = config.number("num_hidden_layers", KVL_MAX_LAYERS);
    model.n_query_heads = config.number("num_attention_heads", KVL_MAX_HEADS);
    config.has("kv_lora_rank") ? set_latent(config, model) : set_heads(config, model);
    set_windows(config, model);
    return model;
}

}  // namespace tool

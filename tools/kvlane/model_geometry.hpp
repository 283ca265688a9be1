#pragma once

// What of a model decides the size of its KV cache.

#include <cstdint>
#include <string>

namespace tool {

struct ModelGeometry {
    std::string name;
    uint32_t n_layers;
    uint32_t n_query_heads;
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t v_head_dim;
    uint32_t n_window_layers = 0;  // whose queries see the newest `window` tokens only
    int64_t window = 0;
};

// Returns the model of that name in bench/models.inc.
ModelGeometry listed_model(const std::string &name);

// Reads the config.json of a Hugging Face model.
// Errors: std::runtime_error when the file cannot be read or a field is missing or wrong; its text names the file, the
// field,
//         its value and what is allowed
ModelGeometry model_of_config(const std::string &path);

}  // namespace tool

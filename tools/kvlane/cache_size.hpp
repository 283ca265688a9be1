#pragma once

// The size of a model's KV cache, computed from the library's layout without making one.

#include <cstdint>

#include "kvlane/kvlane.hpp"
#include "model_geometry.hpp"

namespace tool {

struct CacheOptions {
    kvlane::Format k_format = kvlane::Format::f16;
    kvlane::Format v_format = kvlane::Format::f16;
    int64_t n_first_f16 = 0;
    int64_t n_recent_f16 = 0;
    int64_t n_tokens = 8192;  // per sequence
    uint32_t n_sequences = 1;
    uint32_t n_queries = 1;  // per sequence and call
    uint32_t n_threads = 1;
};

// Bytes of tokens in the layer's formats, by what they are.
struct TokenBytes {
    uint64_t k = 0;
    uint64_t v = 0;
    uint64_t scales = 0;
    uint64_t padding = 0;  // of head_dim and v_head_dim, and of the parts of a tile

    uint64_t sum() const { return k + v + scales + padding; }
};

struct CacheSize {
    TokenBytes per_token;      // of one layer, in its formats: their sum is kvl_layer_info.bytes_per_token
    int64_t n_stored_tokens;   // of one sequence and layer in these formats
    int64_t n_f16_tokens;      // and in f16 instead, or besides
    uint64_t f16_window;       // bytes of these
    uint64_t sequence_bytes;   // one sequence, all layers: kvl_cache_bytes
    uint64_t bytes;            // all sequences
    uint64_t read_bytes;       // of keys and values by one token of each sequence in all layers: kvl_attend_bytes
    uint64_t workspace_bytes;  // one serves all layers, one after another
};

// Errors: kvlane::Error when the library refuses the geometry or the options; std::runtime_error when a sequence takes more
//         than the 2^47 bytes that a cache can have
CacheSize size_of_cache(const ModelGeometry &model, const CacheOptions &options);

}  // namespace tool

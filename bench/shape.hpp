#pragma once

// What is measured: a model's geometry, and what a call of it sees.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kvlane/kvlane.hpp"

namespace bench {

struct Model {
    const char *name;
    uint32_t n_layers;
    uint32_t n_query_heads;
    uint32_t n_kv_heads;
    uint32_t head_dim;

    bool operator==(const Model &) const = default;
};

inline constexpr Model models[] = {
#define MODEL(name, n_layers, n_query_heads, n_kv_heads, head_dim) {name, n_layers, n_query_heads, n_kv_heads, head_dim},
#include "models.inc"
#undef MODEL
};

// Latent attention's, after absorption.
inline constexpr Model deepseek{"deepseek-v3", 61, 128, 1, 576};

// Returns the model of that name.
const Model &model_of(const std::string &name);

inline constexpr int64_t window_tokens = 1024;  // where there is one
inline constexpr int64_t own_tokens = 128;      // behind a prefix

// How keys and values lie in memory: as a cache's tiles, or as rows, of f32, f16 and bf16 alone.
enum class Layout {
    tiles,
    prefix,       // tiles; all sequences begin with the first one's tokens
    f16_window,   // tiles; the first and the recent tokens in f16
    head_major,   // rows: [kv_head][token][dim]
    token_major,  // rows: [token][kv_head][dim]
    blocks_16,    // rows: [block][kv_head][token][dim], blocks of so many tokens in random order
    blocks_256,   // alike; of q8 and q4 tiles: [kv_head][block][tile]
    latent        // rows; values are what keys begin with
};

inline constexpr uint32_t latent_v_head_dim = 512;
inline constexpr int64_t n_first_f16 = 64, n_recent_f16 = 256;  // tokens

// What else an attention object is made with, or a call.
enum class Rule { none, window, softcap, alibi, mask, exact };

inline bool is_quantized(kvlane::Format format) { return format == kvlane::Format::q8 || format == kvlane::Format::q4; }

struct Shape {
    Model model;
    kvlane::Format k_format;
    kvlane::Format v_format;
    int64_t ctx;
    int threads;
    bool cold;  // every call's keys and values come from memory, or else from the caches of the call before
    uint32_t n_sequences = 1;
    Rule rule = Rule::none;
    uint32_t n_queries = 1;  // the newest tokens'
    Layout layout = Layout::tiles;

    bool operator==(const Shape &) const = default;
    std::string format_name() const;  // "f16", or "f16+bf16" where K and V differ
    uint32_t v_head_dim() const { return layout == Layout::latent ? latent_v_head_dim : model.head_dim; }
    bool is_quantized() const { return bench::is_quantized(k_format) || bench::is_quantized(v_format); }
    bool has_rows() const;             // of one format
    uint64_t row_bytes() const;        // of a key's
    kvlane::Layer layer() const;       // of a cache
    uint64_t bytes_per_token() const;  // that one layer takes
    int64_t visible(int64_t len) const {
        return rule == Rule::window ? std::min(len, window_tokens) : rule == Rule::mask ? len / 2 : len;
    }
    int64_t max_len() const { return layout == Layout::prefix ? ctx + own_tokens : ctx; }
    std::vector<int64_t> lengths() const;  // of the sequences' caches: ctx, and shorter ones where there are several
};

}  // namespace bench

#pragma once

// What is measured: a model's geometry, and what a call of it sees.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kvlane/kvlane.hpp"
#include "layout.hpp"

namespace bench {

struct Model {
    const char *name;
    uint32_t n_query_heads;
    uint32_t n_kv_heads;
    uint32_t head_dim;

    bool operator==(const Model &) const = default;
};

inline constexpr Model models[] = {
#define MODEL(name, n_query_heads, n_kv_heads, head_dim) {name, n_query_heads, n_kv_heads, head_dim},
#include "models.inc"
#undef MODEL
};

// Latent attention's, after absorption.
inline constexpr Model deepseek{"deepseek-v3", 128, 1, 576};

// Returns the model of that name.
const Model &model_of(const std::string &name);

inline constexpr int64_t window_tokens = 1024;  // where there is one
inline constexpr int64_t own_tokens = 128;      // behind a prefix

// What else an attention object is made with, or a call.
enum class Rule { none, window, softcap, alibi, mask, exact };

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
    Layout layout = Layout::head_major;

    bool operator==(const Shape &) const = default;
    std::string format_name() const;  // "f16", or "f16+bf16" where K and V differ
    uint32_t v_head_dim() const { return layout == Layout::latent ? latent_v_head_dim : model.head_dim; }
    kvlane::Layer layer() const;
    uint64_t bytes_per_token() const;  // that one layer of a cache takes
    int64_t visible(int64_t len) const {
        return rule == Rule::window ? std::min(len, window_tokens) : rule == Rule::mask ? len / 2 : len;
    }
    int64_t max_len() const { return layout == Layout::prefix ? ctx + own_tokens : ctx; }
    std::vector<int64_t> lengths() const;  // of the sequences' caches: ctx, and shorter ones where there are several
};

}  // namespace bench

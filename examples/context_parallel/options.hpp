#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace context_parallel {

/// What the program is told.
struct Options {
    uint32_t n_layers = 2;
    uint32_t n_query_heads = 64;
    uint32_t n_kv_heads = 8;
    uint32_t head_dim = 128;
    uint32_t v_head_dim = 0;  // 0: as head_dim
    std::string format = "f16";
    int64_t window = 0;
    int64_t n_sink_tokens = 0;
    float softcap = 0;
    bool has_sink_logits = false;
    int64_t ctx = 4096;
    int64_t n_steps = 8;
    uint32_t n_queries = 1;
    std::vector<int64_t> n_chunks;  // of each rank; empty: even
    uint32_t n_pieces = 8;
    int n_threads = 1;
    bool checks = false;
};

inline void declare(CLI::App &app, Options &options, int n_ranks) {
    app.option_defaults()->always_capture_default();
    app.add_option("--layers", options.n_layers, "Layers")->check(CLI::Range(1, 65536));
    app.add_option("--query-heads", options.n_query_heads, "Query heads, a multiple of the KV heads");
    app.add_option("--kv-heads", options.n_kv_heads, "KV heads");
    app.add_option("--head-dim", options.head_dim, "Elements of a key");
    app.add_option("--v-head-dim", options.v_head_dim, "Elements of a value, 0: as --head-dim");
    app.add_option("--format", options.format, "Storage of keys and values: f32, f16, bf16, q8 or q4");
    app.add_option("--window", options.window, "Newest tokens that a query sees, 0: all");
    app.add_option("--sink-tokens", options.n_sink_tokens, "First tokens that stay visible outside the window");
    app.add_option("--softcap", options.softcap, "Of the scores, 0: none");
    app.add_flag("--sink-logits", options.has_sink_logits, "Add a sink logit of each head to the softmax's denominator");
    app.add_option("--ctx", options.ctx, "Tokens before the first step")->check(CLI::Range(0, 1 << 30));
    app.add_option("--steps", options.n_steps, "Steps that are measured")->check(CLI::Range(1, 1 << 20));
    app.add_option("--queries", options.n_queries, "New tokens in a step, each with a query")->check(CLI::Range(1, 4096));
    app.add_option("--chunks", options.n_chunks, "Chunks of 512 positions for each rank, 3,1,2 for example (default: even)")
        ->delimiter(',')
        ->expected(n_ranks)
        ->check(CLI::Range(0, 1 << 21));
    app.add_option("--pieces", options.n_pieces, "Pieces of the rows that pass through the chain one after another")
        ->check(CLI::Range(1, 65536));
    app.add_option("--threads", options.n_threads, "Threads of each rank")->check(CLI::Range(1, 1024));
    app.add_flag("--check", options.checks,
                 "Compare all outputs, on every rank, with the bits of one kvl_attend over all tokens on rank 0");
}

}  // namespace context_parallel

// kvlane size: the bytes of a model's KV cache, by part.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "../../bench/shape.hpp"
#include "cache_size.hpp"
#include "commands.hpp"
#include "kvlane/tbb.hpp"
#include "text.hpp"

namespace tool {
namespace {

struct SizeOptions {
    std::string model;
    std::string config;
    std::string cache = "f16";
    CacheOptions of_cache;
    bool json = false;
};

std::string format_names() {
    std::string names;
    for (kvl_format format = 0; const char *name = kvl_format_name(format); ++format) {
        names += (names.empty() ? "" : ", ") + std::string(name);
    }
    return names;
}

// "q8", or "q8+q4": that of keys and that of values.
void set_formats(const std::string &name, CacheOptions &options) {
    const size_t plus = name.find('+');
    try {
        options.k_format = kvlane::format_from_name(name.substr(0, plus));
        options.v_format = plus == std::string::npos ? options.k_format : kvlane::format_from_name(name.substr(plus + 1));
    } catch (const kvlane::Error &) {
        throw std::runtime_error("--cache is \"" + name + "\"; it must be one of " + format_names() +
                                 ", or two of them as in q8+q4");
    }
}

void check_f16_window(const SizeOptions &options) {
    const CacheOptions &cache = options.of_cache;
    const bool has_window = cache.n_first_f16 > 0 || cache.n_recent_f16 > 0;
    if (has_window && !bench::is_quantized(cache.k_format) && !bench::is_quantized(cache.v_format)) {
        throw std::runtime_error("--first-f16 and --recent-f16 need --cache with q8 or q4; it is \"" + options.cache + "\"");
    }
}

// One row: of a token in a layer, of all tokens in a layer, and of all layers.
void print_part(const char *part, uint64_t per_token, uint64_t of_layer, uint64_t of_model) {
    std::printf("%-10s %15llu %17llu %20llu %12s\n", part, static_cast<unsigned long long>(per_token),
                static_cast<unsigned long long>(of_layer), static_cast<unsigned long long>(of_model),
                bytes_text(of_model).c_str());
}

void print_parts(const ModelGeometry &model, const CacheOptions &options, const CacheSize &size) {
    std::printf("%-10s %15s %17s %20s\n", "bytes", "token and layer", "layer", "all layers");
    const uint64_t n_tokens = options.n_sequences * static_cast<uint64_t>(size.n_stored_tokens);
    const auto print_stored = [&](const char *part, uint64_t bytes) {
        print_part(part, bytes, n_tokens * bytes, model.n_layers * n_tokens * bytes);
    };
    print_stored("keys", size.per_token.k);
    print_stored("values", size.per_token.v);
    print_stored("scales", size.per_token.scales);
    print_stored("padding", size.per_token.padding);
    if (size.n_f16_tokens > 0) {
        const uint64_t of_layer = options.n_sequences * size.f16_window;
        print_part("f16 window", size.f16_window / static_cast<uint64_t>(size.n_f16_tokens), of_layer,
                   model.n_layers * of_layer);
    }
    print_part("cache", size.per_token.sum(), size.bytes / model.n_layers, size.bytes);
    std::printf("%-10s %15s %17s %20zu %12s\n", "workspace", "", "", static_cast<size_t>(size.workspace_bytes),
                bytes_text(size.workspace_bytes).c_str());
}

void print(const ModelGeometry &model, const SizeOptions &options, const CacheSize &size) {
    const CacheOptions &cache = options.of_cache;
    std::printf("%s\nlayers %u, query heads %u, KV heads %u, head_dim %u, v_head_dim %u\n", model.name.c_str(),
                model.n_layers, model.n_query_heads, model.n_kv_heads, model.head_dim, model.v_head_dim);
    if (model.n_window_layers > 0) {
        std::printf("layers that see the newest %lld tokens only: %u; the cache keeps all tokens\n",
                    static_cast<long long>(model.window), model.n_window_layers);
    }
    std::printf("cache %s, tokens %lld, sequences %u, queries %u, threads %u\n\n", options.cache.c_str(),
                static_cast<long long>(cache.n_tokens), cache.n_sequences, cache.n_queries, cache.n_threads);
    print_parts(model, cache, size);
    std::printf("\nDecoding one token of each sequence reads %s of them.\n", bytes_text(size.read_bytes).c_str());
}

// The same numbers: per_token of one layer, the others of all layers and sequences.
nlohmann::ordered_json json_of(const ModelGeometry &model, const SizeOptions &options, const CacheSize &size) {
    const CacheOptions &cache = options.of_cache;
    return {{"model",
             {{"name", model.name},
              {"n_layers", model.n_layers},
              {"n_query_heads", model.n_query_heads},
              {"n_kv_heads", model.n_kv_heads},
              {"head_dim", model.head_dim},
              {"v_head_dim", model.v_head_dim},
              {"n_window_layers", model.n_window_layers},
              {"window", model.window}}},
            {"cache", options.cache},
            {"n_tokens", cache.n_tokens},
            {"n_sequences", cache.n_sequences},
            {"bytes_per_token",
             {{"keys", size.per_token.k},
              {"values", size.per_token.v},
              {"scales", size.per_token.scales},
              {"padding", size.per_token.padding},
              {"sum", size.per_token.sum()}}},
            {"n_f16_tokens", size.n_f16_tokens},
            {"f16_window_bytes", options.of_cache.n_sequences * model.n_layers * size.f16_window},
            {"cache_bytes", size.bytes},
            {"workspace_bytes", size.workspace_bytes},
            {"read_bytes", size.read_bytes}};
}

void run(SizeOptions &options) {
    if (options.model.empty() == options.config.empty()) {
        throw std::runtime_error("size needs either --model or --config");
    }
    set_formats(options.cache, options.of_cache);
    check_f16_window(options);
    const ModelGeometry model = options.config.empty() ? listed_model(options.model) : model_of_config(options.config);
    const CacheSize size = size_of_cache(model, options.of_cache);
    if (options.json) {
        std::puts(json_of(model, options, size).dump(2).c_str());
    } else {
        print(model, options, size);
    }
}

std::string footer() {
    std::string text = "Models            layers  query heads  KV heads  head_dim\n";
    for (const bench::Model &model : bench::models) {
        char line[80];
        std::snprintf(line, sizeof line, "  %-15s %6u %12u %9u %9u\n", model.name, model.n_layers, model.n_query_heads,
                      model.n_kv_heads, model.head_dim);
        text += line;
    }
    return text +
           "\nThe workspace serves one call at a time, and so all layers. Memory is committed\n"
           "in whole tiles of 64 tokens and in pages.";
}

}  // namespace

void declare_size(CLI::App &app) {
    CLI::App *size = app.add_subcommand("size", "Bytes of a model's KV cache and workspace");
    const auto options = std::make_shared<SizeOptions>();
    CacheOptions &cache = options->of_cache;
    cache.n_threads = static_cast<uint32_t>(tbb::info::default_concurrency());
    size->add_option("--model", options->model, "A model of those below");
    size->add_option("--config", options->config, "Or the config.json of a Hugging Face model");
    size->add_option("--ctx", cache.n_tokens, "Tokens in each sequence's cache")
        ->check(CLI::Range(int64_t{1}, KVL_MAX_TOKENS))
        ->capture_default_str();
    size->add_option("--cache", options->cache,
                     "Storage format: " + format_names() + ",\nor one of keys and one of values, as q8+q4")
        ->capture_default_str();
    size->add_option("--first-f16", cache.n_first_f16, "First tokens that q8 and q4 keep in f16")
        ->check(CLI::Range(int64_t{0}, KVL_MAX_TOKENS));
    size->add_option("--recent-f16", cache.n_recent_f16, "Recent tokens that q8 and q4 keep in f16")
        ->check(CLI::Range(int64_t{0}, KVL_MAX_TOKENS));
    size->add_option("--sequences", cache.n_sequences, "Sequences, each with a cache of its own")
        ->check(CLI::Range(1, 65536))
        ->capture_default_str();
    size->add_option("--queries", cache.n_queries, "Queries of a sequence per call")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    size->add_option("--threads", cache.n_threads, "Threads of a call")
        ->check(CLI::Range(1, KVL_MAX_TASKS))
        ->capture_default_str();
    size->add_flag("--json", options->json, "Print one JSON document instead of text");
    size->footer(footer());
    size->callback([options] { run(*options); });
}

}  // namespace tool

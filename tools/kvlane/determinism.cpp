#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <thread>

#include "../../bench/buffers.hpp"
#include "kvlane/kvlane.hpp"
#include "properties.hpp"

namespace tool {
namespace {

using kvlane::Format;

constexpr uint32_t n_kv_heads = 2, group = 2, head_dim = 64;
constexpr uint32_t n_query_heads = n_kv_heads * group;
constexpr size_t kv_entry = size_t{n_kv_heads} * head_dim, q_entry = size_t{n_query_heads} * head_dim;
constexpr int64_t n_tokens = 1300;  // three chunks

kvlane::Layer layer_of(Format format) {
    return {.n_kv_heads = n_kv_heads, .head_dim = head_dim, .k_format = format, .v_format = format};
}

// Every token has a key, a value, and a query.
struct Tokens {
    std::vector<float> k = bench::normals(n_tokens * kv_entry);
    std::vector<float> v{k.rbegin(), k.rend()};
    std::vector<float> q = bench::normals(n_tokens * q_entry);

    std::span<const float> keys(int64_t first, int64_t n) const { return part(k, first, n, kv_entry); }
    std::span<const float> values(int64_t first, int64_t n) const { return part(v, first, n, kv_entry); }
    const float *query(int64_t token) const { return &q[static_cast<size_t>(token) * q_entry]; }

private:
    static std::span<const float> part(const std::vector<float> &all, int64_t first, int64_t n, size_t entry) {
        return std::span(all).subspan(static_cast<size_t>(first) * entry, static_cast<size_t>(n) * entry);
    }
};

kvlane::Cache filled_cache(const Tokens &tokens, Format format, int64_t len) {
    kvlane::Cache cache(1, layer_of(format), n_tokens);
    cache.append(0, tokens.keys(0, len), tokens.values(0, len));
    cache.advance(len);
    return cache;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// Calls on as many threads as are wanted, whether or not there are as many CPUs.
class Threads {
public:
    explicit Threads(uint32_t n_threads) : n_threads_(n_threads) {}

    kvl_executor executor() {
        kvl_executor executor = kvl_executor_init();
        executor.parallel_for = &parallel_for;
        executor.pool = this;
        executor.n_threads = n_threads_;
        return executor;
    }

private:
    static void parallel_for(void *pool, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context) {
        std::atomic<uint32_t> next{0};
        std::vector<std::jthread> threads;
        for (uint32_t i = 0; i < static_cast<const Threads *>(pool)->n_threads_; ++i) {
            threads.emplace_back([&] {
                for (uint32_t t = next++; t < n_tasks; t = next++) {
                    task(context, t);
                }
            });
        }
    }

    uint32_t n_threads_;
};

// The output of the last token's query.
std::vector<float> output_of(const kvlane::Attention &attention, const kvl_view &view, const Tokens &tokens,
                             const kvl_executor *executor = nullptr) {
    std::vector<float> out(q_entry);
    kvlane::Workspace workspace = attention.workspace(1, view.len, 1, kvlane::max_tasks(executor));
    attention.attend(view, tokens.query(view.len - 1), out.data(), workspace, executor);
    return out;
}

bool same_with_threads(const Tokens &tokens, Format format) {
    const kvlane::Cache cache = filled_cache(tokens, format, n_tokens);
    const kvlane::Attention attention(kvlane::geometry_of(cache, 0, n_query_heads));
    const std::vector<float> alone = output_of(attention, cache.view(0), tokens);
    return std::ranges::all_of(std::initializer_list<uint32_t>{2, 3, 4, 8}, [&](uint32_t n_threads) {
        Threads threads(n_threads);
        const kvl_executor executor = threads.executor();
        return same_bits(output_of(attention, cache.view(0), tokens, &executor), alone);
    });
}

bool same_in_batch(const Tokens &tokens, Format format) {
    constexpr int64_t lengths[] = {700, n_tokens, 1, 513};
    std::vector<kvlane::Cache> caches;
    std::vector<kvl_view> views;
    for (const int64_t len : lengths) {
        views.push_back(caches.emplace_back(filled_cache(tokens, format, len)).view(0));
    }
    const kvlane::Attention attention(kvlane::geometry_of(caches[0], 0, n_query_heads));
    std::vector<float> out(views.size() * q_entry);
    std::vector<kvl_sequence> sequences;
    for (size_t i = 0; i < views.size(); ++i) {
        const int64_t len = views[i].len;
        sequences.push_back(
            kvlane::Sequence{.view = &views[i], .len = len, .q = tokens.query(len - 1), .out = &out[i * q_entry]});
    }
    kvlane::Workspace workspace = attention.workspace(static_cast<uint32_t>(sequences.size()), n_tokens);
    attention.attend(sequences, workspace);
    for (size_t i = 0; i < views.size(); ++i) {
        if (!same_bits(std::span(out).subspan(i * q_entry, q_entry), output_of(attention, views[i], tokens))) {
            return false;
        }
    }
    return true;
}

// The outputs of a prompt behind other tokens, appended and attended to in pieces of that many tokens.
std::vector<float> outputs_of_prompt(const Tokens &tokens, Format format, int64_t piece) {
    constexpr int64_t begin = 450, end = 580;  // over the end of a chunk
    kvlane::Cache cache = filled_cache(tokens, format, begin);
    const kvlane::Attention attention(kvlane::geometry_of(cache, 0, n_query_heads));
    kvlane::Workspace workspace = attention.workspace(1, n_tokens, static_cast<uint32_t>(piece));
    std::vector<float> out(static_cast<size_t>(end - begin) * q_entry);
    for (int64_t first = begin; first < end; first += piece) {
        const int64_t n = std::min(piece, end - first);
        cache.append(0, tokens.keys(first, n), tokens.values(first, n));
        const kvl_view view = cache.view(0);
        attention.attend(kvlane::Sequence{.view = &view,
                                          .len = view.len,
                                          .n_queries = static_cast<uint32_t>(n),
                                          .q = tokens.query(first),
                                          .out = &out[static_cast<size_t>(first - begin) * q_entry]},
                         workspace);
        cache.advance(n);
    }
    return out;
}

bool same_in_pieces(const Tokens &tokens, Format format) {
    const std::vector<float> at_once = outputs_of_prompt(tokens, format, 130);
    return std::ranges::all_of(std::initializer_list<int64_t>{1, 7, 64},
                               [&](int64_t piece) { return same_bits(outputs_of_prompt(tokens, format, piece), at_once); });
}

// Tiles in blocks that lie in memory in random order.
bool same_in_blocks(const Tokens &tokens, Format format) {
    constexpr uint32_t block_tokens = 64;
    constexpr int64_t n_blocks = (n_tokens + block_tokens - 1) / block_tokens;
    kvl_view paged = kvlane::tile_layout(layer_of(format), block_tokens);
    kvlane::Workspace pool(static_cast<size_t>(n_blocks * paged.k_block_stride_bytes));  // memory that is aligned
    const kvl_span span{pool.data(), nullptr, n_blocks * block_tokens};
    std::vector<int32_t> blocks(n_blocks);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
    paged.spans = &span;
    paged.n_spans = 1;
    paged.blocks = blocks.data();
    paged.n_blocks = static_cast<uint32_t>(blocks.size());
    paged.len = n_tokens;
    kvlane::write_tiles(paged, 0, tokens.keys(0, n_tokens), tokens.values(0, n_tokens));

    const kvlane::Cache cache = filled_cache(tokens, format, n_tokens);
    const kvlane::Attention attention(kvlane::geometry_of(cache, 0, n_query_heads));
    return same_bits(output_of(attention, paged, tokens), output_of(attention, cache.view(0), tokens));
}

// Whether a test of one format is passed by all.
Property in_all_formats(const char *name, bool (*is_same)(const Tokens &, Format), const Tokens &tokens) {
    std::string differing;
    for (kvl_format i = 0; kvl_format_name(i); ++i) {
        if (!is_same(tokens, Format{i})) {
            differing += std::string(" ") + kvl_format_name(i);
        }
    }
    return {name, differing.empty() ? "same bits" : "other bits in" + differing, differing.empty()};
}

}  // namespace

std::vector<Property> determinism() {
    const Tokens tokens;
    return {in_all_formats("2, 3, 4 and 8 threads", same_with_threads, tokens),
            in_all_formats("batch of sequences", same_in_batch, tokens),
            in_all_formats("prompt in pieces", same_in_pieces, tokens),
            in_all_formats("paged cache", same_in_blocks, tokens)};
}

}  // namespace tool

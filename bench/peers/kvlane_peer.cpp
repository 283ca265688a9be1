// What peer_kvlane.py calls through ctypes: layers of the same keys and values, attention over one of them on OpenMP's
// threads, as most of the other libraries have, and the machine's read bandwidth. Functions that can fail return false or
// null; kvlane_peer_error() is then the reason.

#include <algorithm>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "../limits.hpp"
#include "kvlane/kvlane.hpp"
#include "kvlane/openmp.hpp"

namespace {

std::vector<kvl_view> views_of(const std::vector<kvlane::Cache> &caches) {
    std::vector<kvl_view> views;
    std::ranges::transform(caches, std::back_inserter(views), [](const kvlane::Cache &cache) { return cache.view(0); });
    return views;
}

// What calls on a number of threads need.
struct Calls {
    Calls(const kvlane::Attention &attention, int64_t len, uint64_t bytes, int n_threads, bool is_cold)
        : pool(n_threads),
          executor(pool.executor()),
          workspace(attention.workspace(1, len, 1, executor.n_threads)),
          limits(bytes, executor, n_threads, is_cold) {}

    kvlane::OpenMpPool pool;
    kvl_executor executor;
    kvlane::Workspace workspace;
    bench::ReadLimits limits;
};

struct Peer {
    Peer(std::vector<kvlane::Cache> layers, uint32_t n_query_heads)
        : caches(std::move(layers)),
          views(views_of(caches)),
          attention(kvlane::geometry_of(caches.front(), 0, n_query_heads)) {}

    kvl_sequence sequence(size_t layer, const float *q, float *out) const {
        return kvlane::Sequence{.view = &views[layer], .len = views[layer].len, .q = q, .out = out};
    }

    // The bytes of keys and values that one call reads.
    uint64_t bytes() const {
        float unused;
        const kvl_sequence of_a_call = sequence(0, &unused, &unused);
        uint64_t bytes;
        kvlane::check(kvl_attend_bytes(attention.get(), &of_a_call, 1, &bytes));
        return bytes;
    }

    std::vector<kvlane::Cache> caches;  // one a layer
    std::vector<kvl_view> views;
    kvlane::Attention attention;
    std::unique_ptr<Calls> calls;
};

// Layers of the same n_tokens tokens: to copy a cache takes less time than to fill it.
std::vector<kvlane::Cache> filled(const kvlane::Layer &layer, int64_t n_tokens, int n_layers, const float *k,
                                  const float *v) {
    const size_t n_floats = static_cast<size_t>(n_tokens) * layer.n_kv_heads * layer.head_dim;
    std::vector<kvlane::Cache> caches;
    caches.emplace_back(1, layer, n_tokens).append(0, {k, n_floats}, {v, n_floats});
    caches.front().advance(n_tokens);
    while (static_cast<int>(caches.size()) < n_layers) {
        caches.push_back(caches.front().copy());
    }
    return caches;
}

thread_local std::string error;

template <class Work>
bool succeeds(Work &&work) noexcept {
    try {
        work();
        return true;
    } catch (const std::exception &thrown) {
        error = thrown.what();
        return false;
    }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT const char *kvlane_peer_error() { return error.c_str(); }

// "0.1.0 avx2": the library's version and the instruction set in force.
EXPORT const char *kvlane_peer_version() {
    static const std::string version = std::string(kvl_version()) + " " + kvlane::isa_in_force();
    return version.c_str();
}

// Shape: k, v [n_tokens, n_kv_heads, head_dim], f32
EXPORT Peer *kvlane_peer_create(uint32_t n_query_heads, uint32_t n_kv_heads, uint32_t head_dim, int64_t n_tokens,
                                const char *format_name, int n_layers, const float *k, const float *v) {
    Peer *peer = nullptr;
    succeeds([&] {
        const kvlane::Format format = kvlane::format_from_name(format_name);
        const kvlane::Layer layer{.n_kv_heads = n_kv_heads, .head_dim = head_dim, .k_format = format, .v_format = format};
        peer = std::make_unique<Peer>(filled(layer, n_tokens, n_layers, k, v), n_query_heads).release();
    });
    return peer;
}

EXPORT void kvlane_peer_destroy(Peer *peer) { delete peer; }

// Is called before kvlane_peer_attend. Cold says which read bandwidth is measured.
EXPORT bool kvlane_peer_use_threads(Peer *peer, int n_threads, bool is_cold) {
    return succeeds([&] {
        peer->calls = std::make_unique<Calls>(peer->attention, peer->views.front().len, peer->bytes(), n_threads, is_cold);
    });
}

// Shape: q, out [n_query_heads, head_dim]
EXPORT bool kvlane_peer_attend(Peer *peer, uint32_t layer, const float *q, float *out) {
    return succeeds([&] {
        Calls &calls = *peer->calls;
        const kvl_sequence sequence = peer->sequence(layer, q, out);
        peer->attention.attend({&sequence, 1}, calls.workspace, calls.executor.n_threads > 1 ? &calls.executor : nullptr);
    });
}

// The keys and values as they are stored, dequantized.
EXPORT bool kvlane_peer_stored(Peer *peer, float *k, float *v) {
    return succeeds([&] {
        std::ranges::copy(peer->caches.front().read_k(0), k);
        std::ranges::copy(peer->caches.front().read_v(0), v);
    });
}

// The bytes of keys and values that one call reads.
EXPORT uint64_t kvlane_peer_bytes(Peer *peer) { return peer->bytes(); }

// Reads as many bytes as a call, as cold or as hot, in one of several ways by turns.
EXPORT void kvlane_peer_sample_limits(Peer *peer) { peer->calls->limits.sample(); }

// The best way's median, in bytes per second.
EXPORT double kvlane_peer_bandwidth(Peer *peer) { return peer->calls->limits.bytes_per_second(); }

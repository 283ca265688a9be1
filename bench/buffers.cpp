#include "buffers.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>

namespace bench {
namespace {

// One head, whose tiles are numbers of the format and nothing else.
kvlane::Cache filled_plane(uint64_t bytes, kvlane::Format format) {
    constexpr uint32_t dim = KVL_MAX_HEAD_DIM;
    const uint64_t tile_bytes = tile_tokens * 2 * dim * element_bytes(format);
    const auto n_tokens = static_cast<int64_t>((bytes + tile_bytes - 1) / tile_bytes * tile_tokens);
    kvlane::Cache cache(1, {1, dim, dim, format, format}, n_tokens);
    fill(cache, n_tokens);
    return cache;
}

// A view is for reading; the memory is the cache's, which no one else uses.
std::span<std::byte> tiles_of(const kvlane::Cache &cache) {
    const kvl_view view = cache.view(0);
    return {static_cast<std::byte *>(const_cast<void *>(view.spans->k)),
            static_cast<size_t>(view.len / tile_tokens * view.k_token_stride_bytes)};
}

}  // namespace

uint64_t cold_bytes() {
    uint64_t last_level = 0;
    for (const auto &cache : benchmark::CPUInfo::Get().caches) {
        last_level = std::max(last_level, static_cast<uint64_t>(cache.size));
    }
    return std::clamp<uint64_t>(2 * last_level, 256u << 20, 2048u << 20);
}

std::vector<float> normals(size_t n) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    std::vector<float> values(n);
    std::generate(values.begin(), values.end(), [&] { return normal(generator); });
    return values;
}

void fill(kvlane::Cache &cache, int64_t n_tokens) {
    const int64_t at_once = std::min<int64_t>(n_tokens, 1024);
    const kvl_layer_info info = cache.info(0);
    const std::vector<float> k = normals(static_cast<size_t>(at_once) * info.k_entry_size);
    std::vector<float> v = normals(static_cast<size_t>(at_once) * info.v_entry_size);
    std::reverse(v.begin(), v.end());
    for (int64_t done = 0; done < n_tokens; done += at_once) {
        const int64_t n = std::min(at_once, n_tokens - done);
        for (uint32_t layer = 0; layer < cache.n_layers(); ++layer) {
            cache.append(layer, std::span(k).first(static_cast<size_t>(n) * info.k_entry_size),
                         std::span(v).first(static_cast<size_t>(n) * info.v_entry_size));
        }
        cache.advance(n);
    }
}

Plane::Plane(uint64_t bytes, kvlane::Format format) : cache_(filled_plane(bytes, format)), memory_(tiles_of(cache_)) {}

std::byte *Plane::next(size_t bytes) {
    if (at_ + bytes > memory_.size()) {
        at_ = 0;
    }
    at_ += bytes;
    return memory_.data() + at_ - bytes;
}

}  // namespace bench

#include "append_case.hpp"

#include <algorithm>

#include "timing.hpp"

namespace bench {
namespace {

// Starts a sequence. Single tokens begin within a tile: the first token of a used tile sets the tile to zero too, but is
// only one of 64.
void restart(kvlane::Cache &cache, int64_t n_tokens) {
    cache.clear();
    if (n_tokens == 1) {
        fill(cache, KVL_TILE_TOKENS / 2);
    }
}

kvlane::Cache used_cache(const Shape &shape) {
    constexpr uint32_t n_layers = 32;
    const int64_t capacity = std::max<int64_t>(shape.ctx, 2048);
    kvlane::Cache cache(n_layers, shape.layer(), capacity);
    fill(cache, capacity);
    restart(cache, shape.ctx);
    return cache;
}

}  // namespace

AppendCase::AppendCase(const Shape &shape)
    : shape_(shape),
      cache_(used_cache(shape)),
      k_size_(static_cast<size_t>(shape.ctx) * cache_.info(0).k_entry_size),
      rows_(normals(k_size_ + static_cast<size_t>(shape.ctx) * cache_.info(0).v_entry_size)),
      limit_(bytes()) {}

uint64_t AppendCase::bytes() const {
    return rows_.size() * sizeof(float) + static_cast<uint64_t>(shape_.ctx) * cache_.info(0).bytes_per_token;
}

double AppendCase::time_append() {
    interlude_.pass(rows_);
    const std::span<const float> rows(rows_);
    const double seconds = seconds_of([&] { cache_.append(layer_, rows.first(k_size_), rows.subspan(k_size_)); });
    layer_ = (layer_ + 1) % cache_.n_layers();
    if (layer_ == 0) {
        cache_.advance(shape_.ctx);
        if (cache_.len() + shape_.ctx > cache_.max_tokens()) {
            restart(cache_, shape_.ctx);
        }
    }
    return seconds;
}

AppendFigures AppendCase::figures(double seconds) const {
    const double rate = static_cast<double>(bytes()) / seconds;
    return {seconds, rate, limit_.bytes_per_second(), rate / limit_.bytes_per_second()};
}

}  // namespace bench

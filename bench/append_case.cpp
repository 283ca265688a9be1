#include "append_case.hpp"

#include <algorithm>

#include "timing.hpp"

namespace bench {
namespace {

// Of one layer: a prompt, or room enough for single tokens to be spread over.
int64_t capacity_of(const Shape &shape) { return std::max<int64_t>(shape.ctx, 2048); }

kvlane::Cache empty_cache(const Shape &shape) {
    const uint64_t layer_bytes = static_cast<uint64_t>(capacity_of(shape)) * shape.bytes_per_token();
    return {static_cast<uint32_t>((cold_bytes() + layer_bytes - 1) / layer_bytes), shape.layer(), capacity_of(shape)};
}

}  // namespace

AppendCase::AppendCase(const Shape &shape)
    : shape_(shape),
      cache_(empty_cache(shape)),
      k_size_(static_cast<size_t>(shape.ctx) * cache_.info(0).k_entry_size),
      rows_(normals(k_size_ + static_cast<size_t>(shape.ctx) * cache_.info(0).v_entry_size)),
      layer_(cache_.n_layers() - 1),
      limits_(rows_.data(), bytes()) {}

uint64_t AppendCase::bytes() const {
    return rows_.size() * sizeof(float) + static_cast<uint64_t>(shape_.ctx) * cache_.info(0).bytes_per_token;
}

// Every layer in turn, then again further down, from a full cache to an empty one: each place is written once between two
// fillings, and rows lie so far apart that no prefetch for one brings another.
void AppendCase::next_place() {
    constexpr int64_t apart = 16;
    layer_ = (layer_ + 1) % cache_.n_layers();
    if (layer_ != 0) {
        return;
    }
    const int64_t step = std::max(shape_.ctx, apart);
    if (cache_.len() < step) {
        cache_.clear();
        fill(cache_, cache_.max_tokens());
    }
    cache_.truncate(cache_.len() - step);
}

double AppendCase::time_append() {
    next_place();
    const std::span<const float> rows(rows_);
    return seconds_of([&] { cache_.append(layer_, rows.first(k_size_), rows.subspan(k_size_)); });
}

AppendFigures AppendCase::figures(double seconds) const {
    const double rate = static_cast<double>(bytes()) / seconds;
    return {seconds, rate, limits_.bytes_per_second(), rate / limits_.bytes_per_second()};
}

}  // namespace bench

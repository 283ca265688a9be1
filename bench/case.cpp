#include "case.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;

template <class Work>
double seconds_of(Work &&work) {
    const auto start = Clock::now();
    work();
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// Runs body(i) for i in [0, n) on the executor; on the calling thread where there is only one.
template <class Body>
void parallel(const kvl_executor &executor, uint32_t n, Body &&body) {
    if (n == 1) {
        return body(0);
    }
    executor.parallel_for(
        executor.pool, n, [](void *context, uint32_t i) { (*static_cast<Body *>(context))(i); }, &body);
}

uint64_t last_level_cache_bytes() {
    uint64_t bytes = 0;
    for (const auto &cache : benchmark::CPUInfo::Get().caches) {
        bytes = std::max(bytes, static_cast<uint64_t>(cache.size));
    }
    return bytes;
}

// Four times the last-level cache, and enough for a laptop's and a server's alike.
uint64_t cold_bytes() { return std::clamp<uint64_t>(4 * last_level_cache_bytes(), 256u << 20, 2048u << 20); }

uint32_t layers_of(const Shape &shape) {
    return shape.cold ? static_cast<uint32_t>(cold_bytes() / shape.kv_bytes() + 2) : 1;
}

std::vector<float> normals(size_t n) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    std::vector<float> values(n);
    std::generate(values.begin(), values.end(), [&] { return normal(generator); });
    return values;
}

kvlane::Cache filled_cache(const Shape &shape, uint32_t n_layers) {
    const Model &m = shape.model;
    kvlane::Cache cache(n_layers, {m.n_kv_heads, m.head_dim, 0, shape.k_format, shape.v_format}, shape.ctx);
    const std::vector<float> k = normals(static_cast<size_t>(shape.ctx) * m.n_kv_heads * m.head_dim);
    const std::vector<float> v(k.rbegin(), k.rend());
    for (uint32_t layer = 0; layer < n_layers; ++layer) {
        cache.append(layer, k, v);
    }
    cache.advance(shape.ctx);
    return cache;
}

constexpr size_t read_row_bytes = 4096;

// Memory of a cache's own kind to read from: as much as the shape rotates over, in one plane.
kvlane::Cache filled_read_pool(const Shape &shape) {
    const uint64_t bytes = shape.cold ? std::max(cold_bytes(), 2 * shape.kv_bytes()) : shape.kv_bytes();
    const auto n_tokens = static_cast<int64_t>((bytes + read_row_bytes - 1) / read_row_bytes);
    kvlane::Cache cache(1, {1, read_row_bytes / sizeof(float), 1, kvlane::Format::f32, kvlane::Format::f32}, n_tokens);
    constexpr int64_t at_once = 1024;
    const std::vector<float> k(at_once * read_row_bytes / sizeof(float), 1.0f);
    const std::vector<float> v(at_once, 1.0f);
    for (int64_t done = 0; done < n_tokens; done += at_once) {
        const auto n = static_cast<size_t>(std::min(at_once, n_tokens - done));
        cache.append(0, std::span(k).first(n * read_row_bytes / sizeof(float)), std::span(v).first(n));
        cache.advance(static_cast<int64_t>(n));
    }
    return cache;
}

}  // namespace

double median(std::vector<double> values) {
    if (values.empty()) {
        return 0;
    }
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

std::string Shape::format_name() const {
    const std::string k = kvl_format_name(static_cast<kvl_format>(k_format));
    const std::string v = kvl_format_name(static_cast<kvl_format>(v_format));
    return k == v ? k : k + "+" + v;
}

uint64_t Shape::kv_bytes() const {
    const auto bytes_of = [](kvlane::Format format) { return format == kvlane::Format::f32 ? 4u : 2u; };
    return static_cast<uint64_t>(ctx) * model.n_kv_heads * model.head_dim * (bytes_of(k_format) + bytes_of(v_format));
}

double Shape::multiply_adds() const { return 2.0 * static_cast<double>(ctx) * model.n_query_heads * model.head_dim; }

double roofline_fraction(const Shape &shape, const Timing &timing) {
    return static_cast<double>(shape.kv_bytes()) / timing.read_bytes_per_second / timing.seconds;
}

double limit_fraction(const Shape &shape, const Timing &timing) {
    return std::max(roofline_fraction(shape, timing),
                    shape.multiply_adds() / timing.multiply_adds_per_second / timing.seconds);
}

Case::Case(const Shape &shape)
    : shape_(shape),
      n_layers_(layers_of(shape)),
      pool_(shape.threads),
      executor_(pool_.executor()),
      cache_(filled_cache(shape, n_layers_)),
      read_pool_(filled_read_pool(shape)),
      attention_(
          {shape.model.n_query_heads, shape.model.n_kv_heads, shape.model.head_dim, 0, shape.k_format, shape.v_format, 0}),
      workspace_(attention_.workspace(1, shape.ctx)),
      q_(normals(size_t{shape.model.n_query_heads} * shape.model.head_dim)),
      out_(q_.size()),
      naive_out_(q_.size()),
      scores_(shape.model.n_query_heads * static_cast<size_t>(shape.ctx)) {}

uint32_t Case::next_layer() {
    layer_ = (layer_ + 1) % n_layers_;
    return layer_;
}

double Case::time_decode() {
    const kvl_view view = cache_.view(next_layer());
    const kvl_executor *executor = shape_.threads > 1 ? &executor_ : nullptr;
    return seconds_of([&] { attention_.attend(view, q_.data(), out_.data(), workspace_, executor); });
}

void Case::naive_head(const Baseline &with, uint32_t layer, uint32_t query_head) {
    const Model &m = shape_.model;
    const size_t at = size_t{query_head} * m.head_dim;
    with.naive(cache_.view(layer), shape_.ctx, query_head / (m.n_query_heads / m.n_kv_heads), q_.data() + at,
               1 / std::sqrt(static_cast<float>(m.head_dim)), scores_.data() + query_head * static_cast<size_t>(shape_.ctx),
               naive_out_.data() + at);
}

double Case::time_naive() {
    const uint32_t layer = next_layer();
    return seconds_of([&] {
        if (shape_.threads > 1) {
            parallel(executor_, shape_.model.n_query_heads, [&](uint32_t h) { naive_head(baseline(), layer, h); });
        } else {
            for (uint32_t h = 0; h < shape_.model.n_query_heads; ++h) {
                naive_head(baseline(), layer, h);
            }
        }
    });
}

double Case::error_against_reference() {
    time_decode();
    parallel(executor_, shape_.model.n_query_heads, [&](uint32_t h) { naive_head(scalar_baseline(), layer_, h); });
    double error = 0, norm = 0;
    for (size_t i = 0; i < out_.size(); ++i) {
        error += std::pow(static_cast<double>(out_[i]) - naive_out_[i], 2);
        norm += std::pow(static_cast<double>(naive_out_[i]), 2);
    }
    return std::sqrt(error / norm);
}

void Case::sample_limits() {
    const kvl_view view = read_pool_.view(0);
    const auto *data = static_cast<const std::byte *>(view.spans->k);
    const size_t total = static_cast<size_t>(view.len) * read_row_bytes;
    const auto threads = static_cast<uint32_t>(shape_.threads);
    const size_t slice = std::max<size_t>(shape_.kv_bytes() / threads / 256, 1) * 256;
    if (read_at_ + slice * threads > total) {
        read_at_ = 0;
    }
    std::vector<float> sinks(threads * 16);
    const double read_seconds = seconds_of([&] {
        parallel(executor_, threads,
                 [&](uint32_t i) { sinks[i * 16] = baseline().read(data + read_at_ + i * slice, slice, variant_); });
    });
    read_at_ += slice * threads;
    read_rates_[variant_].push_back(static_cast<double>(slice * threads) / read_seconds);
    variant_ = (variant_ + 1) % n_read_variants;

    constexpr int64_t sample = 1 << 20;
    std::vector<int64_t> done(threads * 8);
    const double seconds = seconds_of([&] {
        parallel(executor_, threads, [&](uint32_t i) { done[i * 8] = baseline().multiply_add(sample, &sinks[i * 16]); });
    });
    double multiply_adds = 0;
    for (uint32_t i = 0; i < threads; ++i) {
        multiply_adds += static_cast<double>(done[i * 8]);
    }
    multiply_add_rates_.push_back(multiply_adds / seconds);
    benchmark::DoNotOptimize(sinks.data());
}

void Case::forget_limits() {
    for (auto &rates : read_rates_) {
        rates.clear();
    }
    multiply_add_rates_.clear();
}

Timing Case::timing(std::vector<double> seconds) const {
    double best = 0;
    for (const auto &rates : read_rates_) {
        best = std::max(best, median(rates));
    }
    return {median(std::move(seconds)), best, median(multiply_add_rates_)};
}

}  // namespace bench

#include "decode_case.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "timing.hpp"

namespace bench {
namespace {

constexpr uint64_t divide_up(uint64_t n, uint64_t by) { return (n + by - 1) / by; }

// Of all sequences, in whole tiles where there are any.
uint64_t layer_bytes(const Shape &shape) {
    int64_t n_tokens = 0;
    for (const int64_t length : shape.lengths()) {
        n_tokens += shape.has_rows() ? length : (length + tile_tokens - 1) / tile_tokens * tile_tokens;
    }
    return static_cast<uint64_t>(n_tokens) * shape.bytes_per_token();
}

// How many layers calls rotate over.
uint64_t layers_of(const Shape &shape) {
    return shape.cold ? divide_up(cold_bytes(), std::max<uint64_t>(layer_bytes(shape), 1)) : 1;
}

// The same in sets of caches that are copies of the first: to quantize random numbers takes up to six times as long as to
// copy what has been, and a cache has at most KVL_MAX_LAYERS.
struct Rotation {
    explicit Rotation(const Shape &shape) {
        constexpr uint64_t sets = 16;
        const uint64_t n_layers = layers_of(shape);
        layers_of_set = std::min<uint64_t>(divide_up(n_layers, sets), KVL_MAX_LAYERS);
        n_sets = divide_up(n_layers, layers_of_set);
    }

    uint64_t layers_of_set;
    uint64_t n_sets;
};

using CacheSet = std::vector<kvlane::Cache>;  // one a sequence

CacheSet filled_caches(const Shape &shape, uint64_t n_layers) {
    CacheSet caches;
    for (const int64_t length : shape.lengths()) {
        const int64_t capacity = shape.layout == Layout::prefix ? shape.max_len() : length;  // strides alike
        fill(caches.emplace_back(static_cast<uint32_t>(n_layers), shape.layer(), capacity), length);
    }
    return caches;
}

std::vector<CacheSet> filled_sets(const Shape &shape) {
    if (shape.has_rows()) {
        return {};
    }
    const Rotation rotation(shape);
    std::vector<CacheSet> sets;
    sets.push_back(filled_caches(shape, rotation.layers_of_set));
    while (sets.size() < rotation.n_sets) {
        CacheSet copies;
        for (const kvlane::Cache &cache : sets.front()) {
            copies.push_back(cache.copy());
        }
        sets.push_back(std::move(copies));
    }
    return sets;
}

std::optional<Plane> filled_rows(const Shape &shape) {
    if (!shape.has_rows()) {
        return std::nullopt;
    }
    return Plane(layers_of(shape) * layer_bytes(shape), shape.k_format);
}

kvlane::Attention attention_of(const Shape &shape) {
    const Model &m = shape.model;
    const std::vector<float> slopes(m.n_query_heads, 0.01f);
    kvlane::Geometry geometry{.n_query_heads = m.n_query_heads,
                              .n_kv_heads = m.n_kv_heads,
                              .head_dim = m.head_dim,
                              .v_head_dim = shape.v_head_dim(),
                              .k_format = shape.k_format,
                              .v_format = shape.v_format};
    switch (shape.rule) {
        case Rule::none:
        case Rule::mask: break;
        case Rule::window: geometry.window = window_tokens; break;
        case Rule::softcap: geometry.softcap = 50; break;
        case Rule::alibi: geometry.alibi_slopes = slopes; break;
        case Rule::exact: geometry.precision = kvlane::Precision::exact; break;
    }
    return kvlane::Attention(geometry);
}

std::vector<LaidOut> layouts_of(const Shape &shape) {
    std::vector<LaidOut> layouts;
    for (const int64_t length : shape.lengths()) {
        layouts.emplace_back(shape, length);
    }
    return layouts;
}

// Half of the tokens, by 64 of them, at random.
std::vector<uint64_t> half_of(int64_t n_tokens) {
    std::vector<uint64_t> bits(static_cast<size_t>(n_tokens + 63) / 64);
    std::fill_n(bits.begin(), bits.size() / 2, ~uint64_t{0});
    std::shuffle(bits.begin(), bits.end(), std::mt19937(1));
    return bits;
}

// One for each view, with its part of out.
std::vector<kvl_sequence> sequences_of(const std::vector<kvl_view> &views, uint32_t n_queries, const std::vector<float> &q,
                                       std::vector<float> &out, const kvl_mask *mask) {
    std::vector<kvl_sequence> sequences;
    for (size_t i = 0; i < views.size(); ++i) {
        sequences.push_back(kvlane::Sequence{.view = &views[i],
                                             .len = views[i].len,
                                             .n_queries = n_queries,
                                             .q = q.data(),
                                             .out = &out[i * q.size()],
                                             .mask = mask});
    }
    return sequences;
}

// One for all cases of as many threads: oneTBB's go from one arena to another only once they find nothing to do there.
kvlane::TbbPool &shared_pool(int n_threads) {
    static std::map<int, kvlane::TbbPool> pools;
    return pools.try_emplace(n_threads, n_threads).first->second;
}

}  // namespace

// Of f16 the only precision is the default.
Shape in_f16(Shape shape) {
    shape.k_format = shape.v_format = kvlane::Format::f16;
    shape.rule = Rule::none;
    return shape;
}

Shape in_rows(const Shape &shape) {
    Shape rows = shape.is_quantized() ? in_f16(shape) : shape;
    rows.layout = Layout::head_major;
    return rows;
}

uint64_t DecodeCase::memory_bytes(const Shape &shape) {
    const Rotation rotation(shape);
    const Model &m = shape.model;
    const uint64_t read_back = shape.has_rows() ? 0 : uint64_t{2} * m.n_kv_heads * m.head_dim;  // floats a token
    return rotation.n_sets * rotation.layers_of_set * layer_bytes(shape) +
           (m.n_query_heads + read_back) * static_cast<uint64_t>(shape.ctx) * sizeof(float);
}

DecodeCase::DecodeCase(const Shape &shape)
    : shape_(shape),
      executor_(shared_pool(shape.threads).executor()),
      cache_sets_(filled_sets(shape)),
      rows_(filled_rows(shape)),
      layouts_(layouts_of(shape)),
      attention_(attention_of(shape)),
      workspace_(attention_.workspace(shape.n_sequences, shape.max_len(), shape.n_queries, executor_.n_threads)),
      q_(normals(size_t{shape.n_queries} * shape.model.n_query_heads * shape.model.head_dim)),
      out_(shape.n_sequences * q_.size()),
      naive_out_(q_.size()),
      scores_(shape.model.n_query_heads * static_cast<size_t>(shape.ctx)),
      views_(views_of_layer()),
      mask_bits_(half_of(shape.ctx)),
      mask_(kvlane::Mask{.bits = mask_bits_.data(), .n_tokens = shape.ctx}),
      sequences_(sequences_of(views_, shape.n_queries, q_, out_, shape.rule == Rule::mask ? &mask_ : nullptr)),
      limits_(kv_bytes(), executor_, shared_pool(shape.threads).n_threads(), shape.cold) {}

std::vector<kvl_view> DecodeCase::views_of_layer() {
    if (rows_) {
        const auto bytes = static_cast<size_t>(shape_.ctx) * shape_.model.n_kv_heads * shape_.row_bytes();
        const std::byte *const k = rows_->next(bytes);
        return {layouts_.front().rows(k, shape_.layout == Layout::latent ? nullptr : rows_->next(bytes))};
    }
    std::vector<kvl_view> views;
    const std::vector<kvlane::Cache> &caches = cache_sets_[set_];
    for (size_t i = 0; i < caches.size(); ++i) {
        const kvl_view own = caches[i].view(layer_);
        const bool is_behind = shape_.layout == Layout::prefix && i > 0;
        views.push_back(is_behind ? layouts_[i].tiles_behind(views.front(), shape_.ctx, own) : layouts_[i].tiles(own));
    }
    return views;
}

void DecodeCase::next_layer() {
    if (!rows_) {
        layer_ = (layer_ + 1) % cache_sets_.front().front().n_layers();
        set_ = layer_ == 0 ? (set_ + 1) % cache_sets_.size() : set_;
    }
    std::ranges::copy(views_of_layer(), views_.begin());  // the sequences point there
}

uint64_t DecodeCase::kv_bytes() const {
    uint64_t bytes;
    kvlane::check(kvl_attend_bytes(attention_.get(), sequences_.data(), shape_.n_sequences, &bytes));
    return bytes;
}

double DecodeCase::multiply_adds() const {
    double n_seen = 0;  // tokens, by all queries
    for (const kvl_sequence &sequence : sequences_) {
        for (uint32_t behind = 0; behind < shape_.n_queries; ++behind) {
            n_seen += static_cast<double>(shape_.visible(sequence.len - behind));
        }
    }
    return n_seen * shape_.model.n_query_heads * (shape_.model.head_dim + shape_.v_head_dim());
}

// Hot is what the same call has just read: samples in between may have evicted it.
template <class Work>
double DecodeCase::seconds_of_call(Work &&work) {
    next_layer();
    if (!shape_.cold) {
        work();
    }
    return seconds_of(work);
}

void DecodeCase::decode() { attention_.attend(sequences_, workspace_, shape_.threads > 1 ? &executor_ : nullptr); }

void DecodeCase::naive(const Baseline &with, const kvl_view &rows) {
    const Model &m = shape_.model;
    auto head = [&](uint32_t h) {
        const size_t at = size_t{h} * m.head_dim;
        with.naive(rows, shape_.ctx, h / (m.n_query_heads / m.n_kv_heads), q_.data() + at,
                   1 / std::sqrt(static_cast<float>(m.head_dim)), scores_.data() + h * static_cast<size_t>(shape_.ctx),
                   naive_out_.data() + at);
    };
    executor_.parallel_for(
        executor_.pool, m.n_query_heads, [](void *context, uint32_t h) { (*static_cast<decltype(head) *>(context))(h); },
        &head);
}

double DecodeCase::time_decode() {
    return seconds_of_call([&] { decode(); });
}

double DecodeCase::time_naive() {
    return seconds_of_call([&] { naive(baseline(), views_.front()); });
}

double DecodeCase::error_against_reference() {
    next_layer();
    decode();
    const kvlane::Cache &cache = cache_sets_[set_].front();
    const std::vector<float> k = cache.read_k(layer_), v = cache.read_v(layer_);
    Shape rows = shape_;
    rows.k_format = rows.v_format = kvlane::Format::f32;
    rows.layout = Layout::token_major;
    naive(scalar_baseline(), LaidOut(rows, shape_.ctx).rows(k.data(), v.data()));
    double error = 0, norm = 0;
    for (size_t i = 0; i < naive_out_.size(); ++i) {
        error += std::pow(static_cast<double>(out_[i]) - naive_out_[i], 2);
        norm += std::pow(static_cast<double>(naive_out_[i]), 2);
    }
    return std::sqrt(error / norm);
}

DecodeFigures DecodeCase::figures(double seconds) const {
    DecodeFigures figures{};
    figures.seconds = seconds;
    figures.kv_bytes_per_second = static_cast<double>(kv_bytes()) / seconds;
    figures.roofline_bytes_per_second = limits_.bytes_per_second();
    figures.multiply_adds_per_second = limits_.multiply_adds_per_second();
    figures.concurrency = limits_.concurrency();
    figures.roofline_fraction = figures.kv_bytes_per_second / figures.roofline_bytes_per_second;
    figures.limit_fraction =
        std::max(figures.roofline_fraction, multiply_adds() / figures.multiply_adds_per_second / seconds);
    return figures;
}

AgainstF16Case::AgainstF16Case(const Shape &shape) : quantised_(shape), f16_(in_f16(shape)) {}

double AgainstF16Case::time_decode() {
    const auto time_f16 = [&] { f16_seconds_.push_back(f16_.time_decode()); };
    const bool f16_first = seconds_.size() % 2 == 0;
    if (f16_first) {
        time_f16();
    }
    seconds_.push_back(quantised_.time_decode());
    if (!f16_first) {
        time_f16();
    }
    return seconds_.back();
}

void AgainstF16Case::forget() {
    quantised_.forget();
    seconds_.clear();
    f16_seconds_.clear();
}

}  // namespace bench

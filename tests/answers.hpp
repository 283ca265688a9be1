#pragma once

// What a call of attention gives, what the oracle wants of it, and how far they are apart.

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "oracle.hpp"
#include "support.hpp"

namespace test {

struct Answer {
    std::vector<float> out;
    std::vector<float> lse;

    // By bits, so that NaN equals itself and 0 is not -0.
    bool operator==(const Answer &other) const { return same_bits(out, other.out) && same_bits(lse, other.lse); }
};

/// A cache of one layer that fits the attention, with len random tokens.
inline kvlane::Cache cache_of(const kvlane::Geometry &g, int64_t len, uint32_t seed = 1, int64_t max_tokens = 0) {
    kvlane::Cache cache(1, {g.n_kv_heads, g.head_dim, g.v_head_dim, g.k_format, g.v_format},
                        std::max({max_tokens, len, int64_t{1}}), KVL_CACHE_NO_HUGE_PAGES);
    if (len > 0) {
        fill_random(cache, len, seed);
    }
    return cache;
}

/// A view of tokens in f16 and, behind them, of others in the attention's formats, each in a cache of its own.
class TwoParts {
public:
    TwoParts(const kvlane::Geometry &g, int64_t n_first, int64_t n_second)
        : first_(1, layer(g, kvlane::Format::f16, kvlane::Format::f16), n_first),
          second_(1, layer(g, g.k_format, g.v_format), n_second) {
        fill_random(first_, n_first, 1);
        fill_random(second_, n_second, 2);
        rest_ = second_.view(0);
        view_ = first_.view(0);
        view_.len = n_first + n_second;
        view_.next = &rest_;
    }
    TwoParts(const TwoParts &) = delete;
    const kvl_view &view() const { return view_; }

private:
    static kvlane::Layer layer(const kvlane::Geometry &g, kvlane::Format k, kvlane::Format v) {
        return {g.n_kv_heads, g.head_dim, g.v_head_dim, k, v, g.k_rotation, g.v_rotation};
    }

    kvlane::Cache first_, second_;
    kvl_view rest_, view_;
};

inline std::vector<float> queries_of(const kvlane::Geometry &g, uint32_t n_queries = 1) {
    return random_values(size_t{n_queries} * g.n_query_heads * g.head_dim, 7);
}

/// The i-th of them alone.
inline std::vector<float> query_of(const kvlane::Geometry &g, const std::vector<float> &q, uint32_t i) {
    const auto row = static_cast<std::ptrdiff_t>(g.n_query_heads * g.head_dim);
    return {q.begin() + i * row, q.begin() + (i + 1) * row};
}

/// Attends to the first len tokens of the view, with the queries of the newest n_queries.
inline Answer attend(const kvlane::Attention &attention, const kvl_view &view, int64_t len, const std::vector<float> &q,
                     uint32_t n_queries = 1, const kvl_executor *executor = nullptr, const kvl_mask *mask = nullptr) {
    const size_t n_rows = q.size() / view.head_dim;
    Answer answer{std::vector<float>(n_rows * view.v_head_dim), std::vector<float>(n_rows)};
    kvlane::Workspace workspace = attention.workspace(1, len, n_queries, kvlane::max_tasks(executor));
    const kvl_sequence sequence = kvlane::Sequence{.view = &view,
                                                   .len = len,
                                                   .n_queries = n_queries,
                                                   .q = q.data(),
                                                   .out = answer.out.data(),
                                                   .lse = answer.lse.data(),
                                                   .mask = mask};
    attention.attend(std::span(&sequence, 1), workspace, executor);
    return answer;
}

/// What the oracle says of one query, over keys and values as a cache decodes them, with its row of bits and of biases.
inline oracle::Answer expected(const kvlane::Geometry &g, int64_t len, const std::vector<float> &q,
                               const std::vector<float> &k, const std::vector<float> &v, const uint64_t *bits = nullptr,
                               const float *biases = nullptr) {
    const double scale = g.scale != 0 ? g.scale : 1 / std::sqrt(static_cast<double>(g.head_dim));
    return oracle::attend(g.n_kv_heads, g.n_query_heads / g.n_kv_heads, g.head_dim, g.v_head_dim ? g.v_head_dim : g.head_dim,
                          len, scale, q.data(), k.data(), v.data(),
                          {g.window, g.n_sink_tokens, g.softcap, g.alibi_slopes.empty() ? nullptr : g.alibi_slopes.data(),
                           g.sink_logits.empty() ? nullptr : g.sink_logits.data(), bits, biases});
}

/// Whether it multiplies integers as bytes.
inline bool is_fast(const kvlane::Attention &attention) { return std::string(attention.kernel()).ends_with("/fast"); }

/// The precision to hold an attention to its bounds in: exact, or for q8, where 16 bits are its default, that.
inline kvlane::Precision usual_precision(kvlane::Geometry g) {
    g.precision = kvlane::Precision::by_format;
    const bool has_16_bits = g.k_format == kvlane::Format::q8 && !is_fast(kvlane::Attention(g));
    return has_16_bits ? kvlane::Precision::by_format : kvlane::Precision::exact;
}

/// |out - reference| / |reference|; a reference that cancels counts as large as least_norm, the square of a norm.
inline double relative_error(std::span<const float> out, std::span<const double> reference, double least_norm = 0) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < out.size(); ++i) {
        error += (out[i] - reference[i]) * (out[i] - reference[i]);
        norm += reference[i] * reference[i];
    }
    return std::sqrt(error / std::max(norm, least_norm));
}

/// The square of the norm that n elements of the mean of len values of unit variance have on average.
inline double usual_norm(size_t n, int64_t len) {
    return static_cast<double>(n) / static_cast<double>(std::max<int64_t>(1, len));
}

}  // namespace test

#pragma once

// What a cache's formats cost: the output of attention against double precision on the values before they were stored.

#include <cmath>
#include <vector>

#include "answers.hpp"

namespace test {

struct Storing {
    kvlane::Format k_format;
    kvlane::Format v_format;
    kvlane::Rotation rotation = kvlane::Rotation::by_format;
    bool has_outliers = false;  // 4 channels of the keys are 20 times larger, as those of real models
    kvlane::Precision precision = kvlane::Precision::exact;
    uint32_t group = 4;
};

/// Relative L2 errors of an output.
struct Errors {
    double total;          // of what was given to the cache
    double of_arithmetic;  // of what the cache gives back
};

/// For random normal data: 1024 tokens, head_dim 128.
inline Errors errors_of(const Storing &storing) {
    constexpr uint32_t n_kv_heads = 2, head_dim = 128;
    const uint32_t group = storing.group;
    constexpr int64_t len = 1024;
    std::vector<float> k = random_values(len * n_kv_heads * head_dim, 1);
    const std::vector<float> v = random_values(len * n_kv_heads * head_dim, 2);
    const std::vector<float> q = random_values(n_kv_heads * group * head_dim, 3);
    for (size_t i = 0; storing.has_outliers && i < k.size(); ++i) {
        k[i] *= i % head_dim % 32 == 5 ? 20.0f : 1.0f;
    }
    const auto rotation = storing.rotation;
    kvlane::Cache cache(1, {n_kv_heads, head_dim, 0, storing.k_format, storing.v_format, rotation, rotation}, len);
    cache.append(0, k, v);
    const kvlane::Attention attention({.n_query_heads = n_kv_heads * group,
                                       .n_kv_heads = n_kv_heads,
                                       .head_dim = head_dim,
                                       .k_format = storing.k_format,
                                       .v_format = storing.v_format,
                                       .k_rotation = rotation,
                                       .v_rotation = rotation,
                                       .precision = storing.precision});
    kvlane::Workspace workspace = attention.workspace(1, len);
    std::vector<float> out(q.size());
    attention.attend(cache.view(0), q.data(), out.data(), workspace);
    const auto error_against = [&](const std::vector<float> &keys, const std::vector<float> &values) {
        const oracle::Answer want =
            oracle::attend(n_kv_heads, group, head_dim, head_dim, len, 1 / std::sqrt(static_cast<double>(head_dim)),
                           q.data(), keys.data(), values.data());
        return relative_error(out, want.out);
    };
    return {error_against(k, v), error_against(cache.read_k(0), cache.read_v(0))};
}

}  // namespace test

#pragma once

// What attention is: one query token, grouped query heads, double precision, two passes over plain arrays.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace oracle {

struct Answer {
    std::vector<double> out;  // [n_kv_heads * group, v_head_dim]
    std::vector<double> lse;  // [n_kv_heads * group]
};

// q [n_kv_heads * group, head_dim], k [len, n_kv_heads, head_dim], v [len, n_kv_heads, v_head_dim]
inline Answer attend(long n_kv_heads, long group, long head_dim, long v_head_dim, long len, double scale, const float *q,
                     const float *k, const float *v) {
    const double infinity = std::numeric_limits<double>::infinity();
    const long n_heads = n_kv_heads * group;
    Answer answer{std::vector<double>(n_heads * v_head_dim, 0.0), std::vector<double>(n_heads, -infinity)};
    std::vector<double> score(len);
    for (long h = 0; h < n_heads; ++h) {
        const long kv_head = h / group;

        // The scores, and the largest of them, which keeps the exponentials in range.
        double largest = -infinity;
        for (long t = 0; t < len; ++t) {
            const float *key = k + (t * n_kv_heads + kv_head) * head_dim;
            double dot = 0;
            for (long d = 0; d < head_dim; ++d) {
                dot += static_cast<double>(q[h * head_dim + d]) * key[d];
            }
            score[t] = scale * dot;
            largest = std::max(largest, score[t]);
        }

        // Nothing is visible: the answer stays 0 and minus infinity.
        if (std::all_of(score.begin(), score.end(), [&](double x) { return x == -infinity; })) {
            continue;
        }

        // The values, weighted.
        double *out = &answer.out[h * v_head_dim];
        double sum = 0;
        for (long t = 0; t < len; ++t) {
            const float *value = v + (t * n_kv_heads + kv_head) * v_head_dim;
            const double weight = std::exp(score[t] - largest);
            for (long d = 0; d < v_head_dim; ++d) {
                out[d] += weight * value[d];
            }
            sum += weight;
        }
        for (long d = 0; d < v_head_dim; ++d) {
            out[d] /= sum;
        }
        answer.lse[h] = largest + std::log(sum);
    }
    return answer;
}

}  // namespace oracle

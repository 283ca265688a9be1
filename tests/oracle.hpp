#pragma once

// What attention is: one query token, grouped query heads, score rules, double precision, two passes over plain arrays.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace oracle {

struct Answer {
    std::vector<double> out;  // [n_kv_heads * group, v_head_dim]
    std::vector<double> lse;  // [n_kv_heads * group]
};

struct Rules {
    int64_t window = 0;  // positions within less than this of the query's are visible; 0: all
    int64_t n_sink_tokens = 0;
    double softcap = 0;                   // 0: none
    const float *alibi_slopes = nullptr;  // [n_kv_heads * group]
    const float *sink_logits = nullptr;   // [n_kv_heads * group]
    const uint64_t *bits = nullptr;       // [len], 64 a word: set where a token is visible
    const float *biases = nullptr;        // [len], of scores
    bool is_causal = true;                // no later positions than the query's are visible
    int64_t offset = 0;                   // the query's position is len - 1 + offset
};

// q [n_kv_heads * group, head_dim], k [len, n_kv_heads, head_dim], v [len, n_kv_heads, v_head_dim]
inline Answer attend(int64_t n_kv_heads, int64_t group, int64_t head_dim, int64_t v_head_dim, int64_t len, double scale,
                     const float *q, const float *k, const float *v, const Rules &rules = {}) {
    const double infinity = std::numeric_limits<double>::infinity();
    const int64_t n_heads = n_kv_heads * group;
    Answer answer{std::vector<double>(n_heads * v_head_dim, 0.0), std::vector<double>(n_heads, -infinity)};
    const int64_t position = len - 1 + rules.offset;
    std::vector<double> score(len);
    for (int64_t h = 0; h < n_heads; ++h) {
        const int64_t kv_head = h / group;

        // The scores, and the largest of them, which keeps the exponentials in range.
        double largest = -infinity;
        for (int64_t t = 0; t < len; ++t) {
            const float *key = k + (t * n_kv_heads + kv_head) * head_dim;
            double dot = 0;
            for (int64_t d = 0; d < head_dim; ++d) {
                dot += static_cast<double>(q[h * head_dim + d]) * key[d];
            }
            score[t] = scale * dot;
            if (rules.softcap > 0) {
                score[t] = rules.softcap * std::tanh(score[t] / rules.softcap);
            }
            if (rules.alibi_slopes) {
                score[t] += rules.alibi_slopes[h] * static_cast<double>(t - position);
            }
            const bool is_before = rules.window > 0 && t <= position - rules.window && t >= rules.n_sink_tokens;
            const bool is_behind = rules.is_causal ? t > position : rules.window > 0 && t >= position + rules.window;
            if (is_before || is_behind) {
                score[t] = -infinity;
            }
            if (rules.biases) {
                score[t] += rules.biases[t];
            }
            if ((rules.bits && !(rules.bits[t / 64] >> t % 64 & 1)) || (rules.biases && rules.biases[t] == -infinity)) {
                score[t] = -infinity;
            }
            largest = std::max(largest, score[t]);
        }
        const double sink = rules.sink_logits ? rules.sink_logits[h] : -infinity;
        largest = std::max(largest, sink);

        // Nothing is visible: the answer stays 0 and minus infinity.
        if (largest == -infinity) {
            continue;
        }

        // The values, weighted.
        double *out = &answer.out[h * v_head_dim];
        double sum = std::exp(sink - largest);
        for (int64_t t = 0; t < len; ++t) {
            if (score[t] == -infinity) {
                continue;
            }
            const float *value = v + (t * n_kv_heads + kv_head) * v_head_dim;
            const double weight = std::exp(score[t] - largest);
            for (int64_t d = 0; d < v_head_dim; ++d) {
                out[d] += weight * value[d];
            }
            sum += weight;
        }
        for (int64_t d = 0; d < v_head_dim; ++d) {
            out[d] /= sum;
        }
        answer.lse[h] = largest + std::log(sum);
    }
    return answer;
}

}  // namespace oracle

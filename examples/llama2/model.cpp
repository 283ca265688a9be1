#include "model.hpp"

#include <algorithm>

#include "operators.hpp"

namespace llama2 {
namespace {

kvlane::Geometry attention_geometry(const Config &config, const CacheFormat &format) {
    return {.n_query_heads = config.n_query_heads,
            .n_kv_heads = config.n_kv_heads,
            .head_dim = config.head_dim,
            .k_format = format.k,
            .v_format = format.v,
            .k_rotation = format.rotation,
            .v_rotation = format.rotation,
            .precision = format.precision};
}

}  // namespace

Model::Model(const Checkpoint &checkpoint, const CacheFormat &format, const kvl_executor *executor)
    : config_(checkpoint.config),
      weights_(checkpoint.weights),
      executor_(executor),
      format_(format),
      attention_(attention_geometry(config_, format)),
      workspace_(attention_.workspace(most_feeds_, config_.seq_len, most_tokens_, kvlane::max_tasks(executor))) {}

std::span<const float> Model::forward(std::span<const Feed> feeds) {
    make_room(feeds);
    begin(feeds);
    for (uint32_t layer = 0; layer < config_.n_layers; ++layer) {
        attend(layer, feeds);
        feed_forward(layer);
    }
    for (const Feed &feed : feeds) {
        feed.sequence->advance(static_cast<int64_t>(feed.tokens.size()));
    }
    rms_norm(normed_, x_, weights_.final_norm, config_.norm_epsilon);
    multiply(logits_, config_.has_classifier ? weights_.classifier : weights_.token_embedding, normed_);
    return logits_;
}

void Model::make_room(std::span<const Feed> feeds) {
    n_tokens_ = 0;
    uint32_t most_tokens = most_tokens_;
    for (const Feed &feed : feeds) {
        n_tokens_ += feed.tokens.size();
        most_tokens = std::max(most_tokens, static_cast<uint32_t>(feed.tokens.size()));
    }
    if (feeds.size() > most_feeds_ || most_tokens > most_tokens_) {
        most_feeds_ = std::max(most_feeds_, static_cast<uint32_t>(feeds.size()));
        most_tokens_ = most_tokens;
        workspace_ = attention_.workspace(most_feeds_, config_.seq_len, most_tokens_, kvlane::max_tasks(executor_));
    }
    for (std::vector<float> *const of_dim : {&x_, &normed_, &added_}) {
        of_dim->resize(n_tokens_ * config_.dim);
    }
    q_.resize(n_tokens_ * config_.query_dim());
    attended_.resize(n_tokens_ * config_.query_dim());
    k_.resize(n_tokens_ * config_.kv_dim());
    v_.resize(n_tokens_ * config_.kv_dim());
    gate_.resize(n_tokens_ * config_.hidden_dim);
    up_.resize(n_tokens_ * config_.hidden_dim);
    logits_.resize(n_tokens_ * config_.vocab_size);
    turns_.resize(n_tokens_ * config_.head_dim / 2);
}

// What the tokens are and where they stand.
void Model::begin(std::span<const Feed> feeds) {
    const size_t n_turns = config_.head_dim / 2;
    size_t at = 0;
    for (const Feed &feed : feeds) {
        int64_t pos = feed.sequence->len();
        for (const uint32_t token : feed.tokens) {
            const auto embedding = std::span(weights_.token_embedding).subspan(size_t{token} * config_.dim, config_.dim);
            std::copy(embedding.begin(), embedding.end(), x_.begin() + static_cast<std::ptrdiff_t>(at * config_.dim));
            set_turns(std::span(turns_).subspan(at * n_turns, n_turns), pos, config_.rope_theta);
            ++at;
            ++pos;
        }
    }
}

// x += output attention(query norm(x), keys and values of all tokens so far)
void Model::attend(uint32_t layer, std::span<const Feed> feeds) {
    const LayerWeights &weights = weights_.layers[layer];
    rms_norm(normed_, x_, weights.attention_norm, config_.norm_epsilon);
    multiply(q_, weights.query, normed_);
    multiply(k_, weights.key, normed_);
    multiply(v_, weights.value, normed_);
    rotate(q_, turns_, n_tokens_);
    rotate(k_, turns_, n_tokens_);
    attend_all(layer, feeds);
    multiply(added_, weights.output, attended_);
    add(x_, added_);
}

// Every sequence takes its tokens' keys and values, so that its view holds them too; one call attends to all views.
void Model::attend_all(uint32_t layer, std::span<const Feed> feeds) {
    views_.resize(feeds.size());
    calls_.clear();
    size_t at = 0;
    for (size_t i = 0; i < feeds.size(); ++i) {
        const size_t n = feeds[i].tokens.size(), kv_dim = config_.kv_dim();
        feeds[i].sequence->append(layer, std::span(k_).subspan(at * kv_dim, n * kv_dim),
                                  std::span(v_).subspan(at * kv_dim, n * kv_dim));
        views_[i] = feeds[i].sequence->view(layer);
        calls_.push_back(kvlane::Sequence{.view = &views_[i],
                                          .len = views_[i].len,
                                          .n_queries = static_cast<uint32_t>(n),
                                          .q = &q_[at * config_.query_dim()],
                                          .out = &attended_[at * config_.query_dim()]});
        at += n;
    }
    attention_.attend(calls_, workspace_, executor_);
}

// x += down (silu(gate norm(x)) * up norm(x))
void Model::feed_forward(uint32_t layer) {
    const LayerWeights &weights = weights_.layers[layer];
    rms_norm(normed_, x_, weights.feed_forward_norm, config_.norm_epsilon);
    multiply(gate_, weights.gate, normed_);
    multiply(up_, weights.up, normed_);
    swiglu(gate_, up_);
    multiply(added_, weights.down, gate_);
    add(x_, added_);
}

void Model::multiply(std::span<float> out, std::span<const float> matrix, std::span<const float> x) const {
    llama2::multiply(out, matrix, x, n_tokens_, executor_);
}

}  // namespace llama2

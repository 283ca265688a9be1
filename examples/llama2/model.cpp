#include "model.hpp"

#include "operators.hpp"

namespace llama2 {
namespace {

kvlane::Layer cache_layer(const Config &config, const CacheFormat &format) {
    return {.n_kv_heads = config.n_kv_heads,
            .head_dim = config.head_dim(),
            .k_format = format.k,
            .v_format = format.v,
            .k_rotation = format.rotation,
            .v_rotation = format.rotation,
            .n_first_f16 = format.n_first_f16,
            .n_recent_f16 = format.n_recent_f16};
}

kvlane::Geometry attention_geometry(const Config &config, const CacheFormat &format) {
    return {.n_query_heads = config.n_query_heads,
            .n_kv_heads = config.n_kv_heads,
            .head_dim = config.head_dim(),
            .k_format = format.k,
            .v_format = format.v,
            .k_rotation = format.rotation,
            .v_rotation = format.rotation};
}

}  // namespace

Model::Model(const Checkpoint &checkpoint, const CacheFormat &format, const kvl_executor *executor)
    : config_(checkpoint.config()),
      weights_(checkpoint.weights()),
      executor_(executor),
      cache_(config_.n_layers, cache_layer(config_, format), config_.seq_len),
      attention_(attention_geometry(config_, format)),
      workspace_(attention_.workspace(1, config_.seq_len)),
      x_(config_.dim),
      normed_(config_.dim),
      added_(config_.dim),
      q_(config_.dim),
      k_(config_.kv_dim()),
      v_(config_.kv_dim()),
      attended_(config_.dim),
      gate_(config_.hidden_dim),
      up_(config_.hidden_dim),
      logits_(config_.vocab_size),
      turns_(config_.head_dim() / 2) {}

std::span<const float> Model::forward(uint32_t token) {
    const auto embedding = weights_.token_embedding.subspan(size_t{token} * config_.dim, config_.dim);
    x_.assign(embedding.begin(), embedding.end());
    set_turns(turns_, cache_.len());
    for (uint32_t layer = 0; layer < config_.n_layers; ++layer) {
        attend(layer);
        feed_forward(layer);
    }
    cache_.advance();
    rms_norm(normed_, x_, weights_.final_norm);
    multiply(logits_, weights_.classifier, normed_);
    return logits_;
}

// x += output attention(query norm(x), keys and values of all tokens so far)
void Model::attend(uint32_t layer) {
    const LayerWeights &weights = weights_.layers[layer];
    rms_norm(normed_, x_, weights.attention_norm);
    multiply(q_, weights.query, normed_);
    multiply(k_, weights.key, normed_);
    multiply(v_, weights.value, normed_);
    rotate(q_, turns_);
    rotate(k_, turns_);
    cache_.append(layer, k_, v_);  // and so the view holds this token too
    attention_.attend(cache_.view(layer), q_.data(), attended_.data(), workspace_, executor_);
    multiply(added_, weights.output, attended_);
    add(x_, added_);
}

// x += down (silu(gate norm(x)) * up norm(x))
void Model::feed_forward(uint32_t layer) {
    const LayerWeights &weights = weights_.layers[layer];
    rms_norm(normed_, x_, weights.feed_forward_norm);
    multiply(gate_, weights.gate, normed_);
    multiply(up_, weights.up, normed_);
    swiglu(gate_, up_);
    multiply(added_, weights.down, gate_);
    add(x_, added_);
}

void Model::multiply(std::span<float> out, std::span<const float> matrix, std::span<const float> x) const {
    llama2::multiply(out, matrix, x, executor_);
}

}  // namespace llama2

#pragma once

#include <kvlane/kvlane.hpp>

#include <complex>
#include <cstdint>
#include <span>
#include <vector>

#include "checkpoint.hpp"
#include "sequence.hpp"

namespace llama2 {

/// The next tokens of a sequence: one that was chosen, several of a prompt or a draft.
struct Feed {
    Sequence *sequence;
    std::span<const uint32_t> tokens;
};

/// A model: kvlane attends to what its sequences hold.
class Model {
public:
    /// Pre:    checkpoint and executor outlive the model; a null executor is the calling thread
    Model(const Checkpoint &checkpoint, const CacheFormat &format, const kvl_executor *executor);

    /// Makes an empty sequence, behind the tokens of a prefix where there is one.
    Sequence sequence(const Sequence *prefix = nullptr) const { return Sequence(config_, format_, prefix); }

    /// Appends tokens to sequences, all in one pass over the weights. Bits do not depend on what shares the pass.
    /// -> logits of the token after each [n_tokens, vocab_size], in the order of the feeds, good until the next call
    /// Pre:    every feed has tokens, each < vocab_size; no sequence has two feeds
    /// Errors: kvlane::Error when the one sequence would have more than seq_len tokens; of several, none may
    std::span<const float> forward(std::span<const Feed> feeds);
    std::span<const float> forward(Sequence &sequence, std::span<const uint32_t> tokens) {
        const Feed feed{&sequence, tokens};
        return forward(std::span(&feed, 1));
    }

    const Config &config() const { return config_; }

private:
    void make_room(std::span<const Feed> feeds);
    void begin(std::span<const Feed> feeds);
    void attend(uint32_t layer, std::span<const Feed> feeds);
    void attend_all(uint32_t layer, std::span<const Feed> feeds);
    void feed_forward(uint32_t layer);
    void multiply(std::span<float> out, std::span<const float> matrix, std::span<const float> x) const;

    const Config &config_;
    const Weights &weights_;
    const kvl_executor *executor_;
    CacheFormat format_;
    kvlane::Attention attention_;
    uint32_t most_feeds_ = 1;   // that the workspace is large enough for,
    uint32_t most_tokens_ = 1;  // of so many tokens each
    kvlane::Workspace workspace_;
    std::vector<kvl_view> views_;
    std::vector<kvl_sequence> calls_;

    // Of all tokens of a step, one behind the other.
    size_t n_tokens_ = 0;
    std::vector<float> x_;                    // [n_tokens, dim], what the layers add to
    std::vector<float> normed_;               // [n_tokens, dim]
    std::vector<float> added_;                // [n_tokens, dim], what a block adds to x
    std::vector<float> q_;                    // [n_tokens, n_query_heads, head_dim]
    std::vector<float> k_;                    // [n_tokens, n_kv_heads, head_dim]
    std::vector<float> v_;                    // [n_tokens, n_kv_heads, head_dim]
    std::vector<float> attended_;             // [n_tokens, n_query_heads, head_dim]
    std::vector<float> gate_;                 // [n_tokens, hidden_dim]
    std::vector<float> up_;                   // [n_tokens, hidden_dim]
    std::vector<float> logits_;               // [n_tokens, vocab_size]
    std::vector<std::complex<float>> turns_;  // [n_tokens, head_dim / 2], of the tokens' positions
};

}  // namespace llama2

#pragma once

#include <cstdint>
#include <span>

#include "model.hpp"

namespace llama2 {

/// How well a model foretells a text, and how far its logits are from another's.
struct Perplexity {
    double perplexity;            // exp of the mean of -log(probability of the next token)
    double reference_perplexity;  // the other's
    double logit_difference;      // the largest
};

/// Runs both models over tokens.
/// Pre:    at least two tokens
Perplexity perplexity_of(Model &model, Model &reference, std::span<const uint32_t> tokens);

}  // namespace llama2

#include "perplexity.hpp"

#include <algorithm>
#include <cmath>

namespace llama2 {
namespace {

// -log(softmax(logits)[token])
double surprise(std::span<const float> logits, uint32_t token) {
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) {
        sum += std::exp(logit - largest);
    }
    return largest + std::log(sum) - logits[token];
}

}  // namespace

Perplexity perplexity_of(Model &model, Model &reference, std::span<const uint32_t> tokens) {
    Sequence sequence = model.sequence(), reference_sequence = reference.sequence();
    double sum = 0, reference_sum = 0, difference = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
        const std::span<const float> logits = model.forward(sequence, tokens.subspan(i, 1));
        const std::span<const float> reference_logits = reference.forward(reference_sequence, tokens.subspan(i, 1));
        sum += surprise(logits, tokens[i + 1]);
        reference_sum += surprise(reference_logits, tokens[i + 1]);
        for (size_t j = 0; j < logits.size(); ++j) {
            difference = std::max(difference, std::abs(static_cast<double>(logits[j]) - reference_logits[j]));
        }
    }
    const auto n = static_cast<double>(tokens.size() - 1);
    return {std::exp(sum / n), std::exp(reference_sum / n), difference};
}

}  // namespace llama2

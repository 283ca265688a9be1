#include "sampler.hpp"

#include <algorithm>
#include <cmath>

namespace llama2 {

uint32_t Sampler::choose(std::span<const float> logits) {
    const auto greatest = std::max_element(logits.begin(), logits.end());
    if (temperature_ == 0) {
        return static_cast<uint32_t>(greatest - logits.begin());
    }
    double sum = 0;
    weights_.clear();
    for (const float logit : logits) {
        weights_.push_back(std::exp((double{logit} - *greatest) / temperature_));
        sum += weights_.back();
    }
    // The upper 53 bits make a double in [0, 1) that is the same with every standard library.
    double left = static_cast<double>(random_() >> 11) * 0x1p-53 * sum;
    uint32_t token = 0;
    while (token + 1 < weights_.size() && left >= weights_[token]) {
        left -= weights_[token];
        ++token;
    }
    return token;
}

}  // namespace llama2

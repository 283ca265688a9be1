#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace llama2 {

/// Chooses the next token.
class Sampler {
public:
    /// Pre:    temperature >= 0; at 0 the choice is greedy and the seed is not used
    Sampler(float temperature, uint64_t seed) : temperature_(temperature), random_(seed) {}

    /// Draws a token from softmax(logits / temperature); at temperature 0 returns the first of the greatest.
    /// Shape:  logits [vocab_size], at least 1
    uint32_t choose(std::span<const float> logits);

private:
    float temperature_;
    std::mt19937_64 random_;
    std::vector<double> weights_;
};

}  // namespace llama2

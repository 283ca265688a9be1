#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model.hpp"
#include "sampler.hpp"

namespace llama2 {

/// What it took to write a text.
struct Effort {
    uint32_t n_steps = 0;   // passes over the weights
    uint32_t n_tokens = 0;  // that the model ran and kept, those of the prompt included
    uint32_t n_drafted = 0;
    uint32_t n_accepted = 0;  // of those
};

/// Takes each token that joins the text, and the one before it.
using Print = std::function<void(uint32_t previous, uint32_t token)>;

/// Goes on from a prompt until the model ends the text or has run so many steps' tokens. Where most_drafted is not 0,
/// guesses that many tokens and has the model say in one pass how many of them it would have chosen: the text is the one
/// without guesses, token by token, whatever the sampler's temperature. Pre:    prompt has 1 to steps tokens; steps <=
/// seq_len; the sequence is empty, or holds some of the prompt's tokens from its
///         first on, but not its last
/// Source: Y. Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (2023)
Effort generate(Model &model, Sequence &sequence, Sampler &sampler, std::span<const uint32_t> prompt, uint32_t steps,
                uint32_t most_drafted, const Print &print);

/// Guesses how a text goes on: as it did when its newest three tokens, or two, or the one, last stood in it.
/// -> at most `most` tokens, none where the newest token is new
/// Source: A. Saxena, "Prompt Lookup Decoding" (2023)
std::vector<uint32_t> draft(std::span<const uint32_t> text, size_t most);

/// Texts that were written side by side.
struct Batch {
    std::vector<std::vector<uint32_t>> texts;
    size_t n_shared = 0;       // tokens that all prompts begin with, in 64s, stored once
    uint64_t cache_bytes = 0;  // of all sequences
    uint64_t bytes_saved = 0;  // that copies of what is shared would have taken
    Effort effort;             // those shared counted once
};

/// Goes on from each prompt, greedily, one pass over the weights for a token of every text that is not at its end.
/// Pre:    as generate, for each of at least one prompt
Batch generate_batch(Model &model, const std::vector<std::vector<uint32_t>> &prompts, uint32_t steps);

}  // namespace llama2

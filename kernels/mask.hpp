#pragma once

// The tokens that masks make visible to queries, 64 at a time: bit i of a word is the word's i-th token, from 0.
// This header is included by units of every isa, so it defines no function with external linkage.

#include <cstddef>
#include <cstdint>
#include <limits>

#include "kvlane/kvlane.h"

namespace kvlane {

static constexpr int word_tokens = 64;

static inline uint64_t low_bits(int64_t n) { return n <= 0 ? 0 : n >= word_tokens ? ~uint64_t{0} : (uint64_t{1} << n) - 1; }

// One row of bits or biases, of a query and a query head, indexed by position.
static inline const uint64_t *bits_of(const kvl_mask &mask, int64_t query, int64_t head) {
    return reinterpret_cast<const uint64_t *>(reinterpret_cast<const std::byte *>(mask.bits) +
                                              query * mask.bits_stride_bytes + head * mask.bits_head_stride_bytes);
}
static inline const float *biases_of(const kvl_mask &mask, int64_t query, int64_t head) {
    return reinterpret_cast<const float *>(reinterpret_cast<const std::byte *>(mask.biases) +
                                           query * mask.biases_stride_bytes + head * mask.biases_head_stride_bytes);
}

// Whether a query's visible tokens may differ between its heads.
static inline bool differs_by_head(const kvl_mask &mask) {
    return (mask.bits && mask.bits_head_stride_bytes != 0) || (mask.biases && mask.biases_head_stride_bytes != 0);
}

// The tokens whose bits are set, among the n <= 64 tokens from a position on. Only words with bits of these tokens are read.
static inline uint64_t visible_by_bits(const kvl_mask &mask, int64_t query, int64_t head, int64_t position, int n) {
    if (!mask.bits) {
        return low_bits(n);
    }
    const uint64_t *word = bits_of(mask, query, head) + position / word_tokens;
    const auto skipped = static_cast<int>(position % word_tokens);
    const bool has_two = skipped + n > word_tokens;
    return low_bits(n) & (word[0] >> skipped | (has_two ? word[1] << (word_tokens - skipped) : 0));
}

// The visible tokens among them: those that neither bits nor biases hide.
static inline uint64_t unmasked(const kvl_mask &mask, int64_t query, int64_t head, int64_t position, int n) {
    uint64_t visible = visible_by_bits(mask, query, head, position, n);
    if (mask.biases) {
        const float *biases = biases_of(mask, query, head) + position;
        for (int i = 0; i < n; ++i) {
            const bool hides = biases[i] == -std::numeric_limits<float>::infinity();
            visible &= ~(uint64_t{hides} << i);
        }
    }
    return visible;
}

}  // namespace kvlane

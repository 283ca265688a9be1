#pragma once

// Finds sequences of a call that begin with the same memory, which is then read once for all of them.

#include <algorithm>

#include "sequence.hpp"

namespace kvlane {

// Consecutive sequences that share a prefix, from a given first one on.
struct Sharers {
    uint32_t end;      // one past the last sequence; there is at least one
    int64_t n_chunks;  // whole, from position 0 on, in the same memory, visible to all their queries; 0 for one sequence
};

// Tokens that the first views of both sequences begin with, and that no query reads from a next one.
int64_t common_tokens(const Sequence &a, const Sequence &b);

// Tokens from the first one on that all queries of the sequence see, if they may be shared.
int64_t sharable_tokens(const kvl_attention &attention, const Sequence &sequence);

// sequences[i] is sequence i of n.
template <class Array>
Sharers sharers_from(const kvl_attention &a, const Array &sequences, uint32_t n, uint32_t first) {
    Sharers sharers{first + 1, 0};
    const Sequence &leader = sequences[first];
    const int64_t of_first = sharable_tokens(a, leader);
    for (; sharers.end < n && of_first >= chunk_tokens; ++sharers.end) {
        const Sequence &next = sequences[sharers.end];
        const int64_t most = std::min(of_first, sharable_tokens(a, next));
        const int64_t n_chunks = most < chunk_tokens ? 0 : std::min(most, common_tokens(leader, next)) / chunk_tokens;
        if (n_chunks == 0 || n_chunks < sharers.n_chunks) {
            break;
        }
        sharers.n_chunks = sharers.n_chunks == 0 ? n_chunks : sharers.n_chunks;
    }
    return sharers;
}

}  // namespace kvlane

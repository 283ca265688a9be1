#pragma once

// Finds sequences of a call that begin with the same memory, which is then read once for all of them.

#include "sequence.hpp"

namespace kvlane {

// Consecutive sequences that share a prefix, from a given first one on.
struct Sharers {
    uint32_t end;      // one past the last sequence; there is at least one
    int64_t n_chunks;  // whole, from position 0 on, in the same memory, visible to all their queries; 0 for one sequence
};

Sharers sharers_from(const kvl_attention &attention, const Sequences &sequences, uint32_t first);

}  // namespace kvlane

#pragma once

// Which sequences of a call begin with the same memory, that is then read once for all of them.

#include "attention.hpp"

namespace kvlane {

// Sequences from one on that follow each other.
struct Sharers {
    uint32_t end;      // behind the last of them; at least one is there
    int64_t n_chunks;  // whole ones, from position 0 on, that all of their queries see in the same memory; 0 where it is one
};

Sharers sharers_from(const kvl_attention &attention, const kvl_sequence *sequences, uint32_t n_sequences, uint32_t first);

}  // namespace kvlane

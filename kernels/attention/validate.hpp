#pragma once

// What a call's sequences are checked for before it touches anything, each with its view.

#include <algorithm>

#include "attention.hpp"

namespace kvlane {

inline uint32_t queries_of(const kvl_sequence &s) { return std::max(1u, s.n_queries); }

kvl_status check_sequences(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences);

}  // namespace kvlane

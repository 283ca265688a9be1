#pragma once

// What a call is checked for before it touches anything.

#include <algorithm>

#include "attend.hpp"

namespace kvlane {

inline uint32_t queries_of(const kvl_sequence &s) { return std::max(1u, s.n_queries); }

// Every sequence by itself, with its view.
kvl_status check_sequences(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences);

// That nothing is written twice, or read as well: outputs, and workspace_bytes of a workspace. Of checked sequences.
kvl_status check_overlaps(const kvl_attention &attention, const kvl_sequence *sequences, uint32_t n_sequences,
                          const void *workspace, uint64_t workspace_bytes);

// That out and lse of a merge, which may be null, overlap neither each other nor what is merged.
kvl_status check_merge_overlaps(const kvl_attention &attention, const kvl_partial *partials, uint32_t n_partials,
                                uint32_t n_queries, const float *out, const float *lse);

}  // namespace kvlane

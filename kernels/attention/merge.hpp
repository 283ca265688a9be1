#pragma once

#include "attention.hpp"

namespace kvlane {

// The state of rows that have seen no token yet; sinks [n_rows], logits that join the sums, may be null.
void clear_rows(const PartialRows &rows, uint32_t n_rows, uint32_t v_head_dim, const float *sinks);

}  // namespace kvlane

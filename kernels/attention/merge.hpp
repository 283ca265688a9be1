#pragma once

#include "attention.hpp"

namespace kvlane {

// Initializes the state of query rows before any token. sinks [n_rows], the sink logits to include, may be null.
void clear_rows(const PartialRows &rows, uint32_t n_rows, uint32_t v_head_dim, const float *sinks);

}  // namespace kvlane

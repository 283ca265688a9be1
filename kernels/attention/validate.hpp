#pragma once

// Validation of layers, views and a call's sequences, before any other access to them.

#include <algorithm>

#include "attention.hpp"

namespace kvlane {

inline uint32_t queries_of(const kvl_sequence &s) { return std::max(1u, s.n_queries); }

// Checks a layer's n_kv_heads, head_dim, v_head_dim, formats and rotations.
kvl_status check_layer_shape(const kvl_layer_desc &layer);

// Checks a view whose own tokens are to be written as packed tiles, independent of any attention object.
kvl_status check_writable_tiles(const kvl_view &view);

kvl_status check_sequences(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences);

}  // namespace kvlane

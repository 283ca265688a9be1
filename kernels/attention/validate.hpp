#pragma once

// What layers, views and a call's sequences are checked for before anything is touched.

#include <algorithm>

#include "attention.hpp"

namespace kvlane {

inline uint32_t queries_of(const kvl_sequence &s) { return std::max(1u, s.n_queries); }

// A layer's n_kv_heads, head_dims, formats and rotations.
kvl_status check_layer_shape(const kvl_layer_desc &layer);

// A view whose own tokens are to be written as packed tiles, whatever attention reads them.
kvl_status check_writable_tiles(const kvl_view &view);

kvl_status check_sequences(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences);

}  // namespace kvlane

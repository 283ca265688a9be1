#pragma once

// Validation of layers, views and a call's sequences, before any other access to them.

#include <span>

#include "sequence.hpp"

namespace kvlane {

// Checks a layer's n_kv_heads, head_dim, v_head_dim, formats and rotations.
kvl_status check_layer_shape(const kvl_layer_desc &layer);

// Checks a view whose own tokens are to be written as packed tiles, independent of any attention object.
kvl_status check_writable_tiles(const kvl_view &view);

// Checks a pool of blocks of packed tiles, whatever the view's own tokens.
kvl_status check_tile_pool(const kvl_view &pool);

// Checks rows of keys and values but for their number.
kvl_status check_token_rows(const kvl_rows &rows, uint32_t n_kv_heads, uint32_t head_dim, uint32_t v_head_dim);

// Checks the format of rows in a caller's memory: f32, f16 or bf16.
kvl_status check_row_format(kvl_format format, const char *name);

// Checks out and lse of a merge.
kvl_status check_merge_rows(const kvl_attention &a, const kvl_merge_desc &desc, uint32_t n_queries);

// Checks an array of sequences, after which Sequences may read it.
kvl_status check_sequences(const kvl_attention *attention, const DescArray<kvl_sequence> &sequences);

// Checks a sequence, but of the memory of its tokens the addresses alone. s: of this version.
kvl_status check_addresses(const kvl_attention &attention, const kvl_sequence &s);

}  // namespace kvlane

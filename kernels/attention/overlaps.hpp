#pragma once

// Checks that the outputs of a call overlap neither each other nor its inputs.

#include "attention.hpp"

namespace kvlane {

// One output of a sequence: addresses [begin, end).
struct Output {
    uintptr_t begin, end;
    uint32_t sequence;
    uint32_t kind;
};

inline constexpr uint32_t max_outputs = 5;  // of a sequence

// Checks validated sequences. scratch: buffer in the workspace for max_outputs per sequence; it is written only after the
// workspace has been found to overlap nothing else that the call reads or writes.
kvl_status check_overlaps(const kvl_attention &attention, const kvl_sequence *sequences, uint32_t n_sequences,
                          const uint32_t *n_tasks, const void *workspace, uint64_t workspace_bytes, Output *scratch);

// Checks that the own tokens of a validated view of tiles, which are to be written, overlap neither the rows k and v nor the
// view, its spans and its blocks.
kvl_status check_write_overlaps(const kvl_view &view, const float *k, size_t k_len, const float *v, size_t v_len);

// Checks that out and lse of a merge, which may be null, overlap neither each other nor the partials and their array.
kvl_status check_merge_overlaps(const kvl_attention &attention, const kvl_partial *partials, uint32_t n_partials,
                                uint32_t n_queries, const float *out, const float *lse);

}  // namespace kvlane

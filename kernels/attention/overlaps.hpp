#pragma once

// That a call writes nothing twice, and nothing that it reads.

#include "attention.hpp"

namespace kvlane {

// One output of a sequence: addresses [begin, end).
struct Output {
    uintptr_t begin, end;
    uint32_t sequence;
    uint32_t kind;
};

inline constexpr uint32_t max_outputs = 5;  // of a sequence

// Of checked sequences. scratch: room for max_outputs of each, in the workspace; it is written only after nothing else that
// the call reads or writes has been found there.
kvl_status check_overlaps(const kvl_attention &attention, const kvl_sequence *sequences, uint32_t n_sequences,
                          const uint32_t *n_tasks, const void *workspace, uint64_t workspace_bytes, Output *scratch);

// That the own tokens of a checked view of tiles, which are to be written, overlap neither the rows k and v nor what
// describes the view.
kvl_status check_write_overlaps(const kvl_view &view, const float *k, size_t k_len, const float *v, size_t v_len);

// That out and lse of a merge, which may be null, overlap neither each other nor what is merged.
kvl_status check_merge_overlaps(const kvl_attention &attention, const kvl_partial *partials, uint32_t n_partials,
                                uint32_t n_queries, const float *out, const float *lse);

}  // namespace kvlane

#pragma once

// Checks that the outputs of a call overlap neither each other nor its inputs.

#include <span>

#include "sequence.hpp"

namespace kvlane {

// A contiguous piece of a sequence's outputs: addresses [begin, end).
struct Output {
    uintptr_t begin, end;
    uint32_t sequence;
    uint32_t kind;
};

// How many pieces a sequence's outputs have, and how many those of one with so many queries have at most.
uint64_t n_outputs(const kvl_attention &attention, const Sequence &sequence);
uint64_t max_outputs(const kvl_attention &attention, uint32_t n_queries);

// Checks that what the call writes for itself overlaps nothing else that it reads or writes.
kvl_status check_own_memory(const kvl_attention &attention, const Sequences &sequences, const uint32_t *n_tasks,
                            const void *workspace, uint64_t workspace_bytes);

// Checks that the outputs overlap neither each other nor anything that the call reads. scratch: a buffer for all their
// pieces.
kvl_status check_outputs(const kvl_attention &attention, const Sequences &described, std::span<const Sequence> sequences,
                         Output *scratch);

// Checks that the own tokens of a validated view of tiles, which are to be written, overlap neither the rows k and v nor the
// view, its spans and its blocks.
kvl_status check_write_overlaps(const kvl_view &view, int64_t n_tokens, const StridedRows &k, const StridedRows &v);

// Checks that a validated pool of tiles overlaps neither the rows k and v nor their slots nor what describes it.
kvl_status check_slot_overlaps(const kvl_view &pool, const int64_t *slots, int64_t n_tokens, const StridedRows &k,
                               const StridedRows &v);

// Checks that out and lse of a merge, from their first row to their last, overlap neither each other nor the partials and
// their array.
kvl_status check_merge_overlaps(const kvl_attention &attention, const kvl_merge_desc &desc, const MergedRows &to,
                                uint32_t n_queries);

// Checks that each array of out is that of the same name in one of the partials, or overlaps neither the other arrays of out
// nor the partials and their array.
kvl_status check_merge_partials_overlaps(const kvl_attention &attention, std::span<const kvl_partial> partials,
                                         uint32_t n_rows, const kvl_partial &out);

}  // namespace kvlane

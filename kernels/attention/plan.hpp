#pragma once

// What a call consists of, and where it lies in the workspace: (sequence, KV head, chunk, block of queries) units in that
// order, each a task but what another sequence's reads.

#include "visible.hpp"

namespace kvlane {

// What a sequence reads together with others, which follow each other: the first of them reads for all.
struct Share {
    int64_t n_chunks;      // whole ones from position 0 on; 0: none
    uint32_t leader;       // sequence,
    uint32_t end;          // and the one behind the last
    uint32_t first_query;  // of this one among those of all
    uint32_t n_queries;    // of all
    Query *queries;
};

// Where a chunk begins in memory: a token of a view, which is in a run that begins with another of its tokens.
struct Place {
    const kvl_view *view;
    int64_t token;
    int64_t run_first;
    uint32_t run;
};

enum UnitState : uint8_t { not_run, running, done };

// At the start of a workspace. Behind it: the first unit, the first partial and the first place of every sequence and their
// ends, what each shares, and the queries that do; the chunks that each (sequence, KV head, block of queries) still waits
// for, the states of units, where chunks begin, and the partials, with the floats of these. Before all that is written, the
// sequences' outputs are sorted where it will lie.
struct Call {
    uint64_t magic;
    const kvl_attention *attention;
    const kvl_sequence *sequences;
    uint32_t n_sequences;
    uint32_t n_units;
    uint32_t max_queries;  // of a sequence
    uint32_t *first_unit;
    uint32_t *first_partial;
    uint32_t *first_place;
    Share *shares;
    uint32_t *chunks_left;
    uint8_t *unit_states;
    Place *places;
    kvl_partial *partials;
};

inline constexpr uint64_t call_magic = 0x6b766c616e653031;

// More than are allowed where they are too many to count.
uint64_t n_partials_of(const kvl_attention &a, const kvl_sequence &s);

// Offsets of the workspace's parts, and its size. What a call sorts its outputs in first is where the rest lies later.
struct Layout {
    uint64_t first_unit;
    uint64_t first_partial;
    uint64_t first_place;
    uint64_t shares;
    uint64_t queries;
    uint64_t chunks_left;
    uint64_t unit_states;
    uint64_t places;
    uint64_t partials;
    uint64_t floats;
    uint64_t bytes;
};

uint64_t merges_of(const kvl_attention &a, uint32_t max_queries);

Layout layout_of(const kvl_attention &a, uint32_t n_sequences, uint32_t max_queries, uint64_t n_places, uint64_t n_partials);

kvl_status check_units(uint64_t n_units);

// The same for all blocks of a sequence; units beyond a block's own chunks have nothing to do.
int64_t n_chunks_of(const kvl_attention &a, const kvl_sequence &s);

Query query_of(const kvl_attention &a, const kvl_sequence &s, uint32_t query);

// The first of a sequence's partials of a KV head.
kvl_partial *partials_of(const Call &call, uint32_t sequence, uint32_t kv_head);

// The first of a sequence's chunks that are its own units.
int64_t first_chunk_of(const Call &call, uint32_t sequence);

void lay_out(const kvl_attention &a, const kvl_sequence *sequences, uint32_t n_sequences, uint32_t max_queries,
             const Layout &layout, void *workspace);

}  // namespace kvlane

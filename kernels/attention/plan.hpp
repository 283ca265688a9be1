#pragma once

// The work items of a call, and their layout in the workspace.
//
// A work item is one chunk of one KV head for one block of queries. Sequences that begin with the same memory are sharers; a
// sequence that shares nothing is its own only sharer. Items are ordered as in
//
//   for sharers: for KV heads:
//       for shared chunks: for blocks of all their queries
//       for sequences: for the sequence's own chunks: for blocks of its queries
//
// so that a chunk is read for one block after another. Items are folded in this order, so only the partial states of one KV
// head of one set of sharers are live at a time.

#include <span>

#include "reorder_buffer.hpp"
#include "visible.hpp"

namespace kvlane {

// Where a chunk begins in memory: a token of a view, its run, and that run's first token.
struct Place {
    const kvl_view *view;
    int64_t token;
    int64_t run_first;
    uint32_t run;
    uint32_t view_index;  // in the chain
};

struct SequencePlan {
    uint64_t first_item;   // of the sharers
    uint64_t n_items;      // of the sharers, per KV head
    uint64_t first_own;    // the sequence's first unshared item, among these
    uint64_t first_place;  // of the chunks visible to any of its queries
    int64_t n_shared;      // chunks, from position 0 on
    uint32_t leader;       // the first of the sharers,
    uint32_t end;          // and one past the last
    uint32_t first_query;  // the sequence's first query, among those of the sharers
    uint32_t n_queries;    // of the sharers
    uint64_t views;        // of a plan: shape_of_views
};

// Scratch buffers of one task.
struct TaskScratch {
    ChunkRows rows;
    Query queries[block_rows];
};

enum TaskState : uint8_t { not_run, running, done };

// Lies at the start of the workspace.
struct Call {
    uint64_t magic;
    bool is_planned;  // whether it may be begun again once it has ended
    const kvl_attention *attention;
    Sequence *sequences;
    uint32_t n_sequences;
    uint32_t max_tasks;  // that the workspace is laid out for
    uint32_t n_tasks;
    SequencePlan *plans;  // [n_sequences]
    Place *places;
    float *m;  // [queries of the sharers][group]: the states into which items are folded;
    float *l;
    float *o;                           // of outputs that are not f32; consecutive rows are partial_stride(v_head_dim) apart
    std::byte *results;                 // of items, indexed by slot
    uint32_t result_rows;               // maximum per item
    TaskScratch *scratch;               // [max_tasks]
    std::atomic<uint8_t> *task_states;  // [max_tasks]
    ReorderBuffer items;
};

// Of a call that has been begun, and of a plan.
inline constexpr uint64_t call_magic = 0x6b766c616e653031, plan_magic = 0x6b766c616e653032;

// n_queries queries from first_query of a sequence on; for a shared chunk they continue in the following sequences.
struct Item {
    uint32_t kv_head;
    uint32_t sequence;
    uint32_t first_query;
    uint32_t n_queries;
    Tokens tokens;  // of the chunk, visible to any of them; if empty, nothing to compute
    bool is_first;  // whether this is the first of the queries' chunks
    bool is_last;
};

Item item_at(const Call &call, uint64_t index);

// Calls body(i, sequence, query) for each of the item's queries i.
template <class Body>
void for_each_query(const Call &call, const Item &item, Body &&body) {
    uint32_t sequence = item.sequence, query = item.first_query;
    for (uint32_t i = 0; i < item.n_queries; ++i, ++query) {
        if (query == call.sequences[sequence].n_queries) {
            ++sequence;
            query = 0;
        }
        body(i, sequence, query);
    }
}

// Where an item's tokens begin.
const Place &place_of(const Call &call, const Item &item);

// The partial state of an item's query rows until it is folded; rows of o are partial_stride(v_head_dim) floats apart.
kvl_partial result_of(const Call &call, uint64_t index);

// Byte offsets of the workspace's parts, and its size in bytes.
struct Layout {
    uint64_t sequences;
    uint64_t outputs;  // a buffer for sorting them, over the following parts before these are in use
    uint64_t plans;
    uint64_t places;
    uint64_t m;
    uint64_t l;
    uint64_t o;
    uint64_t slot_states;
    uint64_t task_states;
    uint64_t scratch;
    uint64_t results;
    uint64_t bytes;
};

// Computes the workspace layout for a call with validated sequences.
// Errors: KVL_ERROR_RANGE when there are too many items
kvl_status layout_of_call(const kvl_attention &a, const Sequences &sequences, uint32_t max_tasks, Layout &layout);

// Copies the sequences to their place in the workspace, and nothing else there.
std::span<Sequence> copy_sequences(const Sequences &sequences, const Layout &layout, void *workspace);

Call &lay_out_call(const kvl_attention &a, std::span<Sequence> sequences, uint32_t max_tasks, const Layout &layout,
                   void *workspace);

// Keeps what later sequences are compared with, and lets the call be begun again.
void keep_as_plan(Call &call);

// Checks that sequences differ from those of a plan in addresses alone; Sequences may then read them.
kvl_status check_planned_sequences(const Call &call, const DescArray<kvl_sequence> &sequences);

// Replaces the sequences of a plan by others that differ in addresses alone.
void rebind(Call &call, const Sequences &sequences);

// Makes all items and tasks of a call those of a new one, with up to max_tasks tasks.
void restart(Call &call, uint32_t max_tasks);

}  // namespace kvlane

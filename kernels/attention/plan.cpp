#include "plan.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "../error.hpp"
#include "../view.hpp"
#include "overlaps.hpp"
#include "prefix.hpp"
#include "validate.hpp"

namespace kvlane {
namespace {

constexpr size_t alignment = KVL_WORKSPACE_ALIGNMENT;
constexpr uint64_t max_items = uint64_t{1} << 62;

// Memory for results of items that came before their turn: so much for each task that one which is preempted does not soon
// keep the others from claiming items.
constexpr uint64_t result_bytes_per_task = 512 * 1024;
constexpr uint64_t min_results_per_task = 4, max_results_per_task = 256;

// More than max_items where the product is.
constexpr uint64_t items(uint64_t x, uint64_t y) { return y > 0 && x > max_items / y ? max_items + 1 : x * y; }

constexpr uint64_t aligned(uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

// What the size of a workspace grows with.
struct Extent {
    uint32_t n_sequences;
    uint32_t max_queries;  // of a sequence
    uint32_t max_tasks;
    uint64_t n_places;
    uint64_t n_items;    // no fewer than there are
    uint64_t n_outputs;  // likewise, pieces of memory
    bool all_f32;        // whether all outputs are

    // The most that are sharers'.
    uint64_t sharers_queries(const kvl_attention &a) const {
        return std::max<uint64_t>(max_queries, uint64_t{n_sequences} * std::min(max_queries, a.block_queries));
    }
    // The most that an item has.
    uint32_t item_rows(const kvl_attention &a) const {
        return a.group * static_cast<uint32_t>(std::min<uint64_t>(a.block_queries, sharers_queries(a)));
    }
};

// Of a partial state of so many rows: m and l, each padded to whole cache lines, and o.
uint64_t result_bytes(const kvl_attention &a, uint32_t rows) {
    return static_cast<uint64_t>(2 * partial_stride(rows) + rows * partial_stride(a.v_head_dim)) * sizeof(float);
}

uint64_t results_per_task(const kvl_attention &a, uint32_t rows) {
    return std::clamp(result_bytes_per_task / result_bytes(a, rows), min_results_per_task, max_results_per_task);
}

Layout layout_of(const kvl_attention &a, const Extent &extent) {
    Layout layout;
    uint64_t end = 0;
    const auto take = [&](uint64_t n, size_t element_bytes) { return std::exchange(end, end + aligned(n * element_bytes)); };
    const uint64_t n_tasks = std::min<uint64_t>(extent.max_tasks, extent.n_items);
    const uint64_t of_result = result_bytes(a, extent.item_rows(a));
    const uint64_t of_results = n_tasks * std::max(result_bytes_per_task, min_results_per_task * of_result);
    take(1, sizeof(Call));
    layout.sequences = take(extent.n_sequences, sizeof(Sequence));
    layout.outputs = end;
    layout.plans = take(extent.n_sequences, sizeof(SequencePlan));
    layout.places = take(extent.n_places, sizeof(Place));
    layout.m = take(extent.sharers_queries(a) * a.group, sizeof(float));
    layout.l = take(extent.sharers_queries(a) * a.group, sizeof(float));
    layout.o = take(extent.all_f32 ? 0 : extent.sharers_queries(a) * a.group,
                    static_cast<size_t>(partial_stride(a.v_head_dim)) * sizeof(float));
    layout.slot_states = take(std::min(extent.n_items, n_tasks * max_results_per_task), sizeof(ReorderBuffer::State));
    layout.task_states = take(n_tasks, sizeof(std::atomic<uint8_t>));
    layout.scratch = take(n_tasks, sizeof(TaskScratch));
    layout.results = take(extent.n_items < of_results / of_result ? extent.n_items * of_result : of_results, 1);
    layout.bytes = std::max(end, layout.outputs + aligned(items(extent.n_outputs, sizeof(Output))));
    return layout;
}

// The same for all blocks of a sequence; items beyond a block's own chunks have nothing to compute.
int64_t n_chunks_of(const kvl_attention &a, const Sequence &s) {
    if (s.n_queries == 1) {
        return visible_to_any(a, s).n_chunks();
    }
    const Tokens requested = requested_of(s).within({0, s.len});
    return std::clamp<int64_t>(requested.end_chunk() - requested.first_chunk(), 1,
                               max_chunks_of_block(a, s.len, s.n_queries, s.is_causal));
}

// Those that a sequence does not share. The last of them writes its outputs, so there is one even where it has no tokens.
int64_t own_chunks(const kvl_attention &a, const Sequence &s, int64_t n_shared) {
    return std::max<int64_t>(1, n_chunks_of(a, s) - n_shared);
}

uint32_t shared_blocks(const kvl_attention &a, const SequencePlan &leader) { return blocks_of(a, leader.n_queries); }

// Of sequences that share or do not.
uint64_t most_items(const kvl_attention &a, int64_t n_chunks, uint32_t n_queries) {
    return items(items(static_cast<uint64_t>(n_chunks), blocks_of(a, n_queries)) + 1, a.n_kv_heads);
}

kvl_status extent_of(const kvl_attention &a, const Sequences &sequences, uint32_t max_tasks, Extent &extent) {
    extent = {sequences.n(), 1, max_tasks, 0, 0, 0, true};
    for (uint32_t i = 0; i < sequences.n(); ++i) {
        const Sequence s = sequences[i];
        extent.max_queries = std::max(extent.max_queries, s.n_queries);
        extent.n_places += static_cast<uint64_t>(visible_to_any(a, s).n_chunks());
        extent.n_items += most_items(a, n_chunks_of(a, s), s.n_queries);
        extent.n_outputs += n_outputs(a, s);
        extent.all_f32 &= s.out.format == KVL_F32;
        if (extent.n_items > max_items) {
            return fail(KVL_ERROR_RANGE,
                        "sequences[%u] brings the call to %" PRIu64 " work items; at most %" PRIu64 " are allowed", i,
                        extent.n_items, max_items);
        }
    }
    return KVL_OK;
}

// Goes on to a position that the views hold.
void move_to(Place &place, int64_t &view_first, int64_t position) {
    while (position - view_first >= own_tokens(*place.view)) {
        view_first += tokens_before_next(*place.view);
        place = {place.view->next, 0, 0, 0, place.view_index + 1};
    }
    place.token = position - view_first;
    int64_t in_run = place.token - place.run_first;
    place.run = run_of(*place.view, place.run, in_run);
    place.run_first = place.token - in_run;
}

// Where the chunks begin that any query sees some of: in one pass over the views and their runs. Returns how many there are.
uint64_t lay_out_places(const kvl_attention &a, const Sequence &s, Place *places) {
    const Visible visible = visible_to_any(a, s);
    const int64_t first = requested_of(s).first;
    Place place{s.view, 0, 0, 0, 0};
    int64_t view_first = view_first_of(s);
    const int64_t n_chunks = visible.n_chunks();
    for (int64_t i = 0; i < n_chunks; ++i) {
        const int64_t position = std::max(first, visible.chunk(i).first);
        if (position < visible.window.end) {  // else it has no tokens
            move_to(place, view_first, position);
        }
        places[i] = place;
    }
    return static_cast<uint64_t>(n_chunks);
}

// The plans of sharers, whose items begin with first_item. Returns the end of these.
uint64_t plan_sharers(const kvl_attention &a, std::span<const Sequence> sequences, uint32_t first, const Sharers &sharers,
                      uint64_t first_item, SequencePlan *plans) {
    SequencePlan plan{};
    plan.first_item = first_item;
    plan.n_shared = sharers.n_chunks;
    plan.leader = first;
    plan.end = sharers.end;
    for (uint32_t s = first; s < sharers.end; ++s) {
        plans[s].first_query = plan.n_queries;
        plan.n_queries += sequences[s].n_queries;
    }
    plan.n_items = static_cast<uint64_t>(plan.n_shared) * shared_blocks(a, plan);
    for (uint32_t s = first; s < sharers.end; ++s) {
        plan.first_query = plans[s].first_query;
        plan.first_own = plan.n_items;
        const Sequence &sequence = sequences[s];
        plan.n_items += static_cast<uint64_t>(own_chunks(a, sequence, plan.n_shared)) * blocks_of(a, sequence.n_queries);
        plans[s] = plan;
    }
    for (uint32_t s = first; s < sharers.end; ++s) {
        plans[s].n_items = plan.n_items;
    }
    return first_item + plan.n_items * a.n_kv_heads;
}

// Of the sequences of a call: its items, and the most rows that one of them has.
struct Totals {
    uint64_t n_items;
    uint32_t result_rows;
};

Totals plan_sequences(const kvl_attention &a, std::span<const Sequence> sequences, SequencePlan *plans, Place *places) {
    Totals totals{0, a.group};
    uint64_t place = 0;
    for (uint32_t first = 0; first < sequences.size();) {
        const Sharers sharers = sharers_from(a, sequences, static_cast<uint32_t>(sequences.size()), first);
        totals.n_items = plan_sharers(a, sequences, first, sharers, totals.n_items, plans);
        totals.result_rows = std::max(totals.result_rows, a.group * std::min(a.block_queries, plans[first].n_queries));
        for (; first < sharers.end; ++first) {
            plans[first].first_place = place;
            place += lay_out_places(a, sequences[first], places + place);
        }
    }
    return totals;
}

// Of a chunk that sharers share, for a block of their queries.
Item shared_item(const Call &call, const SequencePlan &leader, uint32_t kv_head, uint64_t index) {
    const kvl_attention &a = *call.attention;
    const uint32_t n_blocks = shared_blocks(a, leader);
    const auto chunk = static_cast<int64_t>(index / n_blocks);
    const uint32_t first = static_cast<uint32_t>(index % n_blocks) * a.block_queries;
    const SequencePlan *next =
        std::upper_bound(call.plans + leader.leader, call.plans + leader.end, first,
                         [](uint32_t query, const SequencePlan &plan) { return query < plan.first_query; });
    return {.kv_head = kv_head,
            .sequence = static_cast<uint32_t>(next - call.plans) - 1,
            .first_query = first - next[-1].first_query,
            .n_queries = std::min(a.block_queries, leader.n_queries - first),
            .tokens = {chunk * chunk_tokens, (chunk + 1) * chunk_tokens},
            .is_first = chunk == 0,
            .is_last = false};
}

// Of a sequence's own chunks.
Item own_item(const Call &call, uint32_t sequence, uint32_t kv_head, uint64_t index) {
    const kvl_attention &a = *call.attention;
    const Sequence &s = call.sequences[sequence];
    const int64_t n_shared = call.plans[sequence].n_shared;
    const uint32_t n_blocks = blocks_of(a, s.n_queries);
    const auto own_chunk = static_cast<int64_t>(index / n_blocks), chunk = n_shared + own_chunk;
    const Block block = block_of(a, s, static_cast<uint32_t>(index % n_blocks));
    const Visible visible = visible_to(a, s, block);
    const Tokens all{requested_of(s).first, visible.window.end};
    return {.kv_head = kv_head,
            .sequence = sequence,
            .first_query = block.first,
            .n_queries = block.n,
            .tokens = chunk < visible.n_chunks() ? all.within(visible.chunk(chunk)) : Tokens{0, 0},
            .is_first = chunk == 0,
            .is_last = own_chunk + 1 == own_chunks(a, s, n_shared)};
}

}  // namespace

Item item_at(const Call &call, uint64_t index) {
    const SequencePlan *plans = call.plans;
    const SequencePlan *next = std::upper_bound(plans, plans + call.n_sequences, index,
                                                [](uint64_t i, const SequencePlan &plan) { return i < plan.first_item; });
    const SequencePlan &leader = plans[next[-1].leader];
    index -= leader.first_item;
    const auto kv_head = static_cast<uint32_t>(index / leader.n_items);
    index -= kv_head * leader.n_items;
    if (index < leader.first_own) {
        return shared_item(call, leader, kv_head, index);
    }
    next = std::upper_bound(plans + leader.leader, plans + leader.end, index,
                            [](uint64_t i, const SequencePlan &plan) { return i < plan.first_own; });
    return own_item(call, static_cast<uint32_t>(next - plans) - 1, kv_head, index - next[-1].first_own);
}

const Place &place_of(const Call &call, const Item &item) {
    const Visible visible = visible_to_any(*call.attention, call.sequences[item.sequence]);
    return call.places[call.plans[item.sequence].first_place + static_cast<uint64_t>(visible.index_of(item.tokens.first))];
}

kvl_partial result_of(const Call &call, uint64_t index) {
    const kvl_attention &a = *call.attention;
    auto *const m = reinterpret_cast<float *>(call.results + call.items.slot_of(index) * result_bytes(a, call.result_rows));
    const int64_t stride = partial_stride(call.result_rows);
    return {m, m + stride, m + 2 * stride};
}

kvl_status layout_of_call(const kvl_attention &a, const Sequences &sequences, uint32_t max_tasks, Layout &layout) {
    Extent extent;
    KVLANE_TRY(extent_of(a, sequences, max_tasks, extent));
    layout = layout_of(a, extent);
    return KVL_OK;
}

std::span<Sequence> copy_sequences(const Sequences &sequences, const Layout &layout, void *workspace) {
    auto *const copies = reinterpret_cast<Sequence *>(static_cast<std::byte *>(workspace) + layout.sequences);
    for (uint32_t i = 0; i < sequences.n(); ++i) {
        new (&copies[i]) Sequence(sequences[i]);
    }
    return {copies, sequences.n()};
}

Call &lay_out_call(const kvl_attention &a, std::span<Sequence> sequences, uint32_t max_tasks, const Layout &layout,
                   void *workspace) {
    auto *const base = static_cast<std::byte *>(workspace);
    auto *const plans = reinterpret_cast<SequencePlan *>(base + layout.plans);
    auto *const places = reinterpret_cast<Place *>(base + layout.places);
    const Totals totals = plan_sequences(a, sequences, plans, places);
    const auto n_tasks = static_cast<uint32_t>(std::min<uint64_t>(max_tasks, totals.n_items));
    const uint64_t n_slots = std::min(totals.n_items, n_tasks * results_per_task(a, totals.result_rows));
    Call &call = *new (workspace) Call{.magic = 0,
                                       .is_planned = false,
                                       .attention = &a,
                                       .sequences = sequences.data(),
                                       .n_sequences = static_cast<uint32_t>(sequences.size()),
                                       .max_tasks = n_tasks,
                                       .n_tasks = n_tasks,
                                       .plans = plans,
                                       .places = places,
                                       .m = reinterpret_cast<float *>(base + layout.m),
                                       .l = reinterpret_cast<float *>(base + layout.l),
                                       .o = reinterpret_cast<float *>(base + layout.o),
                                       .results = base + layout.results,
                                       .result_rows = totals.result_rows,
                                       .scratch = reinterpret_cast<TaskScratch *>(base + layout.scratch),
                                       .task_states = reinterpret_cast<std::atomic<uint8_t> *>(base + layout.task_states),
                                       .items = {reinterpret_cast<ReorderBuffer::State *>(base + layout.slot_states),
                                                 static_cast<uint32_t>(n_slots), totals.n_items}};
    for (uint32_t task = 0; task < n_tasks; ++task) {
        new (&call.task_states[task]) std::atomic<uint8_t>(not_run);
    }
    return call;
}

void restart(Call &call, uint32_t max_tasks) {
    call.n_tasks = std::min(call.max_tasks, max_tasks);
    call.items.restart();
    for (uint32_t task = 0; task < call.n_tasks; ++task) {
        call.task_states[task].store(not_run, std::memory_order_relaxed);
    }
}

}  // namespace kvlane

using namespace kvlane;

kvl_status kvl_attention_workspace_size(const kvl_attention *attention, uint32_t n_sequences, int64_t max_len,
                                        uint32_t max_queries, uint32_t max_tasks, size_t *bytes) {
    kvl_workspace_desc desc = kvl_workspace_desc_init();
    desc.n_sequences = n_sequences;
    desc.max_len = max_len;
    desc.max_queries = max_queries;
    desc.max_tasks = max_tasks;
    return kvl_attention_workspace_size_for(attention, &desc, bytes);
}

kvl_status kvl_attention_workspace_size_for(const kvl_attention *attention, const kvl_workspace_desc *described,
                                            size_t *bytes) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(check_not_null(bytes, "bytes"));
    KVLANE_TRY(check_desc(described, 0, "desc"));
    const kvl_workspace_desc desc = read_desc(*described);
    KVLANE_TRY(check_reserved(desc.reserved));
    KVLANE_TRY(check_range(desc.max_len, 0, KVL_MAX_TOKENS, "max_len"));
    KVLANE_TRY(check_range(desc.max_queries, 1, UINT32_MAX, "max_queries"));
    KVLANE_TRY(check_range(desc.max_tasks, 1, KVL_MAX_TASKS, "max_tasks"));
    KVLANE_TRY(check_row_format(desc.out_format, "out_format"));
    const kvl_attention &a = *attention;
    const auto max_chunks = static_cast<uint64_t>(max_chunks_of_queries(a, desc.max_len, desc.max_queries, false));
    const int64_t of_block = max_chunks_of_block(a, desc.max_len, desc.max_queries, false);
    *bytes = layout_of(a, {.n_sequences = desc.n_sequences,
                           .max_queries = desc.max_queries,
                           .max_tasks = desc.max_tasks,
                           .n_places = max_chunks * desc.n_sequences,
                           .n_items = items(most_items(a, of_block, desc.max_queries), desc.n_sequences),
                           .n_outputs = items(max_outputs(a, desc.max_queries), desc.n_sequences),
                           .all_f32 = desc.out_format == KVL_F32})
                 .bytes;
    return KVL_OK;
}

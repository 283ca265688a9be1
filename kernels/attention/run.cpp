// The tasks of a call. The last unit of a (sequence, KV head, block) to end merges its partials, in chunk order whoever
// merges, so that bits do not depend on who ran what.

#include <atomic>
#include <span>

#include "../error.hpp"
#include "gate.hpp"
#include "overlaps.hpp"
#include "plan.hpp"

using namespace kvlane;

namespace {

constexpr size_t alignment = KVL_WORKSPACE_ALIGNMENT;

kvl_status check_workspace(const void *workspace, uint64_t bytes, uint64_t needed) {
    KVLANE_TRY(check_not_null(workspace, "workspace"));
    if (reinterpret_cast<uintptr_t>(workspace) % alignment != 0) {
        return fail(KVL_ERROR_WORKSPACE_ALIGNMENT, "workspace is at %p; it must be aligned to %zu bytes", workspace,
                    alignment);
    }
    return bytes >= needed
               ? KVL_OK
               : fail(KVL_ERROR_WORKSPACE_SIZE, "workspace_bytes is %" PRIu64 "; this call needs %" PRIu64, bytes, needed);
}

kvl_status begun_call(void *workspace, Call *&call) {
    KVLANE_TRY(check_not_null(workspace, "workspace"));
    call = static_cast<Call *>(workspace);
    return call->magic == call_magic
               ? KVL_OK
               : fail(KVL_ERROR_WORKSPACE_STATE, "workspace at %p holds no call; kvl_attend_begin makes one", workspace);
}

// stride: partials from one chunk of the block to its next.
void merge_block(const kvl_attention &a, const kvl_sequence &s, const Share &share, uint32_t kv_head, const Block &block,
                 const kvl_partial *partials, uint32_t stride, int64_t n_chunks) {
    const uint64_t head = uint64_t{block.first} * a.n_query_heads + uint64_t{kv_head} * a.group;
    const auto from_head = [&](float *rows, uint64_t dim) { return rows ? rows + head * dim : nullptr; };
    const kvl_partial whole = s.range ? s.range->out : kvl_partial{};
    a.kernels->merge({.partials = partials,
                      .stride = stride,
                      .n_partials = n_chunks,
                      .n_shared = share.n_chunks,
                      .shared_row = static_cast<int>(a.group * share.first_query),
                      .o_stride = partial_stride(a.v_head_dim),
                      .n_queries = static_cast<int>(block.n),
                      .group = static_cast<int>(a.group),
                      .v_head_dim = a.v_head_dim,
                      .query_stride = a.n_query_heads,
                      .out = s.range ? nullptr : from_head(s.out, a.v_head_dim),
                      .lse = from_head(s.lse, 1),
                      .whole = {from_head(whole.m, 1), from_head(whole.l, 1), from_head(whole.o, a.v_head_dim)},
                      .rotates_out = a.v_rotation == KVL_ROTATION_HADAMARD,
                      .sinks = a.sink_logits && !s.range ? &a.sink_logits[uint64_t{kv_head} * a.group] : nullptr});
}

const Place &place_of(const Call &call, uint32_t sequence, const Tokens &chunk) {
    const Visible visible = visible_to_any(*call.attention, call.sequences[sequence]);
    return call.places[call.first_place[sequence] + visible.index_of(chunk.first)];
}

// queries: of the block that begins with first_query, or of several sequences, where there is no mask.
void decode_unit(const Call &call, uint32_t sequence, uint32_t kv_head, std::span<const Query> queries, uint32_t first_query,
                 const Visible &visible, const Tokens &chunk, const kvl_partial &out) {
    const kvl_attention &a = *call.attention;
    const kvl_sequence &s = call.sequences[sequence];
    const Tokens all{asked_of(s).first, visible.window.end};
    const Tokens tokens = all.within(chunk);
    // A chunk that its queries see none of may begin where no query sees any.
    const Place place = tokens.n() > 0 ? place_of(call, sequence, chunk) : Place{s.view, 0, 0, 0};
    a.kernels->attend_chunk({.kernels = a.kernels,
                             .view = place.view,
                             .kv_head = kv_head,
                             .first = place.token,
                             .run = place.run,
                             .run_first = place.run_first,
                             .n_tokens = tokens.n(),
                             .queries = queries.data(),
                             .first_element = int64_t{kv_head} * a.group * a.head_dim,
                             .n_queries = static_cast<int>(queries.size()),
                             .group = static_cast<int>(a.group),
                             .out = out,
                             .rotates_q = a.k_rotation == KVL_ROTATION_HADAMARD,
                             .k_numbers = a.k_numbers,
                             .v_numbers = a.v_numbers,
                             .scale = a.scale,
                             .softcap = a.softcap,
                             .slopes = a.slopes ? &a.slopes[uint64_t{kv_head} * a.group] : nullptr,
                             .position = tokens.first,
                             .window = a.window > 0 ? a.window : KVL_MAX_TOKENS,
                             .n_sink_tokens = a.n_sink_tokens,
                             .mask = s.mask,
                             .first_query = first_query});
}

void decode_own(const Call &call, uint32_t sequence, uint32_t kv_head, const Block &block, const Visible &visible,
                const Tokens &chunk, const kvl_partial &out) {
    Query queries[max_rows];
    for (uint32_t i = 0; i < block.n; ++i) {
        queries[i] = query_of(*call.attention, call.sequences[sequence], block.first + i);
    }
    decode_unit(call, sequence, kv_head, {queries, block.n}, block.first, visible, chunk, out);
}

void decode_shared(const Call &call, uint32_t leader, uint32_t kv_head, const Tokens &chunk, const kvl_partial &out) {
    const Share &share = call.shares[leader];
    const Visible all{{0, 0}, {0, call.sequences[leader].len}};
    decode_unit(call, leader, kv_head, {share.queries, share.n_queries}, 0, all, chunk, out);
}

// One of the chunks that a sequence's block of queries waits for is done.
void finish_chunk(const Call &call, uint32_t sequence, uint32_t kv_head, uint32_t index) {
    const kvl_attention &a = *call.attention;
    const kvl_sequence &s = call.sequences[sequence];
    const uint32_t n_blocks = blocks_of(a, queries_of(s));
    const uint64_t merge = sequence * merges_of(a, call.max_queries) + kv_head * n_blocks + index;
    std::atomic_ref<uint32_t> chunks_left(call.chunks_left[merge]);
    if (chunks_left.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const Block block = block_of(a, s, index);
        merge_block(a, s, call.shares[sequence], kv_head, block, partials_of(call, sequence, kv_head) + index, n_blocks,
                    visible_to(a, s, block).n_chunks());
    }
}

void run_unit(const Call &call, uint32_t unit) {
    const kvl_attention &a = *call.attention;
    const uint32_t *next = std::upper_bound(call.first_unit, call.first_unit + call.n_sequences, unit);
    const auto sequence = static_cast<uint32_t>(next - call.first_unit) - 1;
    const kvl_sequence &s = call.sequences[sequence];
    const Share &share = call.shares[sequence];
    const auto first_chunk = static_cast<uint32_t>(first_chunk_of(call, sequence));
    const auto n_chunks = static_cast<uint32_t>(n_chunks_of(a, s)) - first_chunk;
    const uint32_t n_blocks = blocks_of(a, queries_of(s));
    const uint32_t of_sequence = unit - call.first_unit[sequence];
    const uint32_t kv_head = of_sequence / (n_chunks * n_blocks);
    const uint32_t of_head = of_sequence - kv_head * n_chunks * n_blocks;
    const uint32_t chunk = first_chunk + (n_blocks == 1 ? of_head : of_head / n_blocks);
    const uint32_t index = of_head - (chunk - first_chunk) * n_blocks;
    const Block block = block_of(a, s, index);
    const Visible visible = visible_to(a, s, block);
    const kvl_partial &out = partials_of(call, sequence, kv_head)[chunk * n_blocks + index];
    if (chunk < share.n_chunks) {
        decode_shared(call, sequence, kv_head, visible.chunk(chunk), out);
        for (uint32_t other = sequence + 1; other < share.end; ++other) {
            finish_chunk(call, other, kv_head, 0);
        }
    } else if (chunk < visible.n_chunks()) {
        decode_own(call, sequence, kv_head, block, visible, visible.chunk(chunk), out);
    }
    finish_chunk(call, sequence, kv_head, index);
}

kvl_status check_done(Call &call) {
    uint32_t n_left = 0, n_running = 0;
    for (uint32_t unit = 0; unit < call.n_units; ++unit) {
        const uint8_t state = std::atomic_ref(call.unit_states[unit]).load(std::memory_order_acquire);
        n_left += state == not_run;
        n_running += state == running;
    }
    return n_left == 0 && n_running == 0
               ? KVL_OK
               : fail(KVL_ERROR_TASK,
                      "%u of the call's %u tasks were not run and %u are still running; each must be run once", n_left,
                      call.n_units, n_running);
}

// Ends a call, whether the executor returns or throws: its gate is closed first, so that no task is in it and none comes.
class Ending {
public:
    Ending(Call &call, Gate *gate) : call_(call), gate_(gate) {}
    Ending(const Ending &) = delete;
    Ending &operator=(const Ending &) = delete;
    ~Ending() {
        if (gate_) {
            gate_->close();
        }
        call_.magic = 0;
    }

private:
    Call &call_;
    Gate *gate_;
};

// On the executor, or on the calling thread where there is none, or no gate for it.
void run_tasks(Call &call, const kvl_executor &executor) {
    Gate *const gate = executor.parallel_for ? Gate::open(&call) : nullptr;
    const Ending ending(call, gate);
    if (gate) {
        executor.parallel_for(executor.pool, call.n_units, Gate::run_task, gate->ticket());
        return;
    }
    for (uint32_t task = 0; task < call.n_units; ++task) {
        (void)kvl_attend_run_task(&call, task);
    }
}

}  // namespace

kvl_status kvl_attend_begin(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                            void *workspace, size_t workspace_bytes, uint32_t *n_tasks) {
    KVLANE_TRY(check_not_null(n_tasks, "n_tasks"));
    KVLANE_TRY(check_sequences(attention, sequences, n_sequences));
    uint64_t n_partials = 0, n_places = 0;
    uint32_t max_queries = 1;
    for (uint32_t i = 0; i < n_sequences; ++i) {
        n_places += static_cast<uint64_t>(visible_to_any(*attention, sequences[i]).n_chunks());
        n_partials += n_partials_of(*attention, sequences[i]);
        max_queries = std::max(max_queries, queries_of(sequences[i]));
        KVLANE_TRY(check_units(n_partials));
    }
    const Layout layout = layout_of(*attention, n_sequences, max_queries, n_places, n_partials);
    KVLANE_TRY(check_workspace(workspace, workspace_bytes, layout.bytes));
    KVLANE_TRY(check_overlaps(*attention, sequences, n_sequences, n_tasks, workspace, layout.bytes,
                              static_cast<Output *>(workspace)));
    lay_out(*attention, sequences, n_sequences, max_queries, layout, workspace);
    *n_tasks = static_cast<Call *>(workspace)->n_units;
    return KVL_OK;
}

kvl_status kvl_attend_run_task(void *workspace, uint32_t task) {
    Call *call;
    KVLANE_TRY(begun_call(workspace, call));
    if (task >= call->n_units) {
        return fail(KVL_ERROR_TASK, "task is %u; the call has %u", task, call->n_units);
    }
    std::atomic_ref state(call->unit_states[task]);
    uint8_t expected = not_run;
    if (!state.compare_exchange_strong(expected, running, std::memory_order_relaxed)) {
        return fail(KVL_ERROR_TASK, "task is %u; it was run already, and each must be once", task);
    }
    run_unit(*call, task);
    state.store(done, std::memory_order_release);
    return KVL_OK;
}

kvl_status kvl_attend_finish(void *workspace) {
    Call *call;
    KVLANE_TRY(begun_call(workspace, call));
    KVLANE_TRY(check_done(*call));
    call->magic = 0;
    return KVL_OK;
}

kvl_status kvl_attend(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences, void *workspace,
                      size_t workspace_bytes, const kvl_executor *executor) {
    const kvl_executor threads = executor ? *executor : kvl_executor{};  // which may lie where the call is laid out
    if (executor && !threads.parallel_for) {
        return check_not_null(nullptr, "executor: parallel_for");
    }
    uint32_t n_tasks;
    KVLANE_TRY(kvl_attend_begin(attention, sequences, n_sequences, workspace, workspace_bytes, &n_tasks));
    Call &call = *static_cast<Call *>(workspace);
    run_tasks(call, threads);
    return check_done(call);
}

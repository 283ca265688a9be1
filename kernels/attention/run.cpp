// The tasks of a call: each claims items until none is left for it, computes their partial states, and folds what is next.

#include <algorithm>

#include "../error.hpp"
#include "gate.hpp"
#include "merge.hpp"
#include "overlaps.hpp"
#include "plan.hpp"
#include "validate.hpp"

using namespace kvlane;

namespace {

constexpr size_t alignment = KVL_WORKSPACE_ALIGNMENT;
constexpr int64_t all_tokens = 4 * KVL_MAX_TOKENS;  // a window that reaches the first token from any position

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

Query query_of(const kvl_attention &a, const Sequence &s, uint32_t kv_head, uint32_t query) {
    const int64_t position = s.position(query);
    return {s.q.at(query, kv_head * a.group), s.q.head_stride, s.q.format, position, visible_end(a, s, position)};
}

// The partial state of an item's rows, to its place among the results.
void compute(const Call &call, uint64_t index, TaskScratch &scratch) {
    const kvl_attention &a = *call.attention;
    const Item item = item_at(call, index);
    if (item.tokens.n() == 0) {
        return;
    }
    const Place &place = place_of(call, item);
    const std::optional<kvl_mask> &mask = call.sequences[item.sequence].mask;
    for_each_query(call, item, [&](uint32_t i, uint32_t sequence, uint32_t query) {
        scratch.queries[i] = query_of(a, call.sequences[sequence], item.kv_head, query);
    });
    a.kernels->attend_chunk({.kernels = a.kernels,
                             .view = place.view,
                             .kv_head = call.sequences[item.sequence].first_kv_head + item.kv_head,
                             .first = place.token,
                             .run = place.run,
                             .run_first = place.run_first,
                             .n_tokens = item.tokens.n(),
                             .queries = scratch.queries,
                             .n_queries = static_cast<int>(item.n_queries),
                             .group = static_cast<int>(a.group),
                             .out = result_of(call, index),
                             .rotates_q = a.k_rotation == KVL_ROTATION_HADAMARD,
                             .k_type = a.k_type,
                             .v_type = a.v_type,
                             .scale = a.scale,
                             .softcap = a.softcap,
                             .slopes = a.slopes ? &a.slopes[uint64_t{item.kv_head} * a.group] : nullptr,
                             .position = item.tokens.first,
                             .window = a.window > 0 ? a.window : all_tokens,
                             .n_sink_tokens = a.n_sink_tokens,
                             .mask = mask ? &*mask : nullptr,
                             .first_query = item.first_query,
                             .first_head = item.kv_head * a.group,
                             .scratch = &scratch.rows});
}

// The state of a query's rows of the KV head whose items are being folded: o in the output's memory if that is f32.
PartialRows state_of(const Call &call, uint32_t kv_head, uint32_t sequence, uint32_t query) {
    const kvl_attention &a = *call.attention;
    const Sequence &s = call.sequences[sequence];
    const uint64_t first = (uint64_t{call.plans[sequence].first_query} + query) * a.group;
    float *const m = call.m + first, *const l = call.l + first;
    if (s.out.format != KVL_F32) {
        const int64_t stride = partial_stride(a.v_head_dim);
        return {m, l, call.o + static_cast<int64_t>(first) * stride, stride};
    }
    return {m, l, reinterpret_cast<float *>(s.out.at(query, kv_head * a.group)),
            s.out.head_stride / static_cast<int64_t>(sizeof(float))};
}

// All chunks are in the rows: writes their partial state, or their output and lse.
void finish(const kvl_attention &a, const Sequence &s, uint32_t query, uint32_t first_head, const PartialRows &rows) {
    if (s.range) {
        const uint64_t first = uint64_t{query} * a.n_query_heads + first_head;
        std::copy_n(rows.m, a.group, s.range->out.m + first);
        std::copy_n(rows.l, a.group, s.range->out.l + first);
        return;
    }
    a.kernels->finish_rows(rows, static_cast<int>(a.group), a.v_head_dim, a.v_rotation == KVL_ROTATION_HADAMARD,
                           {.out = s.out.at(query, first_head),
                            .out_stride_bytes = s.out.head_stride,
                            .format = s.out.format,
                            .lse = s.lse.first ? s.lse.at(query, first_head) : nullptr,
                            .lse_stride_bytes = s.lse.head_stride});
}

// Merges an item's result into its rows.
void fold(const Call &call, uint64_t index) {
    const kvl_attention &a = *call.attention;
    const Item item = item_at(call, index);
    const uint32_t first_head = item.kv_head * a.group;
    const kvl_partial result = result_of(call, index);
    const int64_t o_stride = partial_stride(a.v_head_dim);
    for_each_query(call, item, [&](uint32_t i, uint32_t sequence, uint32_t query) {
        const Sequence &s = call.sequences[sequence];
        const PartialRows rows = state_of(call, item.kv_head, sequence, query);
        if (item.is_first) {
            clear_rows(rows, a.group, a.v_head_dim, a.sink_logits && !s.range ? &a.sink_logits[first_head] : nullptr);
        }
        if (item.tokens.n() > 0) {
            const uint64_t row = uint64_t{i} * a.group;
            a.kernels->merge(rows, {result.m + row, result.l + row, result.o + row * o_stride, o_stride},
                             static_cast<int>(a.group), a.v_head_dim);
        }
        if (item.is_last) {
            finish(a, s, query, first_head, rows);
        }
    });
}

void run_items(Call &call, uint32_t task) {
    for (uint64_t item; (item = call.items.claim()) != ReorderBuffer::none;) {
        compute(call, item, call.scratch[task]);
        call.items.complete(item, [&](uint64_t next) { fold(call, next); });
    }
}

// Once all tasks are done, so are all items: a task returns while there are any only if others hold older ones.
kvl_status check_done(const Call &call) {
    uint32_t n_left = 0, n_running = 0;
    for (uint32_t task = 0; task < call.n_tasks; ++task) {
        const uint8_t state = call.task_states[task].load(std::memory_order_acquire);
        n_left += state == not_run;
        n_running += state == running;
    }
    return n_left == 0 && n_running == 0
               ? KVL_OK
               : fail(KVL_ERROR_TASK, "%u of the call's %u tasks were not run, %u still running; each must be run once",
                      n_left, call.n_tasks, n_running);
}

// A call that has ended is a plan, if it was made as one, or nothing.
void end(Call &call) { call.magic = call.is_planned ? plan_magic : 0; }

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
        end(call_);
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
        executor.parallel_for(executor.pool, call.n_tasks, Gate::run_task, gate->ticket());
        return;
    }
    for (uint32_t task = 0; task < call.n_tasks; ++task) {
        (void)kvl_attend_run_task(&call, task);
    }
}

// Plans a call in its workspace, once all is checked. own: what the call itself writes besides the workspace; may be null.
kvl_status make_plan(const kvl_attention *attention, const DescArray<kvl_sequence> &array, void *workspace,
                     size_t workspace_bytes, uint32_t max_tasks, const uint32_t *own, Call *&call) {
    KVLANE_TRY(check_range(max_tasks, 1, KVL_MAX_TASKS, "max_tasks"));
    KVLANE_TRY(check_sequences(attention, array));
    const Sequences described(*attention, array);
    Layout layout;
    KVLANE_TRY(layout_of_call(*attention, described, max_tasks, layout));
    KVLANE_TRY(check_workspace(workspace, workspace_bytes, layout.bytes));
    KVLANE_TRY(check_own_memory(*attention, described, own, workspace, layout.bytes));
    static_cast<Call *>(workspace)->magic = 0;  // what was there is lost from here on
    const std::span<Sequence> sequences = copy_sequences(described, layout, workspace);
    KVLANE_TRY(check_outputs(*attention, described, sequences,
                             reinterpret_cast<Output *>(static_cast<std::byte *>(workspace) + layout.outputs)));
    call = &lay_out_call(*attention, sequences, max_tasks, layout, workspace);
    return KVL_OK;
}

// The caller's executor, which may lie in the workspace; without one, the calling thread.
kvl_status read_executor(const kvl_executor *executor, kvl_executor &threads) {
    threads = kvl_executor_init();
    threads.n_threads = 1;
    if (!executor) {
        return KVL_OK;
    }
    threads = *executor;
    KVLANE_TRY(threads.parallel_for ? KVL_OK : check_not_null(nullptr, "executor: parallel_for"));
    return check_range(threads.n_threads, 1, KVL_MAX_TASKS, "executor: n_threads");
}

// Begins the call that is planned in the workspace, by up to max_tasks tasks, for sequences that may differ from the plan's
// in addresses.
kvl_status begin_planned(void *workspace, const DescArray<kvl_sequence> &array, uint32_t max_tasks, Call *&call) {
    KVLANE_TRY(check_not_null(workspace, "workspace"));
    call = static_cast<Call *>(workspace);
    if (call->magic != plan_magic) {
        return fail(KVL_ERROR_WORKSPACE_STATE, "workspace at %p holds no plan; kvl_plan makes one", workspace);
    }
    KVLANE_TRY(check_planned_sequences(*call, array));
    rebind(*call, Sequences(*call->attention, array));
    restart(*call, max_tasks);
    call->magic = call_magic;
    return KVL_OK;
}

}  // namespace

kvl_status kvl_attend_begin(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                            void *workspace, size_t workspace_bytes, uint32_t max_tasks, uint32_t *n_tasks) {
    KVLANE_TRY(check_not_null(n_tasks, "n_tasks"));
    Call *call;
    KVLANE_TRY(make_plan(attention, {sequences, n_sequences}, workspace, workspace_bytes, max_tasks, n_tasks, call));
    call->magic = call_magic;
    *n_tasks = call->n_tasks;
    return KVL_OK;
}

kvl_status kvl_plan(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences, void *workspace,
                    size_t workspace_bytes, uint32_t max_tasks) {
    Call *call;
    KVLANE_TRY(make_plan(attention, {sequences, n_sequences}, workspace, workspace_bytes, max_tasks, nullptr, call));
    keep_as_plan(*call);
    call->magic = plan_magic;
    return KVL_OK;
}

kvl_status kvl_attend_begin_planned(void *workspace, const kvl_sequence *sequences, uint32_t n_sequences,
                                    uint32_t *n_tasks) {
    KVLANE_TRY(check_not_null(n_tasks, "n_tasks"));
    Call *call;
    KVLANE_TRY(begin_planned(workspace, {sequences, n_sequences}, KVL_MAX_TASKS, call));
    *n_tasks = call->n_tasks;
    return KVL_OK;
}

kvl_status kvl_attend_run_task(void *workspace, uint32_t task) {
    Call *call;
    KVLANE_TRY(begun_call(workspace, call));
    if (task >= call->n_tasks) {
        return fail(KVL_ERROR_TASK, "task is %u; the call has %u", task, call->n_tasks);
    }
    std::atomic<uint8_t> &state = call->task_states[task];
    uint8_t expected = not_run;
    if (!state.compare_exchange_strong(expected, running, std::memory_order_relaxed)) {
        return fail(KVL_ERROR_TASK, "task is %u; it was run already, and each must be once", task);
    }
    run_items(*call, task);
    state.store(done, std::memory_order_release);
    return KVL_OK;
}

kvl_status kvl_attend_finish(void *workspace) {
    Call *call;
    KVLANE_TRY(begun_call(workspace, call));
    KVLANE_TRY(check_done(*call));
    end(*call);
    return KVL_OK;
}

kvl_status kvl_attend(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences, void *workspace,
                      size_t workspace_bytes, const kvl_executor *executor) {
    kvl_executor threads;
    KVLANE_TRY(read_executor(executor, threads));
    Call *call;
    KVLANE_TRY(make_plan(attention, {sequences, n_sequences}, workspace, workspace_bytes, threads.n_threads, nullptr, call));
    call->magic = call_magic;
    run_tasks(*call, threads);
    return check_done(*call);
}

kvl_status kvl_attend_planned(void *workspace, const kvl_sequence *sequences, uint32_t n_sequences,
                              const kvl_executor *executor) {
    kvl_executor threads;
    KVLANE_TRY(read_executor(executor, threads));
    Call *call;
    KVLANE_TRY(begin_planned(workspace, {sequences, n_sequences}, threads.n_threads, call));
    run_tasks(*call, threads);
    return check_done(*call);
}

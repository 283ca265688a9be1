// A call: (sequence, KV head, chunk, block of queries) units in that order, each a task. The last unit of a (sequence, KV
// head, block) to end merges its partials, in chunk order whoever merges, so that bits do not depend on who ran what.

#include "attend.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <new>
#include <numbers>

#include "error.hpp"
#include "registry.hpp"
#include "validate.hpp"
#include "view.hpp"

using namespace kvlane;

namespace {

// At the start of a workspace. Behind it: the first unit of every sequence and their end, the chunks that each
// (sequence, KV head, block of queries) still waits for, which units were run, and their partials.
struct Call {
    uint64_t magic;
    const kvl_attention *attention;
    const kvl_sequence *sequences;
    uint32_t n_sequences;
    uint32_t n_units;
    uint32_t max_queries;  // of a sequence
    uint32_t *first_unit;
    uint32_t *chunks_left;
    uint8_t *is_run;
    float *partials;
};

constexpr uint64_t call_magic = 0x6b766c616e653031;
constexpr size_t alignment = KVL_WORKSPACE_ALIGNMENT;
constexpr uint64_t max_units = INT32_MAX;

constexpr uint64_t aligned(uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

int64_t chunks_to(int64_t len) { return (len + chunk_tokens - 1) / chunk_tokens; }

// Tokens that a query at the end of len tokens sees: [0, sinks_end) and [window_first, len).
struct Visible {
    int64_t sinks_end;
    int64_t window_first;
    int64_t len;

    int64_t window_chunk() const { return window_first / chunk_tokens; }
    int64_t n_chunks() const { return std::max<int64_t>(1, chunks_to(sinks_end) + chunks_to(len) - window_chunk()); }
    // Of [first, first + n).
    int64_t count(int64_t first, int64_t n) const {
        const auto overlap = [=](int64_t from, int64_t to) {
            return std::max<int64_t>(0, std::min(to, first + n) - std::max(from, first));
        };
        return overlap(0, sinks_end) + overlap(window_first, len);
    }
};

Visible visible_to(const kvl_attention &a, int64_t len) {
    const int64_t first = a.window > 0 ? len - a.window : 0;
    return first > a.n_sink_tokens ? Visible{a.n_sink_tokens, first, len} : Visible{0, 0, len};
}

// The most chunks that any length up to max_len has.
int64_t max_chunks(const kvl_attention &a, int64_t max_len) {
    const int64_t all_seen = a.window > 0 ? std::min(max_len, a.n_sink_tokens + a.window) : max_len;
    const int64_t sliding =
        max_len > all_seen ? chunks_to(a.n_sink_tokens) + (a.window + 2 * chunk_tokens - 2) / chunk_tokens : 0;
    return std::max({int64_t{1}, chunks_to(all_seen), sliding});
}

uint32_t blocks_of(const kvl_attention &a, uint32_t n_queries) {
    return a.block_queries > 1 ? (n_queries - 1) / a.block_queries + 1 : n_queries;
}

// Queries [first, first + n) of a sequence, the last of which sees so many tokens.
struct Block {
    uint32_t first;
    uint32_t n;
    int64_t len;
};

Block block_of(const kvl_attention &a, const kvl_sequence &s, uint32_t block) {
    const uint32_t first = block * a.block_queries;
    const uint32_t n = std::min(a.block_queries, queries_of(s) - first);
    return {first, n, s.len - (queries_of(s) - (first + n))};
}

// The same for all blocks of a sequence; units beyond a block's own chunks have nothing to do.
int64_t n_chunks_of(const kvl_attention &a, const kvl_sequence &s) {
    return queries_of(s) == 1 ? visible_to(a, s.len).n_chunks() : max_chunks(a, s.len);
}

// More than are allowed where they are too many to count.
uint64_t n_units_of(const kvl_attention &a, const kvl_sequence &s) {
    const uint64_t of_block = static_cast<uint64_t>(n_chunks_of(a, s)) * a.n_kv_heads;
    return std::min(of_block, max_units + 1) * blocks_of(a, queries_of(s));
}

// Rows of one unit's partial, where no sequence has more queries; and its floats: m and l of the rows, each padded to a
// cache line, and o.
uint32_t partial_rows(const kvl_attention &a, uint32_t max_queries) {
    return a.group * std::min(a.block_queries, max_queries);
}
int64_t partial_floats(const kvl_attention &a, uint32_t max_queries) {
    const uint32_t rows = partial_rows(a, max_queries);
    return 2 * partial_stride(rows) + rows * partial_stride(a.v_head_dim);
}

Partial partial_of(const kvl_attention &a, const Call &call, uint64_t unit) {
    const int64_t padded_rows = partial_stride(partial_rows(a, call.max_queries));
    float *m = call.partials + unit * static_cast<uint64_t>(partial_floats(a, call.max_queries));
    return {m, m + padded_rows, m + 2 * padded_rows};
}

// Offsets of the workspace's parts, and its size.
struct Layout {
    uint64_t first_unit;
    uint64_t chunks_left;
    uint64_t is_run;
    uint64_t partials;
    uint64_t bytes;
};

// Counters of chunks left that there is room for, for each sequence.
uint64_t merges_of(const kvl_attention &a, uint32_t max_queries) {
    return uint64_t{a.n_kv_heads} * blocks_of(a, max_queries);
}

Layout layout_of(const kvl_attention &a, uint32_t n_sequences, uint32_t max_queries, uint64_t n_units) {
    const uint64_t n_merges = n_sequences * merges_of(a, max_queries);
    Layout layout;
    layout.first_unit = aligned(sizeof(Call));
    layout.chunks_left = layout.first_unit + aligned((uint64_t{n_sequences} + 1) * sizeof(uint32_t));
    layout.is_run = layout.chunks_left + aligned(n_merges * sizeof(uint32_t));
    layout.partials = layout.is_run + aligned(n_units);
    layout.bytes = layout.partials + n_units * static_cast<uint64_t>(partial_floats(a, max_queries)) * sizeof(float);
    return layout;
}

kvl_status check_units(uint64_t n_units) {
    return n_units <= max_units ? KVL_OK
                                : fail(KVL_ERROR_RANGE, "the call has %" PRIu64 " tasks; at most %" PRIu64 " are allowed",
                                       n_units, max_units);
}

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

void lay_out(const kvl_attention &a, const kvl_sequence *sequences, uint32_t n_sequences, uint32_t n_units,
             uint32_t max_queries, const Layout &layout, void *workspace) {
    auto *base = static_cast<std::byte *>(workspace);
    auto *call = new (workspace) Call{call_magic,
                                      &a,
                                      sequences,
                                      n_sequences,
                                      n_units,
                                      max_queries,
                                      reinterpret_cast<uint32_t *>(base + layout.first_unit),
                                      reinterpret_cast<uint32_t *>(base + layout.chunks_left),
                                      reinterpret_cast<uint8_t *>(base + layout.is_run),
                                      reinterpret_cast<float *>(base + layout.partials)};
    const uint64_t merges = merges_of(a, max_queries);
    uint32_t unit = 0;
    for (uint32_t s = 0; s < n_sequences; ++s) {
        uint32_t *left = call->chunks_left + s * merges;
        call->first_unit[s] = unit;
        std::fill_n(left, merges, 0u);
        std::fill_n(left, uint64_t{a.n_kv_heads} * blocks_of(a, queries_of(sequences[s])),
                    static_cast<uint32_t>(n_chunks_of(a, sequences[s])));
        unit += static_cast<uint32_t>(n_units_of(a, sequences[s]));
    }
    call->first_unit[n_sequences] = unit;
    std::fill_n(call->is_run, n_units, uint8_t{0});
}

// unit_stride: units from one chunk of the block to its next.
void merge_block(const Call &call, const kvl_sequence &s, uint32_t kv_head, const Block &block, uint64_t first_unit,
                 uint32_t unit_stride, int64_t n_chunks) {
    const kvl_attention &a = *call.attention;
    const Partial whole = partial_of(a, call, first_unit);
    const uint64_t head = uint64_t{block.first} * a.n_query_heads + uint64_t{kv_head} * a.group;
    a.kernels->merge({.first = whole,
                      .chunk_stride = unit_stride * partial_floats(a, call.max_queries),
                      .n_chunks = n_chunks,
                      .n_queries = static_cast<int>(block.n),
                      .group = static_cast<int>(a.group),
                      .v_head_dim = a.v_head_dim,
                      .out = s.out + head * a.v_head_dim,
                      .out_stride = int64_t{a.n_query_heads} * a.v_head_dim,
                      .rotates_out = a.v_rotation == KVL_ROTATION_HADAMARD,
                      .sinks = a.sink_logits ? &a.sink_logits[uint64_t{kv_head} * a.group] : nullptr});
    for (uint32_t r = 0; s.lse && r < block.n * a.group; ++r) {
        s.lse[head + r / a.group * uint64_t{a.n_query_heads} + r % a.group] =
            whole.l[r] == 0 ? -INFINITY : whole.m[r] * std::numbers::ln2_v<float> + std::log(whole.l[r]);
    }
}

// The chunk-th of those that the block's last query sees.
DecodeChunk chunk_of(const kvl_attention &a, const kvl_sequence &s, uint32_t kv_head, const Block &block,
                     const Visible &visible, int64_t chunk, const Partial &out) {
    const int64_t of_sinks = chunks_to(visible.sinks_end);
    const bool is_sink = chunk < of_sinks;
    const int64_t begin = (is_sink ? chunk : visible.window_chunk() + chunk - of_sinks) * chunk_tokens;
    const int64_t end = is_sink ? visible.sinks_end : visible.len;
    const int64_t first = is_sink ? begin : std::max(begin, visible.window_first);
    const uint64_t head = uint64_t{block.first} * a.n_query_heads + uint64_t{kv_head} * a.group;
    return {.kernels = a.kernels,
            .view = s.view,
            .kv_head = kv_head,
            .first = first,
            .n_tokens = std::min(begin + chunk_tokens, end) - first,
            .n_visible = end - first,
            .q = s.q + head * a.head_dim,
            .q_stride = int64_t{a.n_query_heads} * a.head_dim,
            .n_queries = static_cast<int>(block.n),
            .group = static_cast<int>(a.group),
            .scale = a.log2_scale,
            .plan = a.read_plan,
            .out = out,
            .rotates_q = a.k_rotation == KVL_ROTATION_HADAMARD,
            .rules = {a.softcap, a.slopes ? &a.slopes[uint64_t{kv_head} * a.group] : nullptr},
            .distance = first - (block.len - 1)};
}

void run_unit(const Call &call, uint32_t unit) {
    const kvl_attention &a = *call.attention;
    const uint32_t *next = std::upper_bound(call.first_unit, call.first_unit + call.n_sequences, unit);
    const auto sequence = static_cast<uint32_t>(next - call.first_unit) - 1;
    const kvl_sequence &s = call.sequences[sequence];
    const auto n_chunks = static_cast<uint32_t>(n_chunks_of(a, s));
    const uint32_t n_blocks = blocks_of(a, queries_of(s));
    const uint32_t of_sequence = unit - call.first_unit[sequence];
    const uint32_t kv_head = of_sequence / (n_chunks * n_blocks);
    const uint32_t of_head = of_sequence - kv_head * n_chunks * n_blocks;
    const uint32_t chunk = n_blocks == 1 ? of_head : of_head / n_blocks;
    const uint32_t index = of_head - chunk * n_blocks;
    const Block block = block_of(a, s, index);
    const Visible visible = visible_to(a, block.len);
    if (chunk < visible.n_chunks()) {
        a.kernels->decode_chunk(chunk_of(a, s, kv_head, block, visible, chunk, partial_of(a, call, unit)));
    }
    const uint64_t merge = sequence * merges_of(a, call.max_queries) + kv_head * n_blocks + index;
    std::atomic_ref<uint32_t> chunks_left(call.chunks_left[merge]);
    if (chunks_left.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        merge_block(call, s, kv_head, block, unit - chunk * n_blocks, n_blocks, visible.n_chunks());
    }
}

// Of one KV head's key and value, padding not counted.
int64_t read_bytes(const kvl_view &view) {
    return format::row_bytes(view.k_format, view.head_dim) + format::entry_bytes(view.k_format, view.head_dim) +
           format::row_bytes(view.v_format, view.v_head_dim) + format::entry_bytes(view.v_format, view.v_head_dim);
}

// What any of the sequence's queries sees.
Visible visible_to_any(const kvl_attention &a, const kvl_sequence &s) {
    const Visible first = visible_to(a, s.len - (queries_of(s) - 1));
    return first.window_first == 0 ? Visible{0, 0, s.len} : Visible{first.sinks_end, first.window_first, s.len};
}

kvl_status check_each(const float *values, uint32_t n, bool (*is_allowed)(float), const char *name, const char *allowed) {
    for (uint32_t i = 0; values && i < n; ++i) {
        if (!is_allowed(values[i])) {
            return fail(KVL_ERROR_RULE, "%s[%u] is %g; it must be %s", name, i, values[i], allowed);
        }
    }
    return KVL_OK;
}

kvl_status check_rules(const kvl_attention_desc &desc) {
    KVLANE_TRY(check_reserved(desc.reserved, "desc"));
    KVLANE_TRY(check_range(desc.window, 0, KVL_MAX_TOKENS, "window"));
    KVLANE_TRY(check_range(desc.n_sink_tokens, 0, desc.window == 0 ? 0 : KVL_MAX_TOKENS,
                           desc.window == 0 ? "n_sink_tokens, without a window," : "n_sink_tokens"));
    const float softcap = desc.softcap * std::numbers::log2e_v<float>;
    if (!(softcap == 0 || (softcap > 0 && std::isfinite(softcap) && std::isfinite(1 / softcap)))) {
        return fail(KVL_ERROR_RULE, "softcap is %g; it must be 0, or from 1e-38 to 1e38", desc.softcap);
    }
    KVLANE_TRY(check_each(
        desc.alibi_slopes, desc.n_query_heads,
        [](float slope) { return std::isfinite(slope * std::numbers::log2e_v<float> * KVL_MAX_TOKENS); }, "alibi_slopes",
        "finite, times KVL_MAX_TOKENS too"));
    return check_each(
        desc.sink_logits, desc.n_query_heads, [](float logit) { return logit * std::numbers::log2e_v<float> < INFINITY; },
        "sink_logits", "less than infinity, in units of log2 too");
}

// In units of log2; null for null. Throws where there is no memory.
std::unique_ptr<float[]> in_log2(const float *values, uint32_t n) {
    if (!values) {
        return nullptr;
    }
    auto scaled = std::make_unique<float[]>(n);
    std::transform(values, values + n, scaled.get(), [](float x) { return x * std::numbers::log2e_v<float>; });
    return scaled;
}

}  // namespace

kvl_status kvl_attention_create(const kvl_attention_desc *desc, kvl_attention **attention) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(check_desc(desc, 0, "desc"));
    KVLANE_TRY(check_range(desc->n_kv_heads, 1, KVL_MAX_HEADS, "n_kv_heads"));
    KVLANE_TRY(check_range(desc->n_query_heads, 1, KVL_MAX_HEADS, "n_query_heads"));
    if (desc->n_query_heads % desc->n_kv_heads != 0) {
        return fail(KVL_ERROR_HEADS, "n_query_heads is %u; it must be a multiple of n_kv_heads, %u", desc->n_query_heads,
                    desc->n_kv_heads);
    }
    const uint32_t v_head_dim = desc->v_head_dim ? desc->v_head_dim : desc->head_dim;
    KVLANE_TRY(check_head_dim(desc->head_dim, "head_dim"));
    KVLANE_TRY(check_head_dim(v_head_dim, "v_head_dim"));
    KVLANE_TRY(check_format(desc->k_format, "k_format"));
    KVLANE_TRY(check_format(desc->v_format, "v_format"));
    KVLANE_TRY(check_rotation(desc->k_rotation, "k_rotation"));
    KVLANE_TRY(check_rotation(desc->v_rotation, "v_rotation"));
    KVLANE_TRY(check_rules(*desc));
    const double scale = desc->scale != 0 ? desc->scale : 1 / std::sqrt(static_cast<double>(desc->head_dim));
    const auto log2_scale = static_cast<float>(scale * std::numbers::log2e);
    if (!std::isfinite(log2_scale)) {
        return fail(KVL_ERROR_SCALE, "scale is %g; it must be finite, in units of log2 too, or 0 for 1 / sqrt(head_dim)",
                    desc->scale);
    }
    const KernelTable *kernels;
    KVLANE_TRY(kernels_in_force(kernels));
    const uint32_t group = desc->n_query_heads / desc->n_kv_heads;
    const uint32_t rows_of_query = std::clamp(group, 1u, uint32_t{max_tile_rows});
    const uint32_t block_queries = desc->window > 0 ? 1 : max_tile_rows / rows_of_query;
    std::unique_ptr<kvl_attention> made;
    try {
        made.reset(new kvl_attention{.kernels = kernels,
                                     .read_plan = cpu_read_plan(group),
                                     .n_query_heads = desc->n_query_heads,
                                     .n_kv_heads = desc->n_kv_heads,
                                     .group = group,
                                     .head_dim = desc->head_dim,
                                     .v_head_dim = v_head_dim,
                                     .k_format = desc->k_format,
                                     .v_format = desc->v_format,
                                     .k_rotation = format::rotation_of(desc->k_rotation, desc->k_format, true),
                                     .v_rotation = format::rotation_of(desc->v_rotation, desc->v_format, false),
                                     .log2_scale = log2_scale,
                                     .window = desc->window,
                                     .n_sink_tokens = desc->n_sink_tokens,
                                     .block_queries = block_queries,
                                     .softcap = desc->softcap * std::numbers::log2e_v<float>,
                                     .slopes = in_log2(desc->alibi_slopes, desc->n_query_heads),
                                     .sink_logits = in_log2(desc->sink_logits, desc->n_query_heads),
                                     .kernel_name = {}});
    } catch (const std::bad_alloc &) {
        return fail(KVL_ERROR_MEMORY, "no memory for an attention object of %u query heads", desc->n_query_heads);
    }
    std::snprintf(made->kernel_name, sizeof made->kernel_name, "%s/%s+%s/group:%u", kernels->name,
                  format::names[desc->k_format], format::names[desc->v_format], made->group);
    *attention = made.release();
    return KVL_OK;
}

void kvl_attention_destroy(kvl_attention *attention) { delete attention; }

const char *kvl_attention_kernel(const kvl_attention *attention) { return attention ? attention->kernel_name : nullptr; }

kvl_status kvl_attention_workspace_size(const kvl_attention *attention, uint32_t n_sequences, int64_t max_len,
                                        uint32_t max_queries, size_t *bytes) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(check_not_null(bytes, "bytes"));
    KVLANE_TRY(check_range(max_len, 0, KVL_MAX_TOKENS, "max_len"));
    KVLANE_TRY(check_range(max_queries, 1, UINT32_MAX, "max_queries"));
    const uint64_t chunks_of_one = static_cast<uint64_t>(max_chunks(*attention, max_len)) * attention->n_kv_heads;
    KVLANE_TRY(check_units(chunks_of_one));
    const uint64_t units_of_one = chunks_of_one * blocks_of(*attention, max_queries);
    KVLANE_TRY(check_units(units_of_one));
    KVLANE_TRY(check_units(units_of_one * n_sequences));
    *bytes = layout_of(*attention, n_sequences, max_queries, units_of_one * n_sequences).bytes;
    return KVL_OK;
}

kvl_status kvl_attend_begin(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                            void *workspace, size_t workspace_bytes, uint32_t *n_tasks) {
    KVLANE_TRY(check_not_null(n_tasks, "n_tasks"));
    KVLANE_TRY(check_sequences(attention, sequences, n_sequences));
    uint64_t n_units = 0;
    uint32_t max_queries = 1;
    for (uint32_t i = 0; i < n_sequences; ++i) {
        n_units += n_units_of(*attention, sequences[i]);
        max_queries = std::max(max_queries, queries_of(sequences[i]));
        KVLANE_TRY(check_units(n_units));
    }
    const Layout layout = layout_of(*attention, n_sequences, max_queries, n_units);
    KVLANE_TRY(check_workspace(workspace, workspace_bytes, layout.bytes));
    KVLANE_TRY(check_overlaps(*attention, sequences, n_sequences, workspace, layout.bytes));
    lay_out(*attention, sequences, n_sequences, static_cast<uint32_t>(n_units), max_queries, layout, workspace);
    *n_tasks = static_cast<uint32_t>(n_units);
    return KVL_OK;
}

kvl_status kvl_attend_run_task(void *workspace, uint32_t task) {
    Call *call;
    KVLANE_TRY(begun_call(workspace, call));
    if (task >= call->n_units) {
        return fail(KVL_ERROR_TASK, "task is %u; the call has %u", task, call->n_units);
    }
    if (std::atomic_ref(call->is_run[task]).exchange(1, std::memory_order_relaxed)) {
        return fail(KVL_ERROR_TASK, "task is %u; it was run already, and each must be once", task);
    }
    run_unit(*call, task);
    return KVL_OK;
}

kvl_status kvl_attend_finish(void *workspace) {
    Call *call;
    KVLANE_TRY(begun_call(workspace, call));
    uint64_t left = 0;
    const uint64_t n_merges = call->n_sequences * merges_of(*call->attention, call->max_queries);
    for (uint64_t i = 0; i < n_merges; ++i) {
        left += call->chunks_left[i];
    }
    if (left != 0) {
        return fail(KVL_ERROR_TASK, "%" PRIu64 " of the call's %u tasks were not run; each must be, once", left,
                    call->n_units);
    }
    call->magic = 0;
    return KVL_OK;
}

kvl_status kvl_attend(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences, void *workspace,
                      size_t workspace_bytes, const kvl_executor *executor) {
    uint32_t n_tasks;
    if (executor && !executor->parallel_for) {
        return check_not_null(nullptr, "executor: parallel_for");
    }
    KVLANE_TRY(kvl_attend_begin(attention, sequences, n_sequences, workspace, workspace_bytes, &n_tasks));
    const auto run = [](void *context, uint32_t task) { (void)kvl_attend_run_task(context, task); };
    if (executor) {
        executor->parallel_for(executor->pool, n_tasks, run, workspace);
    } else {
        for (uint32_t task = 0; task < n_tasks; ++task) {
            run(workspace, task);
        }
    }
    return kvl_attend_finish(workspace);
}

kvl_status kvl_attend_bytes(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                            uint64_t *bytes) {
    KVLANE_TRY(check_not_null(bytes, "bytes"));
    KVLANE_TRY(check_sequences(attention, sequences, n_sequences));
    KVLANE_TRY(check_overlaps(*attention, sequences, n_sequences, nullptr, 0));
    *bytes = 0;
    for (uint32_t i = 0; i < n_sequences; ++i) {
        const Visible visible = visible_to_any(*attention, sequences[i]);
        int64_t first = 0;
        for (const kvl_view *view = sequences[i].view; view; view = view->next) {
            const int64_t own = own_tokens(*view);
            *bytes += static_cast<uint64_t>(visible.count(first, own) * view->n_kv_heads * read_bytes(*view));
            first += own;
        }
    }
    return KVL_OK;
}

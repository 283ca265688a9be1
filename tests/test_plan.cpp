// Plans: what is checked and divided once for a step serves all of its layers.

#include <doctest/doctest.h>

#include <thread>

#include "answers.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Geometry;
using test::Answer;

namespace {

using Floats = std::vector<float>;

constexpr uint32_t n_layers = 3, n_kv_heads = 2, n_heads = 6, head_dim = 32, n_sequences = 4;
constexpr int64_t lens[n_sequences] = {700, 1, 1300, 64};
constexpr uint32_t n_queries[n_sequences] = {3, 1, 2, 64};

Geometry geometry(Format format) {
    return {
        .n_query_heads = n_heads, .n_kv_heads = n_kv_heads, .head_dim = head_dim, .k_format = format, .v_format = format};
}

// One cache a sequence, whose layers differ in their tokens; and the queries and outputs of one layer.
struct Step {
    explicit Step(Format format) : attention(geometry(format)) {
        const bool is_scaled = test::is_scaled(format);
        for (uint32_t i = 0; i < n_sequences; ++i) {
            caches.emplace_back(n_layers,
                                kvlane::Layer{.n_kv_heads = n_kv_heads,
                                              .head_dim = head_dim,
                                              .k_format = format,
                                              .v_format = format,
                                              .n_recent_f16 = is_scaled ? 64 : 0},
                                lens[i], KVL_CACHE_NO_HUGE_PAGES);
            test::fill_random(caches.back(), lens[i], 10 * i);
        }
    }

    // The sequences of a layer, with queries and outputs of their own for each.
    std::vector<kvl_sequence> sequences(uint32_t layer) {
        views.assign(n_sequences, kvl_view_init());
        q.assign(n_sequences, {});
        answers.assign(n_sequences, {});
        std::vector<kvl_sequence> all;
        for (uint32_t i = 0; i < n_sequences; ++i) {
            views[i] = caches[i].view(layer);
            q[i] = test::random_values(size_t{n_queries[i]} * n_heads * head_dim, layer + 100 * i);
            answers[i] = {Floats(q[i].size()), Floats(size_t{n_queries[i]} * n_heads)};
            all.push_back(kvlane::Sequence{.view = &views[i],
                                           .len = lens[i],
                                           .n_queries = n_queries[i],
                                           .q = q[i].data(),
                                           .out = answers[i].out.data(),
                                           .lse = answers[i].lse.data()});
        }
        return all;
    }

    kvlane::Workspace workspace(uint32_t max_tasks) const { return attention.workspace(n_sequences, 1300, 64, max_tasks); }

    Attention attention;
    std::vector<Cache> caches;
    std::vector<kvl_view> views;
    std::vector<Floats> q;
    std::vector<Answer> answers;
};

std::string last_error() { return kvl_last_error(); }

}  // namespace

TEST_CASE("plan: one made of any layer serves all, with the bits of calls of their own, on threads and by hand") {
    for (const Format format : {Format::f16, Format::q8}) {  // the latter in chains of views
        Step step(format);
        test::ThreadPool pool(3);
        const kvl_executor executor = pool.executor();
        kvlane::Workspace planned = step.workspace(3), other = step.workspace(1);
        std::vector<kvl_sequence> sequences = step.sequences(1);
        step.attention.plan(sequences, planned, 3);
        for (uint32_t layer = 0; layer < n_layers; ++layer) {
            sequences = step.sequences(layer);
            step.attention.attend(sequences, other);
            const std::vector<Answer> expected = step.answers;
            sequences = step.sequences(layer);
            kvlane::attend_planned(planned, sequences, &executor);
            CHECK(step.answers == expected);
            sequences = step.sequences(layer);
            uint32_t n_tasks;
            kvlane::check(kvl_attend_begin_planned(planned.data(), sequences.data(), n_sequences, &n_tasks));
            CHECK(kvl_attend_planned(planned.data(), sequences.data(), n_sequences, nullptr) == KVL_ERROR_WORKSPACE_STATE);
            for (uint32_t task = 0; task < n_tasks; ++task) {
                kvlane::check(kvl_attend_run_task(planned.data(), task));
            }
            kvlane::check(kvl_attend_finish(planned.data()));
            CHECK(step.answers == expected);
        }
    }
}

TEST_CASE("plan: sequences that differ in more than addresses are refused, and the plan stays") {
    Step step(Format::f16);
    kvlane::Workspace workspace = step.workspace(1);
    std::vector<kvl_sequence> planned = step.sequences(0);
    kvlane::check(kvl_plan(step.attention.get(), planned.data(), n_sequences, workspace.data(), workspace.size(), 1));
    const auto fails = [&](void (*spoil)(kvl_sequence &), kvl_status status, const char *text) {
        std::vector<kvl_sequence> sequences = planned;
        spoil(sequences[2]);
        CHECK(kvl_attend_planned(workspace.data(), sequences.data(), n_sequences, nullptr) == status);
        CHECK(last_error().find(text) != std::string::npos);
    };
    fails([](kvl_sequence &s) { s.len = 1299; }, KVL_ERROR_PLAN, "sequences[2]: len is 1299; the plan has 1300");
    fails([](kvl_sequence &s) { s.n_queries = 3; }, KVL_ERROR_PLAN, "sequences[2]: n_queries is 3; the plan has 2");
    fails([](kvl_sequence &s) { s.causal_offset = -1; }, KVL_ERROR_PLAN, "sequences[2]: position of the first query");
    fails([](kvl_sequence &s) { s.flags = KVL_SEQUENCE_NON_CAUSAL; }, KVL_ERROR_PLAN, "sequences[2]: causal order");
    fails([](kvl_sequence &s) { s.q_format = KVL_BF16; }, KVL_ERROR_PLAN, "sequences[2]: q_format is 2; the plan has 0");
    fails([](kvl_sequence &s) { s.out_head_stride_bytes = 256; }, KVL_ERROR_PLAN, "sequences[2]: out_token_stride_bytes");
    fails([](kvl_sequence &s) { s.lse = nullptr; }, KVL_ERROR_PLAN, "sequences[2]: whether there is an lse");
    fails([](kvl_sequence &s) { s.q = nullptr; }, KVL_ERROR_NULL, "sequences[2]: q is null");
    fails([](kvl_sequence &s) { s.view = nullptr; }, KVL_ERROR_NULL, "sequences[2]: view is null");
    fails([](kvl_sequence &s) { s.len = 1301; }, KVL_ERROR_LENGTH, "sequences[2]: len is 1301");
    CHECK(kvl_attend_planned(workspace.data(), planned.data(), 3, nullptr) == KVL_ERROR_PLAN);
    CHECK(last_error() == "n_sequences is 3; the plan has 4");
    CHECK(kvl_attend_planned(workspace.data(), planned.data(), n_sequences, nullptr) == KVL_OK);
}

TEST_CASE("plan: a workspace without one says so") {
    Step step(Format::f16);
    kvlane::Workspace workspace = step.workspace(1);
    std::memset(workspace.data(), 0, workspace.size());
    std::vector<kvl_sequence> sequences = step.sequences(0);
    CHECK(kvl_attend_planned(workspace.data(), sequences.data(), n_sequences, nullptr) == KVL_ERROR_WORKSPACE_STATE);
    CHECK(last_error().find("holds no plan; kvl_plan makes one") != std::string::npos);
    kvlane::check(kvl_plan(step.attention.get(), sequences.data(), n_sequences, workspace.data(), workspace.size(), 1));
    CHECK(kvl_attend_run_task(workspace.data(), 0) == KVL_ERROR_WORKSPACE_STATE);  // it is not begun
    step.attention.attend(sequences, workspace);                                   // and is gone after another call
    CHECK(kvl_attend_planned(workspace.data(), sequences.data(), n_sequences, nullptr) == KVL_ERROR_WORKSPACE_STATE);
}

TEST_CASE("plan: an executor with fewer threads than the plan gets fewer tasks, with the same bits") {
    Step step(Format::f16);
    kvlane::Workspace planned = step.workspace(3), other = step.workspace(1);
    std::vector<kvl_sequence> sequences = step.sequences(0);
    step.attention.attend(sequences, other);
    const std::vector<Answer> expected = step.answers;
    sequences = step.sequences(0);
    kvlane::check(kvl_plan(step.attention.get(), sequences.data(), n_sequences, planned.data(), planned.size(), 3));
    uint32_t n_run = 0;
    kvl_executor executor = kvl_executor_init();
    executor.pool = &n_run;
    executor.n_threads = 2;
    executor.parallel_for = [](void *pool, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context) {
        *static_cast<uint32_t *>(pool) = n_tasks;
        for (uint32_t i = 0; i < n_tasks; ++i) {
            task(context, i);
        }
    };
    kvlane::check(kvl_attend_planned(planned.data(), sequences.data(), n_sequences, &executor));
    CHECK(n_run == 2);
    CHECK(step.answers == expected);
}

TEST_CASE("plan: views that differ in more than addresses are refused") {
    Step step(Format::q8);  // chains of views
    kvlane::Workspace workspace = step.workspace(1);
    std::vector<kvl_sequence> sequences = step.sequences(0);
    kvlane::check(kvl_plan(step.attention.get(), sequences.data(), n_sequences, workspace.data(), workspace.size(), 1));
    const kvl_view planned = step.views[2], next = *planned.next;
    const auto status = [&] { return kvl_attend_planned(workspace.data(), sequences.data(), n_sequences, nullptr); };
    CHECK(status() == KVL_OK);
    kvl_view other_next = next;
    step.views[2].next = &other_next;
    CHECK(status() == KVL_OK);  // another address
    other_next.len -= 64;
    CHECK(status() == KVL_ERROR_PLAN);
    CHECK(last_error() == "sequences[2]: view, or one behind it, differs from the plan's in more than addresses");
    other_next = next;
    other_next.n_recent += 64;
    CHECK(status() == KVL_ERROR_PLAN);
    other_next = next;
    other_next.k_head_stride_bytes += 64;
    CHECK(status() == KVL_ERROR_PLAN);
    other_next = next;
    kvl_span shorter = *next.spans;
    shorter.n_tokens -= 64;
    other_next.spans = &shorter;
    CHECK(status() == KVL_ERROR_PLAN);
    shorter = {nullptr, nullptr, next.spans->n_tokens};
    CHECK(status() == KVL_ERROR_NULL);
    step.views[2].next = planned.next;
    CHECK(status() == KVL_OK);
}

TEST_CASE("plan: sequences that share a prefix in the plan, but not in a later layer, are refused") {
    Step step(Format::f16);
    const kvl_view shared = step.caches[2].view(0);
    const Cache copied = step.caches[2].copy();
    const kvl_view copy = copied.view(0);
    std::vector<Floats> out(4, Floats(n_heads * head_dim));
    const Floats q = test::random_values(n_heads * head_dim, 3);
    const auto pair = [&](const kvl_view &second, size_t first_out) {
        return std::vector<kvl_sequence>{
            kvlane::Sequence{.view = &shared, .len = 1300, .q = q.data(), .out = out[first_out].data()},
            kvlane::Sequence{.view = &second, .len = 1300, .q = q.data(), .out = out[first_out + 1].data()}};
    };
    kvlane::Workspace workspace = step.attention.workspace(2, 1300);
    std::vector<kvl_sequence> sequences = pair(shared, 0);
    kvlane::check(kvl_plan(step.attention.get(), sequences.data(), 2, workspace.data(), workspace.size(), 1));
    kvlane::check(kvl_attend_planned(workspace.data(), sequences.data(), 2, nullptr));
    CHECK(test::same_bits(out[0], out[1]));
    sequences = pair(copy, 2);
    CHECK(kvl_attend_planned(workspace.data(), sequences.data(), 2, nullptr) == KVL_ERROR_PLAN);
    CHECK(last_error() == "sequences[1]: view shares 0 chunks with that of sequences[0]; in the plan they share 2");
}

TEST_CASE("plan: a call that fails in its workspace destroys it") {
    Step step(Format::f16);
    kvlane::Workspace workspace = step.workspace(1);
    std::vector<kvl_sequence> sequences = step.sequences(0);
    kvlane::check(kvl_plan(step.attention.get(), sequences.data(), n_sequences, workspace.data(), workspace.size(), 1));
    std::vector<kvl_sequence> overlapping = sequences;
    overlapping[1].out = step.q[0].data();
    CHECK(kvl_attend(step.attention.get(), overlapping.data(), n_sequences, workspace.data(), workspace.size(), nullptr) ==
          KVL_ERROR_OVERLAP);
    CHECK(kvl_attend_planned(workspace.data(), sequences.data(), n_sequences, nullptr) == KVL_ERROR_WORKSPACE_STATE);
}

TEST_CASE("plan: masks, ranges, blocks and f16 outputs are planned like anything else") {
    Step step(Format::f16);
    const kvl_view view = step.caches[0].view(0), other = step.caches[0].view(1);
    const Floats q = test::random_values(n_heads * head_dim, 3);
    std::vector<uint64_t> bits(11, 0x5a5a5a5a5a5a5a5a);
    const kvl_mask mask = kvlane::Mask{.bits = bits.data(), .n_tokens = 700};
    kvlane::Partial partial(1, n_heads, head_dim), expected_partial(1, n_heads, head_dim);
    std::vector<uint16_t> half(n_heads * head_dim), expected_half(half);
    const auto both = [&](const kvl_view &of, void *out, const kvl_range &range) {
        return std::vector<kvl_sequence>{
            kvlane::Sequence{.view = &of, .len = 700, .q = q.data(), .out = out, .mask = &mask, .out_format = Format::f16},
            kvlane::Sequence{.view = &of, .len = 700, .q = q.data(), .range = &range}};
    };
    const kvl_range range = kvlane::Range{.first = 64, .end = 600, .out = partial.get()};
    const kvl_range expected_range = kvlane::Range{.first = 64, .end = 600, .out = expected_partial.get()};
    kvlane::Workspace workspace = step.attention.workspace(2, 700, 1, 1, Format::f16);
    std::vector<kvl_sequence> sequences = both(other, expected_half.data(), expected_range);
    step.attention.attend(sequences, workspace);
    sequences = both(view, half.data(), range);
    kvlane::check(kvl_plan(step.attention.get(), sequences.data(), 2, workspace.data(), workspace.size(), 1));
    sequences = both(other, half.data(), range);
    kvlane::check(kvl_attend_planned(workspace.data(), sequences.data(), 2, nullptr));
    CHECK(half == expected_half);
    CHECK(test::same_bits({partial.get().o, n_heads * head_dim}, {expected_partial.get().o, n_heads * head_dim}));
}

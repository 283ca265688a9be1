// A call's bits do not depend on who runs its tasks, in what order, or what else is in the call.

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "answers.hpp"

// Their libraries are not built for the thread sanitizer, which then sees races that are none.
#if defined(KVLANE_TEST_TSAN)
#undef KVLANE_TEST_OPENMP
#undef KVLANE_TEST_TBB
#endif
#if defined(KVLANE_TEST_OPENMP)
#include "kvlane/openmp.hpp"
#endif
#if defined(KVLANE_TEST_TBB)
#include "kvlane/tbb.hpp"
#endif

#if defined(KVLANE_TEST_ASAN)
// clang's OpenMP keeps its threads' memory to the end of the process.
extern "C" __attribute__((visibility("default"))) const char *__lsan_default_suppressions() { return "leak:libomp.so\n"; }
#endif

using kvlane::Format;
using test::same_bits;

namespace {

constexpr int64_t lengths[] = {0, 1, 63, 64, 65, 511, 512, 513, 1500};
constexpr uint32_t n_sequences = std::size(lengths);
constexpr uint32_t n_query_heads = 6;
constexpr uint32_t n_kv_heads = 2;
constexpr uint32_t head_dim = 40;
constexpr uint32_t v_head_dim = 24;
constexpr uint32_t max_tasks = 8;

struct Output {
    std::vector<float> out, lse;
    bool is_same(const Output &other) const { return same_bits(out, other.out) && same_bits(lse, other.lse); }
};

// Sequences of many lengths, each with a cache and a query of its own.
class Batch {
public:
    Batch() {
        for (uint32_t i = 0; i < n_sequences; ++i) {
            caches_.emplace_back(1, kvlane::Layer{n_kv_heads, head_dim, v_head_dim, Format::f16, Format::bf16}, 1500);
            test::fill_random(caches_.back(), lengths[i], 10 * i);
            views_.push_back(caches_.back().view(0));
        }
        q_ = test::random_values(n_sequences * n_query_heads * head_dim, 99);
    }

    /// Attends sequences [first, first + n) in one call that `run` makes.
    template <class Run>
    Output attend(uint32_t first, uint32_t n, Run run) {
        Output to{std::vector<float>(n * n_query_heads * v_head_dim, 7.0f), std::vector<float>(n * n_query_heads, 7.0f)};
        std::vector<kvl_sequence> sequences;
        for (uint32_t i = 0; i < n; ++i) {
            const kvl_view &view = views_[first + i];
            sequences.push_back(kvlane::Sequence{.view = &view,
                                                 .len = view.len,
                                                 .q = q_.data() + (first + i) * n_query_heads * head_dim,
                                                 .out = to.out.data() + i * n_query_heads * v_head_dim,
                                                 .lse = to.lse.data() + i * n_query_heads});
        }
        kvlane::Workspace workspace = attention_.workspace(n, 1500, 1, max_tasks);
        run(sequences, workspace);
        return to;
    }

    Output attend(uint32_t first, uint32_t n, const kvl_executor *executor = nullptr) {
        return attend(first, n, [&](std::span<const kvl_sequence> sequences, kvlane::Workspace &workspace) {
            attention_.attend(sequences, workspace, executor);
        });
    }

    /// Attends all in the form of tasks, in the order that `arrange` gives them, by n_threads.
    template <class Arrange>
    Output run_tasks(int n_threads, Arrange arrange) {
        return attend(0, n_sequences, [&](std::span<const kvl_sequence> sequences, kvlane::Workspace &workspace) {
            uint32_t n_tasks = 0;
            kvlane::check(kvl_attend_begin(attention_.get(), sequences.data(), n_sequences, workspace.data(),
                                           workspace.size(), max_tasks, &n_tasks));
            std::vector<uint32_t> order(n_tasks);
            std::iota(order.begin(), order.end(), 0);
            arrange(order);
            std::vector<std::thread> threads;
            for (int t = 0; t < n_threads; ++t) {
                threads.emplace_back([&, t] {
                    for (size_t i = static_cast<size_t>(t); i < order.size(); i += static_cast<size_t>(n_threads)) {
                        kvlane::check(kvl_attend_run_task(workspace.data(), order[i]));
                    }
                });
            }
            std::for_each(threads.begin(), threads.end(), [](std::thread &thread) { thread.join(); });
            kvlane::check(kvl_attend_finish(workspace.data()));
        });
    }

private:
    std::vector<kvlane::Cache> caches_;
    std::vector<kvl_view> views_;
    std::vector<float> q_;
    kvlane::Attention attention_{{n_query_heads, n_kv_heads, head_dim, v_head_dim, Format::f16, Format::bf16}};
};

}  // namespace

TEST_CASE("tasks may be run in any order and by any threads") {
    Batch batch;
    const Output expected = batch.attend(0, n_sequences);
    const auto forward = [](std::vector<uint32_t> &) {};
    const auto reverse = [](std::vector<uint32_t> &order) { std::reverse(order.begin(), order.end()); };
    for (const int n_threads : {1, 2, 3}) {
        CHECK(batch.run_tasks(n_threads, forward).is_same(expected));
        CHECK(batch.run_tasks(n_threads, reverse).is_same(expected));
        for (uint32_t seed = 0; seed < 5; ++seed) {
            const auto shuffle = [=](std::vector<uint32_t> &order) {
                std::shuffle(order.begin(), order.end(), std::mt19937(seed));
            };
            CHECK(batch.run_tasks(n_threads, shuffle).is_same(expected));
        }
    }
}

TEST_CASE("tasks: there are as many as asked for, but no more than there is work for") {
    const kvlane::Attention attention({.n_query_heads = 4, .n_kv_heads = 2, .head_dim = 8});
    kvlane::Cache cache(1, {.n_kv_heads = 2, .head_dim = 8}, 1500);
    test::fill_random(cache, 1500, 1);
    const kvl_view view = cache.view(0);
    const std::vector<float> q(4 * 8);
    std::vector<float> out(4 * 8);
    kvlane::Workspace workspace = attention.workspace(1, 1500, 1, 8);
    for (const int64_t len : {0, 512, 513, 1500}) {
        const uint32_t n_items = 2 * std::max(1u, static_cast<uint32_t>((len + 511) / 512));  // KV heads by chunks
        for (uint32_t asked = 1; asked <= 8; ++asked) {
            CAPTURE(len);
            CAPTURE(asked);
            const kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = len, .q = q.data(), .out = out.data()};
            uint32_t n_tasks = 0;
            REQUIRE(kvl_attend_begin(attention.get(), &sequence, 1, workspace.data(), workspace.size(), asked, &n_tasks) ==
                    KVL_OK);
            CHECK(n_tasks == std::min(asked, n_items));
        }
    }
}

TEST_CASE("workspace: it grows with tasks and sequences, not with the product of tokens and queries") {
    const kvlane::Attention attention({.n_query_heads = 32, .n_kv_heads = 8, .head_dim = 128});
    constexpr size_t mb = 1 << 20;
    CHECK(attention.workspace(1, 131072, 512, 2).size() <= 2 * mb);
    CHECK(attention.workspace(64, 131072, 1, 2).size() <= 2 * mb);
    CHECK(attention.workspace(64, 131072, 512, 64).size() <= 64 * mb);
    // Latent attention, whose items have 128 rows of 512 elements.
    const kvlane::Attention latent({.n_query_heads = 128, .n_kv_heads = 1, .head_dim = 576, .v_head_dim = 512});
    CHECK(latent.workspace(1, 131072, 512, 2).size() <= 16 * mb);
}

TEST_CASE("workspace: what is enough for a call is enough for one with less of anything") {
    const kvlane::Geometry windowed{
        .n_query_heads = 12, .n_kv_heads = 2, .head_dim = 40, .window = 700, .n_sink_tokens = 70};
    for (const kvlane::Geometry &geometry : {kvlane::Geometry{12, 2, 40}, kvlane::Geometry{200, 1, 16}, windowed}) {
        const kvlane::Attention attention(geometry);
        const auto bytes = [&](uint32_t n_sequences, int64_t max_len, uint32_t max_queries, uint32_t max_tasks) {
            return attention.workspace(n_sequences, max_len, max_queries, max_tasks).size();
        };
        for (const uint32_t n : {0u, 1u, 2u, 5u, 40u}) {
            for (const int64_t len : {0, 1, 512, 513, 870, 1500, 9000}) {
                for (const uint32_t n_queries : {1u, 2u, 21u, 22u, 100u, 300u}) {
                    for (const uint32_t n_tasks : {1u, 2u, 9u, 300u}) {
                        const size_t least = bytes(n, len, n_queries, n_tasks);
                        CHECK(least <= bytes(n + 1, len, n_queries, n_tasks));
                        CHECK(least <= bytes(n, len + 200, n_queries, n_tasks));
                        CHECK(least <= bytes(n, len, n_queries + 1, n_tasks));
                        CHECK(least <= bytes(n, len, n_queries, n_tasks + 1));
                    }
                }
            }
        }
    }
}

TEST_CASE("a sequence's result does not depend on the others in the call") {
    Batch batch;
    const Output together = batch.attend(0, n_sequences);
    for (uint32_t i = 0; i < n_sequences; ++i) {
        CAPTURE(lengths[i]);
        const Output alone = batch.attend(i, 1);
        CHECK(same_bits(alone.out, std::span(together.out).subspan(i * alone.out.size(), alone.out.size())));
        CHECK(same_bits(alone.lse, std::span(together.lse).subspan(i * alone.lse.size(), alone.lse.size())));
    }
}

TEST_CASE("a call of no sequences does nothing") {
    Batch batch;
    CHECK(batch.attend(0, 0).out.empty());
    const kvlane::Attention attention({.n_query_heads = 1, .n_kv_heads = 1, .head_dim = 8});
    kvlane::Workspace workspace = attention.workspace(0, 0);
    uint32_t n_tasks = 7;
    CHECK(kvl_attend_begin(attention.get(), nullptr, 0, workspace.data(), workspace.size(), 1, &n_tasks) == KVL_OK);
    CHECK(n_tasks == 0);
    CHECK(kvl_attend_finish(workspace.data()) == KVL_OK);
}

TEST_CASE_TEMPLATE_DEFINE("an executor's threads change no bit", Pool, executor_changes_no_bit) {
    Batch batch;
    const Output expected = batch.attend(0, n_sequences);
    for (const int n_threads : {1, 2, 3, 8}) {
        Pool pool(n_threads);
        const kvl_executor executor = pool.executor();
        CHECK(batch.attend(0, n_sequences, &executor).is_same(expected));
    }
}
TEST_CASE_TEMPLATE_INVOKE(executor_changes_no_bit, test::ThreadPool);
#if defined(KVLANE_TEST_OPENMP)
TEST_CASE_TEMPLATE_INVOKE(executor_changes_no_bit, kvlane::OpenMpPool);

TEST_CASE("OpenMP's team has no more threads than there are processors") {
    kvlane::OpenMpPool pool(omp_get_num_procs() + 3);
    const kvl_executor executor = pool.executor();
    std::atomic<int> most{0};
    const auto note = [](void *context, uint32_t) {
        auto &n = *static_cast<std::atomic<int> *>(context);
        n = std::max(n.load(), omp_get_num_threads());
    };
    executor.parallel_for(executor.pool, 1000, note, &most);
    CHECK(most >= 1);
    CHECK(most <= omp_get_num_procs());
}
#endif
#if defined(KVLANE_TEST_TBB)
TEST_CASE_TEMPLATE_INVOKE(executor_changes_no_bit, kvlane::TbbPool);
#endif

TEST_CASE("threads may share an attention object") {
    Batch batch;
    const Output expected = batch.attend(0, n_sequences);
    std::vector<std::thread> threads;
    std::atomic<int> n_same{0};
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] { n_same += batch.attend(0, n_sequences).is_same(expected); });
    }
    std::for_each(threads.begin(), threads.end(), [](std::thread &thread) { thread.join(); });
    CHECK(n_same == 4);
}

namespace {

constexpr kvlane::Geometry small{
    .n_query_heads = 4, .n_kv_heads = 2, .head_dim = 16, .k_format = Format::f32, .v_format = Format::f32};

// One sequence's call, whose memory can be given back before its tasks have all been run.
struct OneCall {
    explicit OneCall(const kvlane::Geometry &g, int64_t len)
        : geometry(g), attention(g), cache(test::cache_of(g, len)), view(cache.view(0)), q(test::queries_of(g)) {
        expected = test::attend(attention, view, len, q);
        start();
    }

    void start() {
        workspace = std::make_unique<kvlane::Workspace>(attention.workspace(1, view.len, 1, max_tasks));
        out = std::make_unique<std::vector<float>>(q.size(), 7.0f);
        sequence = kvlane::Sequence{.view = &view, .len = view.len, .q = q.data(), .out = out->data()};
    }

    kvl_status attend(const kvl_executor &executor) {
        return kvl_attend(attention.get(), &sequence, 1, workspace->data(), workspace->size(), &executor);
    }

    kvlane::Geometry geometry;
    kvlane::Attention attention;
    kvlane::Cache cache;
    kvl_view view;
    std::vector<float> q;
    test::Answer expected;
    std::unique_ptr<kvlane::Workspace> workspace;
    std::unique_ptr<std::vector<float>> out;
    kvl_sequence sequence;
};

// An executor that does what it must not.
struct Executor {
    using Task = void (*)(void *, uint32_t);

    std::function<void(uint32_t n_tasks, Task task, void *context)> body;

    kvl_executor get() {
        return {[](void *pool, uint32_t n_tasks, Task task, void *context) {
                    static_cast<Executor *>(pool)->body(n_tasks, task, context);
                },
                this, 4};
    }
};

}  // namespace

TEST_CASE("tasks: one that is left out and run when the call has returned touches nothing") {
    OneCall call(small, 1500);
    Executor::Task late = nullptr;
    void *context = nullptr;
    uint32_t n = 0;
    Executor executor{[&](uint32_t n_tasks, Executor::Task task, void *of) {
        late = task;
        context = of;
        n = n_tasks;
        task(of, 0);
    }};
    const kvl_executor threads = executor.get();
    REQUIRE(call.attend(threads) == KVL_ERROR_TASK);
    CHECK(std::string(kvl_last_error()).find(std::to_string(n - 1) + " of the call's " + std::to_string(n)) !=
          std::string::npos);
    CHECK(kvl_attend_finish(call.workspace->data()) == KVL_ERROR_WORKSPACE_STATE);
    std::memset(call.workspace->data(), 0, call.workspace->size());
    *call.out = std::vector<float>(call.q.size(), 7.0f);
    for (uint32_t task = 0; task < n; ++task) {
        late(context, task);
    }
    CHECK(*call.out == std::vector<float>(call.q.size(), 7.0f));
    call.workspace.reset();
    call.out.reset();
    late(context, n - 1);  // of memory that is gone
    // Nor does it when another call runs in the same place.
    call.start();
    executor.body = [&](uint32_t n_tasks, Executor::Task task, void *of) {
        for (uint32_t i = 0; i < n_tasks; ++i) {
            late(context, i);
            task(of, i);
        }
    };
    CHECK(call.attend(threads) == KVL_OK);
    CHECK(test::same_bits(*call.out, call.expected.out));
}

TEST_CASE("tasks: an executor's exception passes, and no task runs behind it") {
    OneCall call(small, 1500);
    Executor::Task late = nullptr;
    void *context = nullptr;
    Executor executor{[&](uint32_t, Executor::Task task, void *of) {
        late = task;
        context = of;
        task(of, 0);
        throw std::runtime_error("no threads");
    }};
    CHECK_THROWS_WITH(call.attend(executor.get()), "no threads");
    CHECK(kvl_attend_run_task(call.workspace->data(), 1) == KVL_ERROR_WORKSPACE_STATE);
    call.workspace.reset();
    call.out.reset();
    late(context, 1);
}

TEST_CASE("tasks: a call waits for those that its executor did not wait for") {
    const kvlane::Geometry wide{.n_query_heads = 16, .n_kv_heads = 1, .head_dim = 512};
    OneCall call(wide, 512);  // one task, of some length
    int n_waited = 0;
    for (int i = 0; i < 50 || (n_waited == 0 && i < 5000); ++i) {
        call.start();
        std::thread thread;
        std::atomic<bool> is_started{false};
        Executor executor{[&](uint32_t, Executor::Task task, void *of) {
            thread = std::thread([&is_started, task, of] {
                is_started = true;
                task(of, 0);
            });
            while (!is_started) {
                std::this_thread::yield();
            }
        }};
        if (call.attend(executor.get()) == KVL_OK) {
            ++n_waited;
            CHECK(test::same_bits(*call.out, call.expected.out));  // all of it
            call.workspace.reset();
            call.out.reset();
            thread.join();
        } else {  // the task came too late, and did nothing
            thread.join();
            CHECK(*call.out == std::vector<float>(call.q.size(), 7.0f));
        }
    }
    CHECK(n_waited > 0);
}

TEST_CASE("tasks: finish is refused while one is running") {
    const kvlane::Geometry wide{.n_query_heads = 16, .n_kv_heads = 1, .head_dim = 512};
    OneCall call(wide, 512);
    int n_refused = 0;
    for (int i = 0; i < 50 || (n_refused == 0 && i < 5000); ++i) {
        call.start();
        void *const workspace = call.workspace->data();
        uint32_t n_tasks;
        REQUIRE(kvl_attend_begin(call.attention.get(), &call.sequence, 1, workspace, call.workspace->size(), max_tasks,
                                 &n_tasks) == KVL_OK);
        REQUIRE(n_tasks == 1);
        std::atomic<bool> is_started{false};
        std::thread thread([&] {
            is_started = true;
            CHECK(kvl_attend_run_task(workspace, 0) == KVL_OK);
        });
        while (!is_started) {
            std::this_thread::yield();
        }
        kvl_status status;
        while ((status = kvl_attend_finish(workspace)) == KVL_ERROR_TASK) {
            n_refused += std::string(kvl_last_error()).find("1 still running") != std::string::npos;
        }
        CHECK(status == KVL_OK);
        CHECK(test::same_bits(*call.out, call.expected.out));
        thread.join();
    }
    CHECK(n_refused > 0);
}

TEST_CASE("tasks: an executor may be entered again from within it, to any depth") {
    OneCall call(small, 700);
    Executor executor;
    int depth = 0;
    executor.body = [&](uint32_t n_tasks, Executor::Task task, void *of) {
        if (++depth < KVL_MAX_EXECUTOR_CALLS + 10) {
            std::vector<float> out(call.q.size());
            kvlane::Workspace workspace = call.attention.workspace(1, call.view.len, 1, max_tasks);
            kvl_sequence inner = call.sequence;
            inner.out = out.data();
            const kvl_executor again = executor.get();
            CHECK(kvl_attend(call.attention.get(), &inner, 1, workspace.data(), workspace.size(), &again) == KVL_OK);
            CHECK(test::same_bits(out, call.expected.out));
        }
        for (uint32_t i = 0; i < n_tasks; ++i) {
            task(of, i);
        }
    };
    CHECK(call.attend(executor.get()) == KVL_OK);
    CHECK(test::same_bits(*call.out, call.expected.out));
    CHECK(depth == KVL_MAX_EXECUTOR_CALLS);  // the call that found no gate ran on its own thread
}

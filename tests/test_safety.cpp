// What a caller can do wrong, or the system to it, and what comes of it: no crash, no write after the end of a call, no
// time that grows with the square of what is described.

#include <algorithm>
#include <cfenv>
#include <ctime>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>

#include "../kernels/planes.hpp"
#include "answers.hpp"
#include "row_memory.hpp"

#if defined(__unix__)
#include <pthread.h>
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Geometry;
using test::Answer;

namespace {

constexpr Geometry small{
    .n_query_heads = 4, .n_kv_heads = 2, .head_dim = 16, .k_format = Format::f32, .v_format = Format::f32};

// Of the processor's time, which what else runs on it does not add to.
double seconds_of(const std::function<void()> &work) {
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 5; ++i) {
        const std::clock_t start = std::clock();
        work();
        least = std::min(least, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    }
    return std::max(least, 1.0 / CLOCKS_PER_SEC);
}

}  // namespace

TEST_CASE("time: begin grows as n log n with what it checks for overlaps, on whatever sides that lies") {
    const Geometry tiny{
        .n_query_heads = 1, .n_kv_heads = 1, .head_dim = 4, .k_format = Format::f32, .v_format = Format::f32};
    const Attention attention(tiny);
    constexpr uint32_t n_spans = 16;
    const auto seconds_for = [&](uint32_t n) {
        // Outputs before and behind the rows, in no order.
        std::vector<float> memory(size_t{3} * n * n_spans * 4);
        const float *rows = memory.data() + size_t{n} * n_spans * 4;
        std::vector<kvl_span> spans;
        for (uint32_t i = 0; i < n * n_spans; ++i) {
            spans.push_back({rows + i * 4, rows + i * 4, 1});
        }
        const kvl_view shape = test::RowMemory(test::cache_of(tiny, 1)).view();
        std::vector<kvl_view> views(n, shape);
        std::vector<kvl_sequence> sequences;
        for (uint32_t i = 0; i < n; ++i) {
            views[i].spans = &spans[size_t{i} * n_spans];
            views[i].n_spans = n_spans;
            views[i].len = n_spans;
            const size_t place = size_t{i} * 7919 % n * 4 + (i % 2 == 0 ? 0 : memory.size() - size_t{n} * 4);
            sequences.push_back(kvlane::Sequence{.view = &views[i], .len = n_spans, .q = rows, .out = &memory[place]});
        }
        kvlane::Workspace workspace = attention.workspace(n, n_spans);
        uint32_t n_tasks;
        return seconds_of([&] {
            REQUIRE(kvl_attend_begin(attention.get(), sequences.data(), n, workspace.data(), workspace.size(), 1,
                                     &n_tasks) == KVL_OK);
        });
    };
    // 16 times as much takes 20 to 40 times as long, since it leaves the caches; by squares it would be 256 at least.
    CHECK(seconds_for(8192) <= 128 * seconds_for(512));
}

TEST_CASE("time: attention grows with the number of views in a chain, or of spans, as with that of tokens") {
    const Geometry tiny{
        .n_query_heads = 1, .n_kv_heads = 1, .head_dim = 4, .k_format = Format::f32, .v_format = Format::f32};
    const Attention attention(tiny);
    const std::vector<float> q(4, 0.5f);
    for (const bool is_chain : {true, false}) {
        CAPTURE(is_chain);
        const auto seconds_for = [&](int64_t n) {
            test::RowMemory rows(test::cache_of(tiny, n));
            const kvl_view whole = rows.view();
            std::vector<kvl_span> spans;
            for (int64_t i = 0; i < n; ++i) {
                const int64_t at = i * whole.k_token_stride_bytes;
                spans.push_back(
                    {static_cast<const char *>(whole.spans->k) + at, static_cast<const char *>(whole.spans->v) + at, 1});
            }
            std::vector<kvl_view> views(is_chain ? static_cast<size_t>(n) : 1, whole);
            for (size_t i = 0; i < views.size(); ++i) {
                views[i].spans = &spans[i];
                views[i].n_spans = is_chain ? 1 : static_cast<uint32_t>(n);
                views[i].len = n - static_cast<int64_t>(i);
                views[i].next = i + 1 < views.size() ? &views[i + 1] : nullptr;
            }
            Answer answer;
            const double seconds = seconds_of([&] { answer = test::attend(attention, views.front(), n, q); });
            const Answer want = test::attend(attention, whole, n, q);
            const std::vector<double> reference(want.out.begin(), want.out.end());
            CHECK((is_chain ? test::relative_error(answer.out, reference) <= 1e-5 : answer == want));
            return seconds;
        };
        // 16 times as many, 16 times as long; by squares it would be 256.
        CHECK(seconds_for(1 << 18) <= 96 * seconds_for(1 << 14));
    }
}

namespace {

// The view with garbage in every field that its visible tokens do not need.
struct Littered {
    Littered(const kvl_view &plain, int64_t garbage) : view(plain) {
        spans[0].k = plain.spans->k;
        spans[0].v = kvlane::has_tiles(plain) ? &view : plain.spans->v;
        spans[0].n_tokens = plain.len;
        view.spans = spans;
        view.n_spans = 2;
        view.k_head_stride_bytes = view.v_head_stride_bytes = garbage;
        view.k_block_stride_bytes = view.v_block_stride_bytes = garbage;
        view.n_recent = garbage;
        if (kvlane::has_tiles(plain)) {
            view.v_token_stride_bytes = garbage;
        }
    }
    Littered(const Littered &) = delete;

    kvl_span spans[2] = {{}, {nullptr, nullptr, -5}};  // one behind all visible tokens
    kvl_view view;
};

// Bytes of a call over two sequences of all tokens of their views.
uint64_t bytes_of(const Attention &attention, const std::vector<float> &q, const kvl_view &a, const kvl_view &b) {
    std::vector<float> out(2 * q.size());
    const kvl_sequence pair[] = {kvlane::Sequence{.view = &a, .len = a.len, .q = q.data(), .out = out.data()},
                                 kvlane::Sequence{.view = &b, .len = b.len, .q = q.data(), .out = out.data() + q.size()}};
    uint64_t bytes = 0;
    REQUIRE(kvl_attend_bytes(attention.get(), pair, 2, &bytes) == KVL_OK);
    return bytes;
}

// Of views of one KV head: `one_run` tokens are too few to have a stride between them.
void check_unused_fields(const Geometry &g, const kvl_view &plain, int64_t one_run) {
    const Attention attention(g);
    const std::vector<float> q = test::queries_of(g);
    for (const int64_t garbage : {INT64_MAX, INT64_MIN, int64_t{-1}, int64_t{3}}) {
        CAPTURE(garbage);
        Littered littered(plain, garbage);
        CHECK(test::attend(attention, littered.view, plain.len, q) == test::attend(attention, plain, plain.len, q));
        // Two sequences that begin with the same memory share it, whatever stands in what neither uses.
        CHECK(bytes_of(attention, q, plain, littered.view) == bytes_of(attention, q, plain, plain));
        littered.view.len = one_run;
        littered.view.k_token_stride_bytes = littered.view.v_token_stride_bytes = garbage;
        CHECK(test::attend(attention, littered.view, one_run, q) == test::attend(attention, plain, one_run, q));
    }
}

}  // namespace

TEST_CASE("unused fields are never looked at: neither results nor bytes nor what is shared depend on them") {
    for (const Format format : test::all_formats()) {
        CAPTURE(test::name_of(format));
        const Geometry g{.n_query_heads = 4, .n_kv_heads = 1, .head_dim = 32, .k_format = format, .v_format = format};
        const Cache cache = test::cache_of(g, 1030);
        check_unused_fields(g, cache.view(0), 64);
        if (!test::is_scaled(format)) {
            check_unused_fields(g, test::RowMemory(cache).view(), 1);
        }
    }
}

TEST_CASE("unused fields do not hide that values are what keys begin with") {
    const Geometry g{.n_query_heads = 4, .n_kv_heads = 1, .head_dim = 32};
    const Attention attention(g);
    test::RowMemory rows(test::cache_of(g, 100));
    kvl_view view = rows.view();
    kvl_span spans[2] = {*view.spans, {nullptr, &view, 0}};
    spans[0].v = spans[0].k;
    view.spans = spans;
    view.n_spans = 2;
    view.k_head_stride_bytes = 5;
    view.v_block_stride_bytes = 7;
    const std::vector<float> q = test::queries_of(g);
    std::vector<float> out(q.size());
    const kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = 100, .q = q.data(), .out = out.data()};
    uint64_t bytes;
    REQUIRE(kvl_attend_bytes(attention.get(), &sequence, 1, &bytes) == KVL_OK);
    CHECK(bytes == 100 * 32 * 2);  // each row once
}

TEST_CASE("large counts do not overflow: a view of no tokens may have any number of blocks") {
    const Attention attention(small);
    const Cache cache = test::cache_of(small, 4);
    test::RowMemory rows(cache);
    for (kvl_view view : {cache.view(0), rows.view()}) {
        const int32_t block = 0;
        view.blocks = &block;
        view.n_blocks = view.block_tokens = UINT32_MAX;  // 2^64 tokens, nearly
        view.len = 0;
        const std::vector<float> q = test::queries_of(small);
        const Answer answer = test::attend(attention, view, 0, q);
        CHECK(answer.out == std::vector<float>(q.size(), 0.0f));
    }
}

TEST_CASE("a sequence whose len is 0 sees nothing, whatever its view holds") {
    const Cache cache = test::cache_of(small, 100);
    const Answer answer = test::attend(Attention(small), cache.view(0), 0, test::queries_of(small));
    CHECK(answer.out == std::vector<float>(answer.out.size(), 0.0f));
    CHECK(answer.lse == std::vector<float>(answer.lse.size(), -std::numeric_limits<float>::infinity()));
}

TEST_CASE("a view that is older than a truncate reads what was forgotten, and then what is appended over it") {
    Cache cache = test::cache_of(small, 100, 1, 200);
    const Attention attention(small);
    const std::vector<float> q = test::queries_of(small);
    const kvl_view old = cache.view(0);
    const Answer before = test::attend(attention, old, 100, q);
    // What is forgotten of a tile that keeps some tokens reads as zeros.
    std::vector<float> k = cache.read_k(0), v = cache.read_v(0);
    for (std::vector<float> *values : {&k, &v}) {
        std::fill(values->begin() + 50 * 2 * 16, values->begin() + 64 * 2 * 16, 0.0f);
    }
    Cache cut = test::cache_of(small, 0, 1, 100);
    cut.append(0, k, v);
    cut.advance(100);
    cache.truncate(64);
    CHECK(test::attend(attention, old, 100, q) == before);
    cache.truncate(50);
    CHECK(test::attend(attention, old, 100, q) == test::attend(attention, cut.view(0), 100, q));
    test::fill_random(cache, 50, 9);
    CHECK(test::attend(attention, old, 100, q) == test::attend(attention, cache.view(0), 100, q));
}

TEST_CASE("a view that is older than a truncate stays within the cache's memory, where tokens are kept in f16 too") {
    for (const int64_t len : {0, 1, 64, 70, 200, 300, 399}) {
        kvlane::Layer layer{.n_kv_heads = 2, .head_dim = 16, .k_format = Format::q8, .v_format = Format::q4};
        layer.n_first_f16 = 64;
        layer.n_recent_f16 = 128;
        Cache cache(1, layer, 400);
        test::fill_random(cache, 400, 1);
        const kvl_view old = cache.view(0);
        cache.truncate(len);
        const Attention attention(
            {.n_query_heads = 4, .n_kv_heads = 2, .head_dim = 16, .k_format = Format::q8, .v_format = Format::q4});
        const std::vector<float> q(64, 0.5f);
        std::vector<float> out(64);
        kvlane::Workspace workspace = attention.workspace(1, 400);
        const kvl_sequence sequence = kvlane::Sequence{.view = &old, .len = 400, .q = q.data(), .out = out.data()};
        const kvl_status status = kvl_attend(attention.get(), &sequence, 1, workspace.data(), workspace.size(), nullptr);
        CHECK(status == (len > layer.n_first_f16 ? KVL_ERROR_LENGTH : KVL_OK));
    }
}

TEST_CASE("a view of another's q8 tiles gives right results once it says how they are rotated") {
    const Geometry g{.n_query_heads = 4,
                     .n_kv_heads = 2,
                     .head_dim = 64,
                     .k_format = Format::q8,
                     .v_format = Format::q8,
                     .k_rotation = kvlane::Rotation::none,
                     .v_rotation = kvlane::Rotation::none};
    Cache cache(1, {2, 64, 64, Format::q8, Format::q8, kvlane::Rotation::none, kvlane::Rotation::none}, 100);
    test::fill_random(cache, 100, 1);
    const std::vector<float> q = test::queries_of(g);
    kvl_view view = cache.view(0);
    const Answer answer = test::attend(Attention(g), view, 100, q);
    CHECK(test::relative_error(answer.out, test::expected(g, 100, q, cache.read_k(0), cache.read_v(0)).out) <= 2e-2);
    // An attention of the default rotation, which is Hadamard's, is no place for it, stated or not.
    Geometry by_format = g;
    by_format.k_rotation = by_format.v_rotation = kvlane::Rotation::by_format;
    CHECK_THROWS_AS(test::attend(Attention(by_format), view, 100, q), kvlane::Error);
    view.k_rotation = KVL_ROTATION_DEFAULT;
    CHECK_THROWS_AS(test::attend(Attention(by_format), view, 100, q), kvlane::Error);
    CHECK_THROWS_AS(test::attend(Attention(g), view, 100, q), kvlane::Error);
}

TEST_CASE("a range that begins at no multiple of 64 tokens merges to the same within the bound") {
    const Cache cache = test::cache_of(small, 1500);
    const Attention attention(small);
    const std::vector<float> q = test::queries_of(small);
    const kvl_view view = cache.view(0);
    const Answer whole = test::attend(attention, view, 1500, q);
    kvlane::Partial parts[] = {{1, 4, 16}, {1, 4, 16}};
    kvl_partial list[] = {parts[0].get(), parts[1].get()};
    kvlane::Workspace workspace = attention.workspace(1, 1500);
    for (int i = 0; i < 2; ++i) {
        const kvl_range range = kvlane::Range{.first = i == 0 ? 0 : 700, .end = i == 0 ? 700 : 1500, .out = list[i]};
        const kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = 1500, .q = q.data(), .range = &range};
        attention.attend(std::span(&sequence, 1), workspace);
    }
    std::vector<float> out(whole.out.size());
    attention.merge(list, 1, out.data());
    const std::vector<double> reference(whole.out.begin(), whole.out.end());
    CHECK(test::relative_error(out, reference) <= 2e-6);
}

TEST_CASE("a range that lies before a query's window gives an empty partial, whatever the other queries see") {
    Geometry g = small;
    g.window = 20;
    const Cache cache = test::cache_of(g, 3000);
    const Attention attention(g);
    const kvl_view view = cache.view(0);
    constexpr uint32_t n_queries = 40;
    const std::vector<float> q = test::queries_of(g, n_queries);
    constexpr int64_t len = 2610;  // windows that begin in two chunks
    for (const int64_t end : {500, 1000, 1500, 2560, 2580, 2600}) {
        kvlane::Partial partial(n_queries, 4, 16);
        const kvl_partial out = partial.get();
        const kvl_range range = kvlane::Range{.first = 100, .end = end, .out = out};
        const kvl_sequence sequence =
            kvlane::Sequence{.view = &view, .len = len, .n_queries = n_queries, .q = q.data(), .range = &range};
        kvlane::Workspace workspace = attention.workspace(1, 3000, n_queries);
        std::memset(workspace.data(), 0xff, workspace.size());
        attention.attend(std::span(&sequence, 1), workspace);
        for (uint32_t i = 0; i < n_queries; ++i) {
            const int64_t position = len - n_queries + i;
            CAPTURE(end);
            CAPTURE(position);
            CHECK((out.l[4 * i] > 0) == (position - g.window + 1 < end));
        }
    }
}

TEST_CASE("a workspace for a length is enough for a range of it, wherever that ends") {
    const Geometry g{.n_query_heads = 8, .n_kv_heads = 8, .head_dim = 16, .window = 510, .n_sink_tokens = 1};
    const Cache cache = test::cache_of(g, 4000);
    const Attention attention(g);
    const kvl_view view = cache.view(0);
    const std::vector<float> q = test::queries_of(g, 2);
    for (const uint32_t max_queries : {2u, 3u, 4u, 100u}) {
        kvlane::Partial partial(2, 8, 16);
        const kvl_range range = kvlane::Range{.end = 4000, .out = partial.get()};
        const kvl_sequence sequence =
            kvlane::Sequence{.view = &view, .len = 513, .n_queries = 2, .q = q.data(), .range = &range};
        kvlane::Workspace workspace = attention.workspace(1, 513, max_queries);
        CHECK(kvl_attend(attention.get(), &sequence, 1, workspace.data(), workspace.size(), nullptr) == KVL_OK);
    }
}

TEST_CASE("scores of up to 1e4 keep the bound that is stated for them") {
    Geometry g{.n_query_heads = 4, .n_kv_heads = 1, .head_dim = 64, .k_format = Format::f32, .v_format = Format::f32};
    const Cache cache = test::cache_of(g, 500);
    for (const float scale : {1.0f, 100.0f, 400.0f}) {
        g.scale = scale;  // scores of a standard deviation of 8 times that: the largest are near 3 times as large
        const std::vector<float> q = test::queries_of(g);
        const Answer answer = test::attend(Attention(g), cache.view(0), 500, q);
        CAPTURE(scale);
        CHECK(test::relative_error(answer.out, test::expected(g, 500, q, cache.read_k(0), cache.read_v(0)).out) <= 1e-2);
    }
}

#if defined(__linux__) && !defined(KVLANE_TEST_ASAN) && !defined(KVLANE_TEST_TSAN)

namespace {

// How much of a thread's stack is used that runs n_tasks of a call: it is filled with a pattern first, and what is left of
// that was not used.
size_t stack_of(void *workspace, uint32_t n_tasks) {
    constexpr size_t size = 1 << 20;
    constexpr std::byte pattern{0xa5};
    struct Work {
        void *workspace;
        uint32_t n_tasks;
    } work{workspace, n_tasks};
    std::vector<std::byte> memory(size + 4096, pattern);
    std::byte *stack = memory.data() + -reinterpret_cast<uintptr_t>(memory.data()) % 4096;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    REQUIRE(pthread_attr_setstack(&attributes, stack, size) == 0);
    const auto body = [](void *p) -> void * {
        const auto &w = *static_cast<const Work *>(p);
        for (uint32_t task = 0; task < w.n_tasks; ++task) {
            kvl_attend_run_task(w.workspace, task);
        }
        return nullptr;
    };
    pthread_t thread;
    REQUIRE(pthread_create(&thread, &attributes, body, &work) == 0);
    pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
    return static_cast<size_t>(stack + size - std::find_if(stack, stack + size, [](std::byte b) { return b != pattern; }));
}

// That of the tasks of a call over all of a view's tokens.
size_t stack_of_call(const Geometry &g, const kvl_view &view, uint32_t n_queries, const kvl_mask *mask) {
    const Attention attention(g);
    const std::vector<float> q = test::queries_of(g, n_queries);
    std::vector<float> out(q.size());
    kvlane::Workspace workspace = attention.workspace(1, view.len, n_queries);
    const kvl_sequence sequence = kvlane::Sequence{
        .view = &view, .len = view.len, .n_queries = n_queries, .q = q.data(), .out = out.data(), .mask = mask};
    uint32_t n_tasks;
    REQUIRE(kvl_attend_begin(attention.get(), &sequence, 1, workspace.data(), workspace.size(), 1, &n_tasks) == KVL_OK);
    const size_t bytes = stack_of(workspace.data(), n_tasks);
    REQUIRE(kvl_attend_finish(workspace.data()) == KVL_OK);
    return bytes;
}

}  // namespace

TEST_CASE("stack: a task needs at most KVL_TASK_STACK_BYTES, whatever the shape and the rules") {
    const size_t of_thread = stack_of(nullptr, 0);
    const std::vector<float> slopes(32, 0.01f), biases(600);
    const std::vector<uint64_t> bits(10, 0x5555555555555555);
    const kvl_mask mask = kvlane::Mask{.bits = bits.data(), .biases = biases.data(), .n_tokens = 600};
    size_t most = 0;
    for (const Format format : test::all_formats()) {
        for (const uint32_t head_dim : {64u, 1024u}) {
            for (const bool has_rules : {false, true}) {
                Geometry g{
                    .n_query_heads = 32, .n_kv_heads = 1, .head_dim = head_dim, .k_format = format, .v_format = format};
                if (has_rules) {
                    g.window = 550;
                    g.softcap = 50;
                    g.alibi_slopes = slopes;
                    g.precision = kvlane::Precision::exact;
                }
                const Cache cache = test::cache_of(g, 600);
                const auto stack_on = [&](const kvl_view &view) {
                    return stack_of_call(g, view, has_rules ? 3 : 1, has_rules ? &mask : nullptr);
                };
                most = std::max(most, stack_on(cache.view(0)));
                if (!test::is_scaled(format)) {
                    most = std::max(most, stack_on(test::RowMemory(cache).view()));
                }
            }
        }
    }
    MESSAGE("bytes of stack: " << most - of_thread);
    CHECK(most - of_thread <= KVL_TASK_STACK_BYTES);
    CHECK(most - of_thread >= 1024);  // the pattern was written over
}

TEST_CASE("memory that is locked: all of a cache is committed when it is made") {
    const auto locked_bytes = [] {
        std::ifstream status("/proc/self/status");
        std::string word;
        while (status >> word && word != "VmLck:") {
        }
        int64_t kilobytes = 0;
        status >> kilobytes;
        return kilobytes * 1024;
    };
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
        MESSAGE("skipped: this process may not lock its memory");
        return;
    }
    const int64_t before = locked_bytes();
    int64_t after = 0;
    float first = 0;
    {
        const Cache cache = test::cache_of(small, 100, 1, 100000);
        after = locked_bytes();
        first = test::attend(Attention(small), cache.view(0), 100, test::queries_of(small)).out[0];
    }
    munlockall();
    CHECK(after - before >= 100000 * 2 * 2 * 16 * int64_t{sizeof(float)});
    CHECK(first != 0);
}

#endif

#if !defined(KVLANE_TEST_EMULATED)

TEST_CASE("floating point: in another rounding mode bounds hold 100 times wider") {
    const Cache cache = test::cache_of(small, 1000);
    const std::vector<float> q = test::queries_of(small);
    const oracle::Answer want = test::expected(small, 1000, q, cache.read_k(0), cache.read_v(0));
    for (const int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
        REQUIRE(std::fesetround(mode) == 0);
        const Answer answer = test::attend(Attention(small), cache.view(0), 1000, q);
        REQUIRE(std::fesetround(FE_TONEAREST) == 0);
        CAPTURE(mode);
        CHECK(test::relative_error(answer.out, want.out) <= 2e-4);
    }
}

#endif

#if defined(__x86_64__)

TEST_CASE("floating point: where subnormal numbers are flushed to 0, results of normal ones stay right") {
    for (const Format format : test::all_formats()) {
        const Geometry g{.n_query_heads = 4, .n_kv_heads = 2, .head_dim = 64, .k_format = format, .v_format = format};
        const Cache cache = test::cache_of(g, 1000);
        const std::vector<float> q = test::queries_of(g);
        const oracle::Answer want = test::expected(g, 1000, q, cache.read_k(0), cache.read_v(0));
        const unsigned before = _mm_getcsr();
        _mm_setcsr(before | 0x8040);  // FTZ and DAZ
        const Answer answer = test::attend(Attention(g), cache.view(0), 1000, q);
        _mm_setcsr(before);
        CAPTURE(test::name_of(format));
        CHECK(test::relative_error(answer.out, want.out) <= (test::is_scaled(format) ? 2e-2 : 2e-6));
    }
}

#endif

#if defined(__unix__)

namespace {

// Memory of so many bytes between pages that may not be touched: it ends where the second one begins, or begins where the
// first one ends.
class Guarded {
public:
    Guarded(size_t bytes, bool at_end) : size_(bytes), mapped_((bytes + page - 1) / page * page + 2 * page) {
        base_ = static_cast<std::byte *>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        REQUIRE(base_ != MAP_FAILED);
        REQUIRE(mprotect(base_ + page, mapped_ - 2 * page, PROT_READ | PROT_WRITE) == 0);
        data_ = at_end ? base_ + mapped_ - page - bytes : base_ + page;
    }
    Guarded(const Guarded &) = delete;
    Guarded &operator=(const Guarded &) = delete;
    ~Guarded() { munmap(base_, mapped_); }

    template <class T = std::byte>
    T *data() const {
        return reinterpret_cast<T *>(data_);
    }
    size_t size() const { return size_; }

private:
    static constexpr size_t page = 65536;  // the largest that systems have
    size_t size_, mapped_;
    std::byte *base_;
    std::byte *data_;
};

}  // namespace

namespace {

// A view's rows or tiles, each plane in memory of its own between such pages.
class GuardedView {
public:
    GuardedView(const kvl_view &source, bool at_end) : view_(source) {
        span_.n_tokens = source.len;
        kvlane::for_each_plane(source, [&](const kvlane::ViewPlane &plane) { move(plane, source, at_end); });
        view_.spans = &span_;
    }
    GuardedView(const GuardedView &) = delete;
    const kvl_view &view() const { return view_; }

private:
    void move(const kvlane::ViewPlane &plane, const kvl_view &source, bool at_end) {
        const int64_t row = plane.row_bytes(source), n_rows = (source.len + plane.tokens - 1) / plane.tokens;
        view_.*plane.token_stride = row;
        view_.*plane.head_stride = row * n_rows;
        planes_.push_back(std::make_unique<Guarded>(static_cast<size_t>(source.n_kv_heads * row * n_rows), at_end));
        std::byte *const memory = planes_.back()->data();
        span_.*plane.first = memory;
        for (uint32_t head = 0; head < source.n_kv_heads; ++head) {
            for (int64_t i = 0; i < n_rows; ++i) {
                std::memcpy(memory + (head * n_rows + i) * row, plane.row(source, *source.spans, head, i * plane.tokens, 0),
                            static_cast<size_t>(row));
            }
        }
    }

    kvl_view view_;
    kvl_span span_{};
    std::vector<std::unique_ptr<Guarded>> planes_;
};

void check_guarded(const Geometry &g, const kvl_view &straight) {
    const Attention attention(g);
    const std::vector<float> q = test::queries_of(g);
    const int64_t len = straight.len;
    const Answer want = test::attend(attention, straight, len, q);
    for (const bool at_end : {true, false}) {
        const GuardedView guarded(straight, at_end);
        const Guarded queries(q.size() * sizeof(float), at_end), out(q.size() * sizeof(float), at_end);
        const Guarded lse(g.n_query_heads * sizeof(float), at_end);
        std::memcpy(queries.data(), q.data(), q.size() * sizeof(float));
        const Guarded workspace(attention.workspace(1, len).size(), at_end);
        const kvl_sequence sequence = kvlane::Sequence{.view = &guarded.view(),
                                                       .len = len,
                                                       .q = queries.data<float>(),
                                                       .out = out.data<float>(),
                                                       .lse = lse.data<float>()};
        REQUIRE(kvl_attend(attention.get(), &sequence, 1, workspace.data(), workspace.size(), nullptr) == KVL_OK);
        CHECK(test::same_bits(std::span(out.data<float>(), q.size()), want.out));
        CHECK(test::same_bits(std::span(lse.data<float>(), g.n_query_heads), want.lse));
    }
}

}  // namespace

TEST_CASE("memory: nothing in front of and behind the rows or tiles, queries and outputs of a call is touched") {
    for (const Format format : test::all_formats()) {
        for (const uint32_t dim : {1u, 7u, 33u, 64u, 80u, 128u}) {
            for (const int64_t len : {1, 15, 64, 130}) {
                const Geometry g{
                    .n_query_heads = 6, .n_kv_heads = 2, .head_dim = dim, .k_format = format, .v_format = format};
                CAPTURE(test::name_of(format));
                CAPTURE(dim);
                CAPTURE(len);
                const Cache cache = test::cache_of(g, len);
                check_guarded(g, cache.view(0));
                if (!test::is_scaled(format)) {
                    check_guarded(g, test::RowMemory(cache).view());
                }
            }
        }
    }
}

TEST_CASE("memory: nothing in front of and behind a mask is touched") {
    const Geometry g{.n_query_heads = 6, .n_kv_heads = 2, .head_dim = 20};
    const Attention attention(g);
    for (const int64_t len : {3, 64, 70, 130}) {
        CAPTURE(len);
        const Cache cache = test::cache_of(g, len);
        const std::vector<float> q = test::queries_of(g, 3);
        const Answer want = test::attend(attention, cache.view(0), len, q, 3);
        const auto n_words = static_cast<size_t>(len + 63) / 64, n_biases = static_cast<size_t>(len);
        for (const bool at_end : {true, false}) {
            const Guarded bits(3 * n_words * sizeof(uint64_t), at_end), biases(3 * n_biases * sizeof(float), at_end);
            std::memset(bits.data(), 0xff, bits.size());
            const kvl_mask mask = kvlane::Mask{.bits = bits.data<uint64_t>(),
                                               .biases = biases.data<float>(),
                                               .n_tokens = len,
                                               .bits_stride_bytes = static_cast<int64_t>(n_words * sizeof(uint64_t)),
                                               .biases_stride_bytes = static_cast<int64_t>(n_biases * sizeof(float))};
            CHECK(test::attend(attention, cache.view(0), len, q, 3, nullptr, &mask) == want);
        }
    }
}

#else

TEST_CASE("what lies beside memory may be touched here") { MESSAGE("skipped: this system has no mmap"); }

#endif

// The same row over the same tokens gives the same bits: whoever computes it, beside whatever, however the cache came to be.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kvlane/kvlane.hpp"
#include "support.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;

namespace {

using Floats = std::vector<float>;

const std::vector<Format> formats = test::all_formats();

// Rows of whole vectors, an odd number of them where there are at most 16 lanes, and a part of one, on every isa.
constexpr uint32_t head_dim = 93;
constexpr uint32_t v_head_dim = 45;

Attention attention_of(uint32_t n_kv_heads, uint32_t group, Format format,
                       kvlane::Precision precision = kvlane::Precision::by_format) {
    return Attention({.n_query_heads = n_kv_heads * group,
                      .n_kv_heads = n_kv_heads,
                      .head_dim = head_dim,
                      .v_head_dim = v_head_dim,
                      .k_format = format,
                      .v_format = format,
                      .precision = precision});
}

// Keys and values of some tokens, [token][kv_head][dim].
struct Tokens {
    uint32_t n_kv_heads;
    Floats k;
    Floats v;

    Tokens(uint32_t heads, int64_t n, uint32_t seed)
        : n_kv_heads(heads),
          k(test::random_values(static_cast<size_t>(n) * heads * head_dim, seed)),
          v(test::random_values(static_cast<size_t>(n) * heads * v_head_dim, seed + 1)) {}

    int64_t n() const { return static_cast<int64_t>(v.size() / n_kv_heads / v_head_dim); }

    void append_to(Cache &cache, int64_t first, int64_t end) const {
        const size_t from = static_cast<size_t>(first) * n_kv_heads;
        const size_t size = static_cast<size_t>(end - first) * n_kv_heads;
        cache.append(0, std::span(k).subspan(from * head_dim, size * head_dim),
                     std::span(v).subspan(from * v_head_dim, size * v_head_dim));
        cache.advance(end - first);
    }
};

Cache empty_cache(uint32_t n_kv_heads, Format format, int64_t max_tokens) {
    return Cache(1, {n_kv_heads, head_dim, v_head_dim, format, format}, max_tokens, KVL_CACHE_NO_HUGE_PAGES);
}

Cache filled(const Tokens &tokens, Format format) {
    Cache cache = empty_cache(tokens.n_kv_heads, format, tokens.n() + 10);
    tokens.append_to(cache, 0, tokens.n());
    return cache;
}

struct Answer {
    Floats out;
    Floats lse;

    explicit Answer(size_t n_heads) : out(n_heads * v_head_dim), lse(n_heads) {}

    kvl_sequence sequence(const kvl_view &view, std::span<const float> q) {
        return kvlane::Sequence{.view = &view, .len = view.len, .q = q.data(), .out = out.data(), .lse = lse.data()};
    }

    // By bits, so that NaN equals itself and 0 is not -0.
    bool operator==(const Answer &other) const { return test::same_bits(out, other.out) && test::same_bits(lse, other.lse); }
};

Answer attend(const Attention &attention, const Cache &cache, std::span<const float> q,
              const kvl_executor *executor = nullptr) {
    const kvl_view view = cache.view(0);
    Answer answer(q.size() / head_dim);
    const kvl_sequence sequence = answer.sequence(view, q);
    kvlane::Workspace workspace = attention.workspace(1, view.len, 1, kvlane::max_tasks(executor));
    attention.attend(std::span(&sequence, 1), workspace, executor);
    return answer;
}

// Threads that take tasks in a given order and dawdle at random before and after each.
struct Threads {
    enum Order { forward, reversed, shuffled };
    uint32_t n_threads;
    Order order;
    uint32_t seed;

    kvl_executor executor() { return {&parallel_for, this, n_threads}; }

private:
    static void parallel_for(void *pool, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context) {
        const auto &self = *static_cast<const Threads *>(pool);
        std::vector<uint32_t> tasks(n_tasks);
        std::iota(tasks.begin(), tasks.end(), 0u);
        if (self.order == reversed) {
            std::reverse(tasks.begin(), tasks.end());
        } else if (self.order == shuffled) {
            std::shuffle(tasks.begin(), tasks.end(), std::mt19937(self.seed));
        }
        std::atomic<uint32_t> next{0};
        const auto work = [&](uint32_t thread) {
            std::mt19937 random(self.seed + thread);
            for (uint32_t i; (i = next++) < n_tasks;) {
                dawdle(random());
                task(context, tasks[i]);
                dawdle(random());
            }
        };
        std::vector<std::thread> threads;
        for (uint32_t t = 0; t < self.n_threads; ++t) {
            threads.emplace_back(work, t);
        }
        for (std::thread &thread : threads) {
            thread.join();
        }
    }

    static void dawdle(uint32_t random) {
        if (random % 4 == 0) {
            std::this_thread::sleep_for(std::chrono::microseconds(random / 4 % 200));
        } else if (random % 4 == 1) {
            std::this_thread::yield();
        }
    }
};

}  // namespace

TEST_CASE("determinism: a row alone and the row in a group of 2 to 40 give the same bits, in a precision that is theirs") {
    constexpr uint32_t max_group = 40;
    constexpr auto exact = kvlane::Precision::exact;  // the default's may differ by group
    for (const Format format : formats) {
        for (const int64_t len : {1, 65, 600}) {
            const Cache cache = filled(Tokens(1, len, 1), format);
            const Floats q = test::random_values(max_group * head_dim, 3);
            const auto rows = [&](uint32_t first, uint32_t n) {
                return Floats(q.begin() + first * head_dim, q.begin() + (first + n) * head_dim);
            };
            Answer alone(max_group);
            for (uint32_t row = 0; row < max_group; ++row) {
                const Answer one = attend(attention_of(1, 1, format, exact), cache, rows(row, 1));
                std::copy(one.out.begin(), one.out.end(), alone.out.begin() + row * v_head_dim);
                alone.lse[row] = one.lse[0];
            }
            for (const uint32_t group : {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 32, 33, 40}) {
                for (const uint32_t first : {0u, 40 - group}) {
                    INFO(std::string(test::name_of(format))
                         << ", len " << len << ", rows " << first << " to " << first + group);
                    const Answer got = attend(attention_of(1, group, format, exact), cache, rows(first, group));
                    Answer want(group);
                    std::copy_n(alone.out.begin() + first * v_head_dim, group * v_head_dim, want.out.begin());
                    std::copy_n(alone.lse.begin() + first, group, want.lse.begin());
                    CHECK(got == want);
                }
            }
        }
    }
}

TEST_CASE("determinism: a sequence alone and in a batch, on any threads in any order, gives the same bits") {
    constexpr uint32_t n_kv_heads = 2;
    constexpr uint32_t group = 3;
    constexpr std::array<int64_t, 7> lens = {700, 0, 1, 2049, 512, 63, 1024};
    for (const Format format : formats) {
        const Attention attention = attention_of(n_kv_heads, group, format);
        std::vector<Cache> caches;
        std::vector<kvl_view> views;
        std::vector<Floats> queries;
        std::vector<Answer> alone;
        for (uint32_t i = 0; i < lens.size(); ++i) {
            caches.push_back(empty_cache(n_kv_heads, format, 3000));
            if (lens[i] > 0) {
                Tokens(n_kv_heads, lens[i], 10 * i).append_to(caches[i], 0, lens[i]);
            }
            views.push_back(caches[i].view(0));
            queries.push_back(test::random_values(n_kv_heads * group * head_dim, 10 * i + 5));
            alone.push_back(attend(attention, caches[i], queries[i]));
        }
        kvlane::Workspace workspace = attention.workspace(lens.size(), 2049, 1, 8);
        const auto attend_all = [&](const kvl_executor *executor) {
            std::vector<Answer> answers(lens.size(), Answer(n_kv_heads * group));
            std::vector<kvl_sequence> sequences;
            for (size_t i = 0; i < lens.size(); ++i) {
                sequences.push_back(answers[i].sequence(views[i], queries[i]));
            }
            attention.attend(sequences, workspace, executor);
            return answers;
        };
        CHECK(attend_all(nullptr) == alone);
        for (const uint32_t n_threads : {1, 2, 3, 8}) {
            for (const Threads::Order order : {Threads::forward, Threads::reversed, Threads::shuffled}) {
                for (uint32_t seed = 0; seed < 3; ++seed) {
                    INFO(n_threads << " threads, order " << order << ", seed " << seed);
                    Threads threads{n_threads, order, seed};
                    const kvl_executor executor = threads.executor();
                    CHECK(attend_all(&executor) == alone);
                }
            }
        }
    }
}

TEST_CASE("determinism: repeated calls in a used workspace give the same bits") {
    for (const Format format : formats) {
        const Attention attention = attention_of(2, 4, format);
        const Cache cache = filled(Tokens(2, 1100, 1), format);
        const kvl_view view = cache.view(0);
        const Floats q = test::random_values(8 * head_dim, 3);
        const Answer once = attend(attention, cache, q);
        kvlane::Workspace workspace = attention.workspace(1, view.len);
        for (int i = 0; i < 5; ++i) {
            std::memset(workspace.data(), i % 2 ? 0xff : 0x00, i < 3 ? workspace.size() : 0);
            Answer again(8);
            const kvl_sequence sequence = again.sequence(view, q);
            attention.attend(std::span(&sequence, 1), workspace);
            CHECK(again == once);
        }
    }
}

TEST_CASE("determinism: the bits do not depend on where queries lie") {
    constexpr size_t line_floats = 16;
    for (const Format format : formats) {
        const Attention attention = attention_of(2, 4, format);
        const Cache cache = filled(Tokens(2, 1100, 1), format);
        const Floats q = test::random_values(8 * head_dim, 3);
        Floats room(q.size() + line_floats);
        const Answer want = attend(attention, cache, q);
        for (size_t at = 0; at < line_floats; ++at) {
            std::ranges::copy(q, room.begin() + static_cast<std::ptrdiff_t>(at));
            CHECK(attend(attention, cache, std::span<const float>(room).subspan(at, q.size())) == want);
        }
    }
}

TEST_CASE("determinism: a cache gives the same bits however its tokens came in") {
    constexpr uint32_t n_kv_heads = 2;
    constexpr int64_t len = 700;
    for (const Format format : formats) {
        const Tokens tokens(n_kv_heads, len, 1);
        const Attention attention = attention_of(n_kv_heads, 3, format);
        const Floats q = test::random_values(n_kv_heads * 3 * head_dim, 3);
        const Cache whole = filled(tokens, format);
        const Answer want = attend(attention, whole, q);

        Cache by_token = empty_cache(n_kv_heads, format, len);
        for (int64_t t = 0; t < len; ++t) {
            tokens.append_to(by_token, t, t + 1);
        }
        CHECK(attend(attention, by_token, q) == want);

        Cache in_pieces = empty_cache(n_kv_heads, format, 5000);
        for (int64_t t = 0, n = 1; t < len; t += n, n = std::min(2 * n + 1, len - t)) {
            tokens.append_to(in_pieces, t, t + n);
        }
        CHECK(attend(attention, in_pieces, q) == want);

        CHECK(attend(attention, whole.copy(), q) == want);

        for (const int64_t kept : {0, 1, 64, 513, 699}) {
            Cache regrown = whole.copy();
            regrown.truncate(kept);
            Tokens(n_kv_heads, 5, 50).append_to(regrown, 0, 5);  // others, to be forgotten again
            regrown.truncate(kept);
            tokens.append_to(regrown, kept, len);
            CHECK(attend(attention, regrown, q) == want);
        }
    }
}

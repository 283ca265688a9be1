#pragma once

// What the tests share.

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "kvlane/kvlane.hpp"

// Which sanitizer watches: g++ defines a macro, clang answers a question.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KVLANE_TEST_ASAN 1
#elif __has_feature(thread_sanitizer)
#define KVLANE_TEST_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define KVLANE_TEST_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define KVLANE_TEST_TSAN 1
#endif

inline doctest::String toString(kvl_status status) { return kvl_status_name(status); }

namespace test {

/// The isa that KVLANE_ISA names, or "".
inline std::string forced_isa() {
    const char *forced = std::getenv("KVLANE_ISA");
    return forced ? forced : "";
}

/// Every storage format of the library.
inline std::vector<kvlane::Format> all_formats() {
    std::vector<kvlane::Format> formats;
    for (kvl_format format = 0; kvl_format_name(format); ++format) {
        formats.push_back(kvlane::Format{format});
    }
    return formats;
}

/// Tells whether rows of the format are integers with a scale of their own.
inline bool is_scaled(kvlane::Format format) { return format == kvlane::Format::q8 || format == kvlane::Format::q4; }

/// Bytes of a stored row, padding and scales not counted.
inline size_t row_bytes(kvl_format format, uint32_t dim) {
    constexpr size_t bits_of[] = {32, 16, 16, 8, 4};
    return (dim * bits_of[format] + 7) / 8;
}

/// Bytes of a row's scales.
inline size_t entry_bytes(kvl_format format, uint32_t dim) {
    return format == KVL_Q8 ? 4 : format == KVL_Q4 ? 4 + (dim + 31) / 32 : 0;
}

inline const char *name_of(kvlane::Format format) { return kvl_format_name(static_cast<kvl_format>(format)); }

/// Values of unit variance, the same for the same seed.
inline std::vector<float> random_values(size_t n, uint32_t seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(n);
    for (float &value : values) {
        value = normal(generator);
    }
    return values;
}

/// Appends random tokens to one layer, where they are pending.
inline void append_random(kvlane::Cache &cache, uint32_t layer, int64_t n_tokens, uint32_t seed) {
    const kvl_layer_info info = cache.info(layer);
    cache.append(layer, random_values(static_cast<size_t>(n_tokens) * info.k_entry_size, seed),
                 random_values(static_cast<size_t>(n_tokens) * info.v_entry_size, seed + 1));
}

/// Appends random tokens to every layer and makes them part of the cache.
inline void fill_random(kvlane::Cache &cache, int64_t n_tokens, uint32_t seed) {
    if (n_tokens == 0) {
        return;
    }
    for (uint32_t layer = 0; layer < cache.n_layers(); ++layer) {
        append_random(cache, layer, n_tokens, seed + 2 * layer);
    }
    cache.advance(n_tokens);
}

/// Tells whether two runs of floats are alike bit by bit: NaN equals itself, 0 does not equal -0.
inline bool same_bits(std::span<const float> a, std::span<const float> b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

/// An executor on threads that live for one call.
class ThreadPool {
public:
    explicit ThreadPool(int n_threads) : n_threads_(n_threads) {}
    kvl_executor executor() {
        return {.parallel_for = &parallel_for, .pool = this, .n_threads = static_cast<uint32_t>(n_threads_)};
    }

private:
    static void parallel_for(void *pool, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context) {
        std::atomic<uint32_t> next{0};
        std::vector<std::thread> threads;
        for (int i = 0; i < static_cast<const ThreadPool *>(pool)->n_threads_; ++i) {
            threads.emplace_back([&] {
                for (uint32_t i = next++; i < n_tasks; i = next++) {
                    task(context, i);
                }
            });
        }
        for (std::thread &thread : threads) {
            thread.join();
        }
    }

    int n_threads_;
};

}  // namespace test

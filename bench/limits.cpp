#include "limits.hpp"

#include <benchmark/benchmark.h>
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

#include "timing.hpp"

namespace bench {
namespace {

// A thread's own, on cache lines that no other writes.
struct alignas(128) Sink {
    float value;
    int64_t done;
};

}  // namespace

ReadLimits::ReadLimits(uint64_t bytes, int n_threads, bool cold)
    : n_threads_(std::min(n_threads, omp_get_num_procs())),
      cold_(cold),
      slice_(std::max<size_t>(bytes / static_cast<size_t>(n_threads_) / 256, 1) * 256) {}

// Runs work(i) on every thread at once, and returns the seconds from the first one's start to the last one's end: to wake
// them is no limit of the machine's.
template <class Work>
double ReadLimits::seconds_on_all_threads(bool warm, Work &&work) const {
    double start = std::numeric_limits<double>::infinity();
    double end = 0;
#pragma omp parallel num_threads(n_threads_) reduction(min : start) reduction(max : end)
    {
        const int thread = omp_get_thread_num();
        if (warm) {
            work(thread);
        }
#pragma omp barrier
        start = now();
        work(thread);
        end = now();
    }
    return end - start;
}

void ReadLimits::sample_read() {
    const size_t bytes = slice_ * static_cast<size_t>(n_threads_);
    if (!plane_) {
        plane_.emplace(std::max<uint64_t>(bytes, cold_ ? cold_bytes() : 0));
    }
    const std::byte *data = plane_->next(bytes);
    std::vector<Sink> sinks(static_cast<size_t>(n_threads_));
    const auto read = [&](int i) {
        const auto thread = static_cast<size_t>(i);
        sinks[thread].value = baseline().read(data + thread * slice_, slice_, variant_);
    };
    const double seconds = seconds_on_all_threads(!cold_, read);  // a call in between may have evicted what is to be hot
    benchmark::DoNotOptimize(sinks.data());
    read_rates_[variant_].push_back(static_cast<double>(bytes) / seconds);
    variant_ = (variant_ + 1) % n_read_variants;
}

void ReadLimits::sample_multiply_adds() {
    constexpr int64_t n = 1 << 20;
    std::vector<Sink> sinks(static_cast<size_t>(n_threads_));
    const double seconds = seconds_on_all_threads(false, [&](int i) {
        Sink &sink = sinks[static_cast<size_t>(i)];
        sink.done = baseline().multiply_add(n, &sink.value);
    });
    double done = 0;
    for (const Sink &sink : sinks) {
        done += static_cast<double>(sink.done);
    }
    multiply_add_rates_.push_back(done / seconds);
}

void ReadLimits::sample() {
    sample_read();
    sample_multiply_adds();
}

void ReadLimits::forget() {
    for (auto &rates : read_rates_) {
        rates.clear();
    }
    multiply_add_rates_.clear();
}

double ReadLimits::bytes_per_second() const {
    double best = 0;
    for (const auto &rates : read_rates_) {
        best = std::max(best, median(rates));
    }
    return best;
}

double ReadLimits::multiply_adds_per_second() const { return median(multiply_add_rates_); }

Interlude::Interlude() : weights_(cold_bytes() / 2) {}

void Interlude::pass(std::span<float> rows) {
    const size_t bytes = cold_bytes() / 2;
    benchmark::DoNotOptimize(baseline().read(weights_.next(bytes), bytes, 0));
    std::ranges::transform(rows, rows.begin(), std::negate<>());
}

CopyLimit::CopyLimit(uint64_t bytes_read_and_written) : bytes_(bytes_read_and_written / 2), plane_(bytes_) {}

void CopyLimit::sample(Interlude &interlude, std::span<float> rows) {
    std::byte *to = plane_.next(bytes_);
    interlude.pass(rows);
    const double seconds = seconds_of([&] { std::memcpy(to, rows.data(), bytes_); });
    benchmark::DoNotOptimize(to);
    rates_.push_back(2 * static_cast<double>(bytes_) / seconds);
}

double CopyLimit::bytes_per_second() const { return median(rates_); }

}  // namespace bench

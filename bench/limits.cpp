#include "limits.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

namespace bench {
namespace {

// A thread's own, on cache lines that no other writes.
struct alignas(128) Sink {
    float value;
    int64_t done;
};

// From the first one's start to the last one's end.
double seconds_of_all(const Stretches &stretches) {
    const auto first = std::ranges::min_element(stretches, {}, &Stretch::start);
    const auto last = std::ranges::max_element(stretches, {}, &Stretch::end);
    return last->end - first->start;
}

double concurrency_of(const Stretches &stretches) {
    double computed = 0;
    for (const Stretch &stretch : stretches) {
        computed += stretch.end - stretch.start;
    }
    return computed / (static_cast<double>(stretches.size()) * seconds_of_all(stretches));
}

// Where threads wait for each other to start together. A thread that has no core is not waited for beyond a millisecond,
// many times what it takes to wake one: the sample then says what the machine gave, and nothing hangs. Who waits yields, in
// case that the other is to run on the same core.
class StartLine {
public:
    explicit StartLine(uint32_t n_threads) : n_missing_(n_threads) {}

    void wait() {
        --n_missing_;
        for (const double latest = now() + 1e-3; n_missing_ > 0 && now() < latest;) {
            std::this_thread::yield();
        }
    }

private:
    std::atomic<uint32_t> n_missing_;
};

// Runs work(i) for i < n on the executor's threads.
template <class Work>
void run_on(const kvl_executor &executor, uint32_t n, Work work) {
    executor.parallel_for(
        executor.pool, n, [](void *context, uint32_t i) { (*static_cast<Work *>(context))(i); }, &work);
}

// Memory of that many bytes or more. Rows that follow each other share it: to fill it takes longer than to measure a row.
std::shared_ptr<Plane> shared_plane(uint64_t bytes) {
    static std::shared_ptr<Plane> last;
    if (!last || last->bytes() < bytes) {
        last.reset();  // there is memory for one at a time
        last = std::make_shared<Plane>(bytes);
    }
    return last;
}

}  // namespace

ReadLimits::ReadLimits(uint64_t bytes, const kvl_executor &executor, int n_threads, bool cold)
    : executor_(executor),
      n_threads_(n_threads),
      cold_(cold),
      slice_(std::max<size_t>(bytes / static_cast<size_t>(n_threads_) / 256, 1) * 256) {}

// Runs work(i) on every thread at once, and returns when each did: to wake them is no limit of the machine's.
template <class Work>
Stretches ReadLimits::run_on_all_threads(bool warm, Work &&work) const {
    const auto n = static_cast<uint32_t>(n_threads_);
    Stretches stretches(n);
    StartLine line(n);
    const auto timed = [&](uint32_t i) {
        if (warm) {
            work(i);
        }
        line.wait();
        stretches[i].start = now();
        work(i);
        stretches[i].end = now();
    };
    run_on(executor_, n, timed);
    return stretches;
}

void ReadLimits::sample_read() {
    const size_t bytes = slice_ * static_cast<size_t>(n_threads_);
    if (!plane_) {
        plane_ = shared_plane(std::max<uint64_t>(bytes, cold_ ? cold_bytes() : 0));
    }
    const std::byte *data = plane_->next(bytes);
    std::vector<Sink> sinks(static_cast<size_t>(n_threads_));
    const auto read = [&](uint32_t i) { sinks[i].value = baseline().read(data + i * slice_, slice_, variant_); };
    const double seconds =
        seconds_of_all(run_on_all_threads(!cold_, read));  // a call in between may have evicted what is to be hot
    benchmark::DoNotOptimize(sinks.data());
    read_rates_[variant_].push_back(static_cast<double>(bytes) / seconds);
    variant_ = (variant_ + 1) % n_read_variants;
}

void ReadLimits::sample_multiply_adds() {
    constexpr int64_t n = 1 << 20;
    std::vector<Sink> sinks(static_cast<size_t>(n_threads_));
    const Stretches stretches = run_on_all_threads(false, [&](uint32_t i) {
        Sink &sink = sinks[i];
        sink.done = baseline().multiply_add(n, &sink.value);
    });
    double done = 0;
    for (const Sink &sink : sinks) {
        done += static_cast<double>(sink.done);
    }
    multiply_add_rates_.push_back(done / seconds_of_all(stretches));
    concurrencies_.push_back(concurrency_of(stretches));
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
    concurrencies_.clear();
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

// What a call costs on each thread pool: calls one after the other, calls after a pause, and calls while another program
// takes a core. kvlane-pools [--threads N] [--seconds S] [--at-most RATIO]

#include <sched.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <limits>
#include <numeric>
#include <thread>

#include "buffers.hpp"
#include "kvlane/tbb.hpp"
#include "shape.hpp"
#include "timing.hpp"
#ifdef KVLANE_POOLS_OPENMP
#include "kvlane/openmp.hpp"
#endif

namespace bench {
namespace {

struct Options {
    int threads = tbb::info::default_concurrency();
    double seconds = 0.5;
    double at_most = 0;
};

constexpr int n_rounds = 3;
constexpr auto pause = std::chrono::milliseconds(10);

// The last of the cores that this process may use.
int last_core() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) < 2) {
        return -1;
    }
    int core = CPU_SETSIZE - 1;
    while (!CPU_ISSET(core, &set)) {
        --core;
    }
    return core;
}

// A thread that stays on one core and computes there, as another program might.
class BusyLoop {
public:
    explicit BusyLoop(int core) : thread_([this, core] { run(core); }) {}
    BusyLoop(const BusyLoop &) = delete;
    BusyLoop &operator=(const BusyLoop &) = delete;
    ~BusyLoop() {
        stop_ = true;
        thread_.join();
    }

private:
    void run(int core) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(core, &set);
        sched_setaffinity(0, sizeof set, &set);
        while (!stop_.load(std::memory_order_relaxed)) {
        }
    }

    std::atomic<bool> stop_{false};
    std::thread thread_;
};

// Attention of llama-3-8b in f16 over one layer, which stays in the caches that it fits in.
class Calls {
public:
    Calls(int64_t ctx, uint32_t max_tasks)
        : cache_(1, {.n_kv_heads = model_.n_kv_heads, .head_dim = model_.head_dim}, ctx),
          attention_({model_.n_query_heads, model_.n_kv_heads, model_.head_dim}),
          workspace_(attention_.workspace(1, ctx, 1, max_tasks)),
          q_(normals(size_t{model_.n_query_heads} * model_.head_dim)),
          out_(q_.size()) {
        fill(cache_, ctx);
    }

    // The seconds of every call of a stretch of time.
    std::vector<double> time(const kvl_executor *executor, double seconds, std::chrono::milliseconds before_each = {}) {
        std::vector<double> calls;
        for (const double end = now() + seconds; now() < end;) {
            std::this_thread::sleep_for(before_each);
            calls.push_back(
                seconds_of([&] { attention_.attend(cache_.view(0), q_.data(), out_.data(), workspace_, executor); }));
        }
        return calls;
    }

private:
    Model model_ = model_of("llama-3-8b");
    kvlane::Cache cache_;
    kvlane::Attention attention_;
    kvlane::Workspace workspace_;
    std::vector<float> q_;
    std::vector<float> out_;
};

double mean(const std::vector<double> &values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// By round.
struct Times {
    std::vector<double> quiet, quiet_mean, paused, disturbed, disturbed_mean;

    double median_ratio() const { return median(disturbed) / median(quiet); }
    double mean_ratio() const { return median(disturbed_mean) / median(quiet_mean); }

    // The larger ratio of the round in which it was the least: what else disturbs a machine only adds to it.
    double least_ratio() const {
        double least = std::numeric_limits<double>::infinity();
        for (size_t i = 0; i < quiet.size(); ++i) {
            least = std::min(least, std::max(disturbed[i] / quiet[i], disturbed_mean[i] / quiet_mean[i]));
        }
        return least;
    }
};

struct Pool {
    const char *name;
    const kvl_executor *executor;  // null: the calling thread alone
    Times times;
};

void measure_round(Pool &pool, Calls &calls, double seconds, int core) {
    // Until the last pool's threads sleep, which is 20 ms with GNU's OpenMP.
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    calls.time(pool.executor, seconds / 4);
    const std::vector<double> quiet = calls.time(pool.executor, seconds);
    pool.times.quiet.push_back(median(quiet));
    pool.times.quiet_mean.push_back(mean(quiet));
    pool.times.paused.push_back(median(calls.time(pool.executor, seconds, pause)));
    const BusyLoop other(core);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const std::vector<double> disturbed = calls.time(pool.executor, seconds);
    pool.times.disturbed.push_back(median(disturbed));
    pool.times.disturbed_mean.push_back(mean(disturbed));
}

void print(const Pool &pool, int64_t ctx) {
    const Times &t = pool.times;
    std::printf("%-10s %7lld %9.1f %11.1f %11.1f %11.1f %7.2f %6.2f\n", pool.name, static_cast<long long>(ctx),
                1e6 * median(t.quiet), 1e6 * median(t.paused), 1e6 * median(t.disturbed), 1e6 * median(t.disturbed_mean),
                t.median_ratio(), t.mean_ratio());
    std::fflush(stdout);
}

// Returns the ratio of the default pool in its best round.
double measure_all(std::vector<Pool> &pools, int64_t ctx, double seconds, int core) {
    uint32_t max_tasks = 1;
    for (const Pool &pool : pools) {
        max_tasks = std::max(max_tasks, kvlane::max_tasks(pool.executor));
    }
    Calls calls(ctx, max_tasks);
    for (int round = 0; round < n_rounds; ++round) {
        for (Pool &pool : pools) {
            measure_round(pool, calls, seconds, core);
        }
    }
    for (const Pool &pool : pools) {
        print(pool, ctx);
    }
    return pools.front().times.least_ratio();
}

int run(const Options &options) {
    const int core = last_core();
    if (core < 0) {
        std::puts("skipped: one core alone has none to be taken");
        return 0;
    }
    kvlane::TbbPool tbb_pool(options.threads);
    const kvl_executor tbb = tbb_pool.executor();
    std::vector<Pool> pools{{"oneTBB", &tbb, {}}};
#ifdef KVLANE_POOLS_OPENMP
    kvlane::OpenMpPool openmp_pool(options.threads);
    const kvl_executor openmp = openmp_pool.executor();
    pools.push_back({"OpenMP", &openmp, {}});
#endif
    pools.push_back({"one thread", nullptr, {}});
    std::printf("llama-3-8b in f16, isa %s, %d threads; microseconds of a call\n\n", kvlane::isa_in_force(),
                tbb_pool.n_threads());
    std::printf("%-10s %7s %9s %11s %11s %11s %7s %6s\n", "pool", "context", "median", "after 10 ms", "core taken",
                "its mean", "x median", "x mean");
    double largest = 0;
    for (const int64_t ctx : {512, 8192}) {
        std::vector<Pool> measured = pools;
        largest = std::max(largest, measure_all(measured, ctx, options.seconds, core));
    }
    std::puts(
        "\nafter 10 ms: of calls 10 ms apart.  core taken: while a busy loop runs on one core.\n"
        "x median, x mean: times as long as without it.");
    if (options.at_most > 0 && largest > options.at_most) {
        std::printf("oneTBB's calls take %.2f times as long; %.2f is asked for\n", largest, options.at_most);
        return 1;
    }
    return 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char **argv) {
    bench::Options options;
    CLI::App app("What a taken core costs calls of each thread pool", "kvlane-pools");
    app.add_option("--threads", options.threads, "Threads of a call")->check(CLI::Range(1, 1024))->capture_default_str();
    app.add_option("--seconds", options.seconds, "How long each figure is measured in each of three rounds")
        ->check(CLI::Range(0.01, 60.0))
        ->capture_default_str();
    app.add_option("--at-most", options.at_most,
                   "Fail where a taken core costs oneTBB's calls more, median or mean, in every round")
        ->check(CLI::PositiveNumber);
    CLI11_PARSE(app, argc, argv);
    try {
        return bench::run(options);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "kvlane-pools: %s\n", error.what());
        return 1;
    }
}

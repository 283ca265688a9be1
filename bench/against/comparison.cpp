#include "comparison.hpp"

#include <benchmark/benchmark.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <optional>
#include <thread>

#include "../timing.hpp"
#include "label.hpp"

namespace against {
namespace {

constexpr size_t least_pairs = 15;

// What is run at once on one side. Calls on several threads find the side's pool as the call before left it: those that
// wake it are left out.
struct Turn {
    bool has_pool;
    int n_left_out;
    size_t n_timed;
};

Turn turn_of(const std::string &label) {
    const std::optional<Label> l = parsed(label);
    return l && l->threads == "1" ? Turn{false, 0, 1} : Turn{true, 2, 5};
}

double process_seconds() {
    timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Threads of a pool look for work for a while when a call is over, and would take the cores from the other side's. Waits
// until they sleep, but not for ever: a pool may be told to keep its threads awake.
void wait_for_sleep() {
    constexpr double look = 1e-3, awake = 0.2e-3;
    for (const double latest = bench::now() + 0.1; bench::now() < latest;) {
        const double before = process_seconds();
        std::this_thread::sleep_for(std::chrono::duration<double>(look));
        if (process_seconds() - before < awake) {
            return;
        }
    }
}

double run(Side &side, const Turn &turn) {
    if (turn.has_pool) {
        wait_for_sleep();
    }
    for (int i = 0; i < turn.n_left_out; ++i) {
        side.step();
    }
    std::vector<double> seconds(turn.n_timed);
    std::ranges::generate(seconds, [&] { return side.step(); });
    return bench::median(seconds);
}

// Makes both sides' memory as cold: of what the second one has filled, much would still be in the last-level cache.
void evict() {
    constexpr int64_t least = 256 << 20, most = int64_t{2048} << 20;
    static std::vector<char> memory(
        static_cast<size_t>(std::clamp<int64_t>(2 * sysconf(_SC_LEVEL3_CACHE_SIZE), least, most)));
    std::ranges::fill(memory, static_cast<char>(memory.front() + 1));
    benchmark::DoNotOptimize(memory.data());
}

// What the machine needs at least, of the working tree's time in the last repetition, whose pairs begin at first: the
// counters are of calls that turns left out, too.
double limit_fraction_of(const Comparison &c, size_t first) {
    const std::vector<double> seconds(c.tree_seconds.begin() + static_cast<std::ptrdiff_t>(first), c.tree_seconds.end());
    return c.tree_counters.at("limit_fraction") * c.tree_counters.at("median_seconds") / bench::median(seconds);
}

bool reads_memory(const Counters &counters) {
    return !counters.contains("roofline_fraction") || counters.at("roofline_fraction") >= counters.at("limit_fraction");
}

// What a call takes depends on where in memory its rows lie by several percent: both are made anew, and by turns the one or
// the other gets its memory first.
void open_both(const std::string &label, Side &first, Side &second) {
    first.forget();
    second.forget();
    first.open(label);
    second.open(label);
    if (label.ends_with("/cold")) {
        evict();
    }
}

// The first one of a pair is the second of the next.
void run_pairs(Side &tree, Side &revision, const Turn &turn, size_t least, double min_seconds, Comparison &c) {
    const double end = bench::now() + min_seconds;
    for (size_t i = 0; i < least || bench::now() < end; ++i) {
        const bool tree_first = i % 2 == 0;
        const double first = run(tree_first ? tree : revision, turn);
        const double second = run(tree_first ? revision : tree, turn);
        c.tree_seconds.push_back(tree_first ? first : second);
        c.revision_seconds.push_back(tree_first ? second : first);
        c.ratios.push_back(c.tree_seconds.back() / c.revision_seconds.back());
    }
}

}  // namespace

Comparison compare(const std::string &label, Side &tree, Side &revision, const Effort &effort) {
    Comparison c{};
    c.label = label;
    const auto n = static_cast<size_t>(effort.repetitions);
    for (size_t i = 0; i < n; ++i) {
        const bool tree_first = i % 2 == 0;
        const size_t first = c.ratios.size();
        open_both(label, tree_first ? tree : revision, tree_first ? revision : tree);
        run_pairs(tree, revision, turn_of(label), (least_pairs + n - 1) / n, effort.min_seconds / effort.repetitions, c);
        c.tree_counters = tree.close();
        c.revision_counters = revision.close();
        c.limit_fraction += limit_fraction_of(c, first) / effort.repetitions;
    }
    c.reads_memory = reads_memory(c.tree_counters);
    return c;
}

}  // namespace against

#pragma once

// Included before each source of kvlane-bench, of whatever version: for these, namespace benchmark is one whose loops wait
// before every iteration until someone asks for it. A version's benchmarks may use no other names of that namespace.

#include <benchmark/benchmark.h>

#include <functional>
#include <map>
#include <string>

namespace stepped {

using benchmark::kMicrosecond;
using benchmark::TimeUnit;

// Whether another iteration is to be run; waits to be told.
bool next_iteration();

void set_iteration_time(double seconds);

class State {
public:
    struct [[maybe_unused]] Iteration {};
    struct Iterator {
        bool operator!=(const Iterator & /*end*/) const { return next_iteration(); }
        void operator++() {}
        Iteration operator*() const { return {}; }
    };

    Iterator begin() { return {}; }
    Iterator end() { return {}; }
    void SetIterationTime(double seconds) { set_iteration_time(seconds); }

    std::map<std::string, double> counters;
};

// How long a benchmark takes is the caller's to say.
class Benchmark {
public:
    Benchmark *UseManualTime() { return this; }
    Benchmark *Unit(TimeUnit /*unit*/) { return this; }
    Benchmark *MinTime(double /*seconds*/) { return this; }
};

Benchmark *RegisterBenchmark(const char *label, std::function<void(State &)> run);
void AddCustomContext(const std::string &key, const std::string &value);
void RunSpecifiedBenchmarks();
inline void Initialize(int * /*argc*/, char ** /*argv*/) {}
inline bool ReportUnrecognizedArguments(int /*argc*/, char ** /*argv*/) { return false; }
inline void Shutdown() {}

}  // namespace stepped

#define benchmark stepped

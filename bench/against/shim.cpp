// Runs the benchmarks of one version of kvlane-bench, iteration by iteration.

#include "shim.hpp"

#include <exception>
#include <semaphore>
#include <thread>
#include <vector>

#include "stepped.hpp"

// kvlane-bench's own, of this shared object: C++ lets no one call it by its name.
int main_of_bench(int argc, char **argv) __asm__("main");

namespace against {
namespace {

struct Registered {
    std::string label;
    std::function<void(stepped::State &)> run;
};

enum class Order { open, step, close, stop };

// kvlane-bench's main runs in a thread of its own. Whenever it has done what it was told, it waits for the next order, and
// the caller goes on; the two never run at the same time.
class Stage {
public:
    // The caller's.
    const char *start();
    const char *obey(Order order);
    const char *open(size_t i);
    void stop();

    // The thread's.
    Order next_order();
    void run_benchmarks();

    std::vector<Registered> registered;
    std::map<std::string, std::string> context;
    std::map<std::string, double> counters;
    double seconds = 0;

private:
    void run_main();

    std::thread thread_;
    std::binary_semaphore ordered_{0};
    std::binary_semaphore done_{0};
    Order order_ = Order::stop;
    size_t opened_ = 0;
    std::string error_;
};

void Stage::run_main() {
    char name[] = "kvlane-bench";
    char *argv[] = {name, nullptr};
    try {
        main_of_bench(1, argv);
        error_ = "its kvlane-bench runs no benchmarks";
    } catch (const std::exception &error) {
        error_ = error.what();
    }
    done_.release();
}

const char *Stage::start() {
    thread_ = std::thread(&Stage::run_main, this);
    done_.acquire();
    if (error_.empty()) {
        return nullptr;
    }
    thread_.join();
    return error_.c_str();
}

const char *Stage::obey(Order order) {
    error_.clear();
    order_ = order;
    ordered_.release();
    done_.acquire();
    return error_.empty() ? nullptr : error_.c_str();
}

const char *Stage::open(size_t i) {
    opened_ = i;
    return obey(Order::open);
}

void Stage::stop() {
    obey(Order::stop);
    thread_.join();
}

Order Stage::next_order() {
    done_.release();
    ordered_.acquire();
    return order_;
}

void Stage::run_benchmarks() {
    while (next_order() == Order::open) {
        stepped::State state;
        try {
            registered.at(opened_).run(state);
        } catch (const std::exception &error) {
            error_ = error.what();
        }
        counters = state.counters;
    }
}

Stage stage;

}  // namespace
}  // namespace against

namespace stepped {

bool next_iteration() { return against::stage.next_order() == against::Order::step; }

void set_iteration_time(double seconds) { against::stage.seconds = seconds; }

Benchmark *RegisterBenchmark(const char *label, std::function<void(State &)> run) {
    static Benchmark any;
    against::stage.registered.push_back({label, std::move(run)});
    return &any;
}

void AddCustomContext(const std::string &key, const std::string &value) { against::stage.context[key] = value; }

void RunSpecifiedBenchmarks() { against::stage.run_benchmarks(); }

}  // namespace stepped

extern "C" __attribute__((visibility("default"))) const against::Shim *kvlane_against_shim() {
    using against::Order, against::stage;
    static constexpr against::Shim shim = {
        .start = [] { return stage.start(); },
        .stop = [] { stage.stop(); },
        .label = [](size_t i) { return i < stage.registered.size() ? stage.registered[i].label.c_str() : nullptr; },
        .context =
            [](const char *key) {
                const auto found = stage.context.find(key);
                return found == stage.context.end() ? nullptr : found->second.c_str();
            },
        .open = [](size_t i) { return stage.open(i); },
        .step =
            [](double *seconds) {
                const char *error = stage.obey(Order::step);
                *seconds = stage.seconds;
                return error;
            },
        .close = [] { return stage.obey(Order::close); },
        .counter =
            [](const char *name, double *value) {
                const auto found = stage.counters.find(name);
                const bool has = found != stage.counters.end();
                *value = has ? found->second : 0;
                return has;
            },
    };
    return &shim;
}

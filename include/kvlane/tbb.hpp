// Runs kvlane's tasks on oneTBB's threads. Link kvlane::tbb.
#ifndef KVLANE_TBB_HPP
#define KVLANE_TBB_HPP

#include <tbb/blocked_range.h>
#include <tbb/info.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>

#include "kvlane.h"

namespace kvlane {

/// An executor on an arena of oneTBB's threads: of n_threads, or of oneTBB's own choice at 0; at most one a processor, which
/// is all that oneTBB starts, with a warning on stderr where more are asked for. The pool for programs that share their
/// machine: the demo, the benchmarks and the examples run on it.
/// Pre:    the pool outlives the executor
/// Threads: the calling thread takes part, and waits for tasks that are being run, never for a thread that has run none;
///         where another program takes a core, a call loses about that core. Idle threads spin for a bounded time, then
///         sleep; the first call after a pause wakes them, and takes up to about the time of one thread
class TbbPool {
public:
    explicit TbbPool(int n_threads = 0)
        : arena_(n_threads > 0 ? std::min(n_threads, tbb::info::default_concurrency()) : tbb::task_arena::automatic) {}

    TbbPool(const TbbPool &) = delete;
    TbbPool &operator=(const TbbPool &) = delete;

    kvl_executor executor() { return {&parallel_for, this}; }

    /// Threads of a call, the calling one included.
    int n_threads() const { return arena_.max_concurrency(); }

private:
    // The default partitioner halves the range until there are four runs for each thread. A thread goes through its own ones
    // in ascending order, and takes one from the far end of another's when it has none left: it mostly goes on in memory
    // where the task before it ended.
    static void parallel_for(void *pool, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context) {
        static_cast<TbbPool *>(pool)->arena_.execute([=] {
            tbb::parallel_for(tbb::blocked_range<uint32_t>(0, n_tasks), [=](const tbb::blocked_range<uint32_t> &range) {
                for (uint32_t i = range.begin(); i < range.end(); ++i) {
                    task(context, i);
                }
            });
        });
    }

    tbb::task_arena arena_;
};

}  // namespace kvlane

#endif

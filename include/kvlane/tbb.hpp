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

/// An executor on an arena of oneTBB's threads: of n_threads, or of oneTBB's default at 0, but at most as many as there are
/// processors. Recommended for programs that share the machine with others.
/// Pre:    the pool outlives the executor
/// Threads: the calling thread also runs tasks. At the end it waits only for tasks that workers have started, not for
///         workers that have not been scheduled. Idle threads spin for a bounded time, then sleep; the first call after a
///         pause wakes them, and may take as long as on one thread
class TbbPool {
public:
    /// Of n_threads threads, or of oneTBB's default at 0.
    explicit TbbPool(int n_threads = 0)
        : arena_(n_threads > 0 ? std::min(n_threads, tbb::info::default_concurrency()) : tbb::task_arena::automatic) {}

    TbbPool(const TbbPool &) = delete;
    TbbPool &operator=(const TbbPool &) = delete;

    /// Returns the executor, which is valid as long as the pool.
    kvl_executor executor() {
        kvl_executor executor = kvl_executor_init();
        executor.parallel_for = &parallel_for;
        executor.pool = this;
        executor.n_threads = static_cast<uint32_t>(n_threads());
        return executor;
    }

    /// Maximum number of threads that run a call, the calling one included.
    int n_threads() const { return arena_.max_concurrency(); }

private:
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

// Runs kvlane's tasks on OpenMP's threads. Link kvlane::openmp.
#ifndef KVLANE_OPENMP_HPP
#define KVLANE_OPENMP_HPP

#include <omp.h>

#include <algorithm>

#include "kvlane.h"

namespace kvlane {

/// An executor on a team of OpenMP threads: of n_threads, or of OpenMP's own choice at 0; at most one a processor, because a
/// call waits for every thread of its team, also for one that has no processor and no task left.
/// For programs that are parallel in OpenMP already, whose team then serves both. Others do better with TbbPool.
/// Pre:    the pool outlives the executor
/// Threads: a call waits for every thread of its team, also for one that another program keeps from running: it then takes
///         whole time slices of the scheduler, 4 to 8 ms on Linux, instead of microseconds. What makes that frequent is that
///         waiting threads spin and so hold cores that others need: GNU's for 300000 turns, up to 20 ms, by default. Where
///         the machine is shared, or the program has threads besides, set GOMP_SPINCOUNT=1000 (GNU's) or KMP_BLOCKTIME=0
///         (LLVM's) in the environment: threads then spin for microseconds and sleep. OMP_WAIT_POLICY=passive lets them
///         sleep at once, and adds the time to wake them to every call
class OpenMpPool {
public:
    explicit OpenMpPool(int n_threads = 0)
        : n_threads_(std::min(n_threads > 0 ? n_threads : omp_get_max_threads(), omp_get_num_procs())) {}

    OpenMpPool(const OpenMpPool &) = delete;
    OpenMpPool &operator=(const OpenMpPool &) = delete;

    kvl_executor executor() { return {&parallel_for, this}; }

private:
    static void parallel_for(void *pool, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context) {
        // A task mostly goes on in memory where the one before it ends, so a thread takes runs of them; four for each thread
        // are enough to even out what threads are slower at.
        const int n_threads = static_cast<const OpenMpPool *>(pool)->n_threads_;
        const uint32_t run = std::max(1u, n_tasks / (4 * static_cast<uint32_t>(n_threads)));
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, run)
        for (uint32_t i = 0; i < n_tasks; ++i) {
            task(context, i);
        }
    }

    int n_threads_;
};

}  // namespace kvlane

#endif

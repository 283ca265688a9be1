// Runs kvlane's tasks on OpenMP's threads. Link kvlane::openmp.
#ifndef KVLANE_OPENMP_HPP
#define KVLANE_OPENMP_HPP

#include <omp.h>

#include <algorithm>

#include "kvlane.h"

namespace kvlane {

/// An executor on a team of OpenMP threads: of n_threads, or of OpenMP's default at 0, but at most as many as there are
/// processors. For programs that already use OpenMP, so that both share one set of threads; otherwise use TbbPool.
/// Pre:    the pool outlives the executor
/// Threads: a call waits for every thread of the team, even one that has been preempted, which delays it by up to a time
///         slice of the scheduler. That happens often on a shared machine, because idle threads spin and occupy cores that
///         others need. GOMP_SPINCOUNT=1000 (GNU) or KMP_BLOCKTIME=0 (LLVM) in the environment bounds the spinning;
///         OMP_WAIT_POLICY=passive disables it, and every call then pays for waking the threads
class OpenMpPool {
public:
    explicit OpenMpPool(int n_threads = 0)
        : n_threads_(std::min(n_threads > 0 ? n_threads : omp_get_max_threads(), omp_get_num_procs())) {}

    OpenMpPool(const OpenMpPool &) = delete;
    OpenMpPool &operator=(const OpenMpPool &) = delete;

    kvl_executor executor() { return {&parallel_for, this, static_cast<uint32_t>(n_threads_)}; }

private:
    static void parallel_for(void *pool, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context) {
        const int n_threads = static_cast<const OpenMpPool *>(pool)->n_threads_;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic)
        for (uint32_t i = 0; i < n_tasks; ++i) {
            task(context, i);
        }
    }

    int n_threads_;
};

}  // namespace kvlane

#endif

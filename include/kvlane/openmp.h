/* Runs kvlane's tasks on OpenMP's threads. C99 and C++; compile and link with OpenMP. */
#ifndef KVLANE_OPENMP_H
#define KVLANE_OPENMP_H

#include <omp.h>

#include "kvlane.h"

/// The kvl_parallel_for of kvl_openmp_executor; its pool is the number of threads.
static inline void kvl_openmp_parallel_for(void *pool, uint32_t n_tasks, void (*task)(void *context, uint32_t i),
                                           void *context) {
    const int n_threads = (int)(intptr_t)pool;
    int64_t i;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic)
    for (i = 0; i < (int64_t)n_tasks; ++i) {
        task(context, (uint32_t)i);
    }
}

/// Returns an executor on a team of OpenMP threads: of n_threads, or of OpenMP's default at 0, but at most as many as there
/// are processors. For programs that already use OpenMP, so that both share one set of threads.
/// Threads: a call waits for every thread of the team, even one that has been preempted, which delays it by up to a time
///         slice of the scheduler. That happens often on a shared machine, because idle threads spin and occupy cores that
///         others need. GOMP_SPINCOUNT=1000 (GNU) or KMP_BLOCKTIME=0 (LLVM) in the environment bounds the spinning;
///         OMP_WAIT_POLICY=passive disables it, and every call then pays for waking the threads
static inline kvl_executor kvl_openmp_executor(int n_threads) {
    const int wanted = n_threads > 0 ? n_threads : omp_get_max_threads(), most = omp_get_num_procs();
    const int used = wanted < most ? wanted : most;
    kvl_executor executor = kvl_executor_init();
    executor.parallel_for = kvl_openmp_parallel_for;
    executor.pool = (void *)(intptr_t)used;
    executor.n_threads = (uint32_t)used;
    return executor;
}

#endif

// Runs kvlane's tasks on OpenMP's threads. Link kvlane::openmp.
#ifndef KVLANE_OPENMP_HPP
#define KVLANE_OPENMP_HPP

#include <omp.h>

#include "kvlane.h"

namespace kvlane {

/// An executor on a team of OpenMP threads: of n_threads, or of OpenMP's own choice at 0.
/// Pre:    the pool outlives the executor
class OpenMpPool {
public:
    explicit OpenMpPool(int n_threads = 0) : n_threads_(n_threads > 0 ? n_threads : omp_get_max_threads()) {}

    OpenMpPool(const OpenMpPool &) = delete;
    OpenMpPool &operator=(const OpenMpPool &) = delete;

    kvl_executor executor() { return {&parallel_for, this}; }

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

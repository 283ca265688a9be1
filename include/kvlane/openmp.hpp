// Runs kvlane's tasks on OpenMP's threads. Link kvlane::openmp.
#ifndef KVLANE_OPENMP_HPP
#define KVLANE_OPENMP_HPP

#include "openmp.h"

namespace kvlane {

/// An executor on a team of OpenMP threads, see kvl_openmp_executor. For programs that already use OpenMP; otherwise use
/// TbbPool.
class OpenMpPool {
public:
    /// Of n_threads threads, or of OpenMP's default at 0.
    explicit OpenMpPool(int n_threads = 0) : executor_(kvl_openmp_executor(n_threads)) {}

    /// Returns the executor.
    kvl_executor executor() const { return executor_; }

private:
    kvl_executor executor_;
};

}  // namespace kvlane

#endif

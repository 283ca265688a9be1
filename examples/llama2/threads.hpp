#pragma once

#include <kvlane/kvlane.hpp>

#include <stdexcept>
#include <string>

#if defined(KVLANE_LLAMA2_TBB)
#include <kvlane/tbb.hpp>
#elif defined(KVLANE_LLAMA2_OPENMP)
#include <kvlane/openmp.hpp>
#endif

namespace llama2 {

#if defined(KVLANE_LLAMA2_TBB) || defined(KVLANE_LLAMA2_OPENMP)

// oneTBB's, where the build has it: a call does not wait for threads that other programs keep from running.
#if defined(KVLANE_LLAMA2_TBB)
using Pool = kvlane::TbbPool;
#else
using Pool = kvlane::OpenMpPool;
#endif

/// The threads of a run, as kvlane and the matrix products take them.
class Threads {
public:
    explicit Threads(int n_threads) : n_threads_(n_threads), pool_(n_threads), executor_(pool_.executor()) {}
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

    /// Null for one thread: the calling one.
    const kvl_executor *executor() const { return n_threads_ > 1 ? &executor_ : nullptr; }

private:
    int n_threads_;
    Pool pool_;
    kvl_executor executor_;
};

#else

/// The calling thread alone, in a build without oneTBB and OpenMP.
class Threads {
public:
    explicit Threads(int n_threads) {
        if (n_threads > 1) {
            throw std::runtime_error("--threads is " + std::to_string(n_threads) +
                                     "; it must be 1 in this build, which has neither oneTBB nor OpenMP");
        }
    }

    const kvl_executor *executor() const { return nullptr; }
};

#endif

}  // namespace llama2

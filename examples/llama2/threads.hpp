#pragma once

#include <kvlane/kvlane.hpp>

#include <stdexcept>
#include <string>

#ifdef KVLANE_LLAMA2_OPENMP
#include <kvlane/openmp.hpp>
#endif

namespace llama2 {

#ifdef KVLANE_LLAMA2_OPENMP

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
    kvlane::OpenMpPool pool_;
    kvl_executor executor_;
};

#else

/// The calling thread alone, in a build without OpenMP.
class Threads {
public:
    explicit Threads(int n_threads) {
        if (n_threads > 1) {
            throw std::runtime_error("--threads is " + std::to_string(n_threads) +
                                     "; it must be 1 in this build, which has no OpenMP");
        }
    }

    const kvl_executor *executor() const { return nullptr; }
};

#endif

}  // namespace llama2

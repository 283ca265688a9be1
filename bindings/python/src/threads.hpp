// A pool of threads for attention.
#ifndef KVLANE_PYTHON_THREADS_HPP
#define KVLANE_PYTHON_THREADS_HPP

#include <condition_variable>
#include <cstdint>
#include <kvlane/kvlane.hpp>
#include <mutex>
#include <thread>
#include <vector>

namespace kvlane::python {

/// n_threads threads that run the tasks of a call, the calling thread among them. Concurrent calls take turns. Threads know
/// nothing of Python. At the end of a call, the calling thread waits only for tasks that others have begun. A process that
/// is forked has no threads of its parent's pools, and must not use these.
class Threads {
public:
    /// Starts n_threads - 1 threads; 0 selects the number of processors.
    /// Errors: KVL_ERROR_RANGE when n_threads is over KVL_MAX_TASKS; KVL_ERROR_MEMORY when the system starts no more threads
    explicit Threads(uint32_t n_threads);
    ~Threads();

    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

    uint32_t n_threads() const { return static_cast<uint32_t>(workers_.size()) + 1; }

    kvl_executor executor() { return {&Threads::parallel_for, this, n_threads()}; }

private:
    static void parallel_for(void *pool, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context);

    void work();
    void stop();
    void run_tasks(std::unique_lock<std::mutex> &lock);

    std::mutex call_;   // held during a call
    std::mutex mutex_;  // guards what follows
    std::condition_variable tasks_left_;
    std::condition_variable all_done_;
    void (*task_)(void *, uint32_t) = nullptr;
    void *context_ = nullptr;
    uint32_t n_tasks_ = 0;  // of the current call
    uint32_t next_ = 0;     // first task that no thread has begun
    uint32_t n_done_ = 0;
    bool ends_ = false;
    std::vector<std::thread> workers_;
};

}  // namespace kvlane::python

#endif

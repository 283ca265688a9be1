#include "threads.hpp"

#include <algorithm>
#include <string>
#include <system_error>

namespace kvlane::python {

Threads::Threads(uint32_t n_threads) {
    const uint32_t n = n_threads ? n_threads : std::max(1U, std::thread::hardware_concurrency());
    if (n > KVL_MAX_TASKS) {
        throw Error(KVL_ERROR_RANGE,
                    "n_threads is " + std::to_string(n) + "; it must be at most " + std::to_string(KVL_MAX_TASKS));
    }
    try {
        workers_.reserve(n - 1);
        for (uint32_t i = 1; i < n; ++i) {
            workers_.emplace_back([this] { work(); });
        }
    } catch (const std::system_error &error) {
        const std::string n_started = std::to_string(workers_.size());
        stop();
        throw Error(KVL_ERROR_MEMORY, "n_threads is " + std::to_string(n) + "; the system started " + n_started +
                                          " threads and no more: " + error.what());
    }
}

Threads::~Threads() { stop(); }

void Threads::stop() {
    {
        const std::lock_guard lock(mutex_);
        ends_ = true;
    }
    tasks_left_.notify_all();
    for (std::thread &worker : workers_) {
        worker.join();
    }
}

// Runs tasks of the current call until all have been begun. The lock is held except while a task runs.
void Threads::run_tasks(std::unique_lock<std::mutex> &lock) {
    while (next_ < n_tasks_) {
        const uint32_t i = next_++;
        lock.unlock();
        task_(context_, i);
        lock.lock();
        if (++n_done_ == n_tasks_) {
            all_done_.notify_one();
        }
    }
}

void Threads::work() {
    std::unique_lock lock(mutex_);
    while (true) {
        tasks_left_.wait(lock, [this] { return ends_ || next_ < n_tasks_; });
        if (ends_) {
            return;
        }
        run_tasks(lock);
    }
}

void Threads::parallel_for(void *pool, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context) {
    Threads &self = *static_cast<Threads *>(pool);
    const std::lock_guard call(self.call_);
    std::unique_lock lock(self.mutex_);
    self.task_ = task;
    self.context_ = context;
    self.n_tasks_ = n_tasks;
    self.next_ = 0;
    self.n_done_ = 0;
    if (n_tasks > 1) {
        self.tasks_left_.notify_all();
    }
    self.run_tasks(lock);
    self.all_done_.wait(lock, [&self] { return self.n_done_ == self.n_tasks_; });
}

}  // namespace kvlane::python

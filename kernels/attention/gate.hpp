#pragma once

// The task function passed to a call's executor. It ensures that no task accesses the call's memory after the call has
// returned: an executor may skip tasks, or throw, and run the remaining tasks later.

#include <atomic>
#include <cstdint>

namespace kvlane {

// Admits the tasks of one call until it is closed. Gates lie in static memory, so that late tasks can access them at any
// time. Each gate serves one call after another; a ticket identifies tasks of earlier calls.
class Gate {
public:
    // Opens a gate for the call that was begun in the workspace; null if all gates are in use.
    static Gate *open(void *workspace);

    // Waits for the tasks that are inside; admits none from then on.
    void close();

    // The context to pass to run_task for this call's tasks.
    void *ticket();

    // Runs a task of the ticket's call, unless the gate of that call is closed.
    static void run_task(void *ticket, uint32_t task);

private:
    bool enter(uint64_t call);
    void leave();

    // The call's number, from bit 32 on; whether the gate is taken and open; and the number of tasks inside.
    std::atomic<uint64_t> state_{0};
    std::atomic<void *> workspace_{nullptr};
};

}  // namespace kvlane

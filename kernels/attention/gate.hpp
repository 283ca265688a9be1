#pragma once

// What a call's executor is handed, so that no task touches the call's memory once the call has returned: an executor may
// leave out a task, or throw, and run what is left of it later.

#include <atomic>
#include <cstdint>

namespace kvlane {

// Lets the tasks of one call in until it is closed. Gates lie in static memory, where late tasks find them at any time;
// each serves one call after another, and a task of an earlier one is told by its ticket.
class Gate {
public:
    // A gate for the call that was begun in the workspace; null where as many calls are running as there are gates.
    static Gate *open(void *workspace);

    // Waits for the tasks that are inside; from then on none gets in.
    void close();

    // The context of this call's tasks, for run_task.
    void *ticket();

    // Runs a task of the call that the ticket is of, unless that call's gate is closed.
    static void run_task(void *ticket, uint32_t task);

private:
    bool enter(uint64_t call);
    void leave();

    // The call's number, from bit 32 on; whether the gate is taken and open; and the tasks that are inside.
    std::atomic<uint64_t> state_{0};
    std::atomic<void *> workspace_{nullptr};
};

}  // namespace kvlane

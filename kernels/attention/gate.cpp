#include "gate.hpp"

#include <iterator>

#include "kvlane/kvlane.h"

namespace kvlane {
namespace {

constexpr uint64_t is_open = uint64_t{1} << 31;
constexpr uint64_t is_taken = uint64_t{1} << 30;
constexpr uint64_t n_inside = is_taken - 1;
constexpr int call_shift = 32;

struct alignas(64) Slot {
    Gate gate;
};
Slot slots[KVL_MAX_EXECUTOR_CALLS];

}  // namespace

Gate *Gate::open(void *workspace) {
    for (Slot &slot : slots) {
        Gate &gate = slot.gate;
        uint64_t state = gate.state_.load(std::memory_order_relaxed);
        const uint64_t taken = ((state >> call_shift) + 1) << call_shift | is_taken;
        if (!(state & is_taken) && gate.state_.compare_exchange_strong(state, taken, std::memory_order_acquire)) {
            gate.workspace_.store(workspace, std::memory_order_relaxed);
            gate.state_.store(taken | is_open, std::memory_order_release);
            return &gate;
        }
    }
    return nullptr;
}

void Gate::close() {
    state_.fetch_and(~is_open, std::memory_order_relaxed);
    for (uint64_t state; (state = state_.load(std::memory_order_acquire)) & n_inside;) {
        state_.wait(state, std::memory_order_acquire);
    }
    state_.fetch_and(~is_taken, std::memory_order_release);
}

// A pointer's bits: the call's number, as many as there is room for, and the slot's.
void *Gate::ticket() {
    const auto slot = static_cast<uintptr_t>(reinterpret_cast<Slot *>(this) - slots);
    const auto call = static_cast<uintptr_t>(state_.load(std::memory_order_relaxed) >> call_shift);
    return reinterpret_cast<void *>(call * std::size(slots) + slot);
}

void Gate::run_task(void *ticket, uint32_t task) {
    const auto number = reinterpret_cast<uintptr_t>(ticket);
    Gate &gate = slots[number % std::size(slots)].gate;
    if (gate.enter(number / std::size(slots))) {
        (void)kvl_attend_run_task(gate.workspace_.load(std::memory_order_relaxed), task);
        gate.leave();
    }
}

bool Gate::enter(uint64_t call) {
    constexpr uint64_t known = UINTPTR_MAX / std::size(slots) < UINT32_MAX ? UINTPTR_MAX / std::size(slots) : UINT32_MAX;
    uint64_t state = state_.load(std::memory_order_relaxed);
    do {
        if (!(state & is_open) || ((state >> call_shift) & known) != call) {
            return false;
        }
    } while (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire));
    return true;
}

void Gate::leave() {
    const uint64_t state = state_.fetch_sub(1, std::memory_order_release);
    if (!(state & is_open)) {
        state_.notify_all();
    }
}

}  // namespace kvlane

#pragma once

// Work items that any number of tasks compute concurrently, and whose results are folded one after another, in order.

#include <atomic>
#include <cstdint>
#include <new>

namespace kvlane {

// A ring of result slots: item i uses slot i modulo the number of slots. An item may be claimed once its slot is free, so
// the memory of results does not grow with the number of items. A task that finds the slot taken need not wait: the task
// that holds the oldest item goes on to claim the others.
//
// An item is folded by the task that computed it if all items before it are folded by then, else by the task that folds
// those items. Each of the two makes one atomic exchange on the slot's state to decide which: no locks, no waiting.
class ReorderBuffer {
public:
    using State = std::atomic<uint8_t>;
    static constexpr uint64_t none = UINT64_MAX;

    // states: memory for n_slots states; n_slots is at least 1 if there are items.
    ReorderBuffer(State *states, uint32_t n_slots, uint64_t n_items)
        : states_(states), n_slots_(n_slots), n_items_(n_items) {
        for (uint32_t slot = 0; slot < n_slots; ++slot) {
            new (&states[slot]) State(slot == 0 ? turn : pending);
        }
    }

    // Makes all items unclaimed again, once all are folded.
    void restart() {
        for (uint32_t slot = 0; slot < n_slots_; ++slot) {
            states_[slot].store(slot == 0 ? turn : pending, std::memory_order_relaxed);
        }
        next_.store(0, std::memory_order_relaxed);
        n_folded_.store(0, std::memory_order_relaxed);
    }

    uint64_t n_items() const { return n_items_; }
    uint32_t slot_of(uint64_t item) const { return static_cast<uint32_t>(item % n_slots_); }

    // Claims the next item; `none` if all items are claimed or the next item's slot is taken.
    uint64_t claim() {
        uint64_t item = next_.load(std::memory_order_relaxed);
        do {
            if (item >= n_items_ || item >= n_folded_.load(std::memory_order_acquire) + n_slots_) {
                return none;
            }
        } while (!next_.compare_exchange_weak(item, item + 1, std::memory_order_relaxed));
        return item;
    }

    // Records that the item's result is in its slot. Calls fold(i) for each item i that this task now has to fold: the item
    // itself if all items before it are folded, then the following items whose results are ready.
    template <class Fold>
    void complete(uint64_t item, Fold &&fold) {
        if (states_[slot_of(item)].exchange(computed, std::memory_order_acq_rel) != turn) {
            return;
        }
        do {
            fold(item);
            states_[slot_of(item)].store(pending, std::memory_order_relaxed);
            n_folded_.store(++item, std::memory_order_release);
        } while (item < n_items_ && states_[slot_of(item)].exchange(turn, std::memory_order_acq_rel) == computed);
    }

private:
    enum : uint8_t {
        pending,   // not computed yet, and items before it are not folded
        computed,  // but items before it are not folded
        turn       // not computed yet, and all items before it are folded
    };

    alignas(64) std::atomic<uint64_t> next_{0};
    alignas(64) std::atomic<uint64_t> n_folded_{0};
    State *states_;
    uint32_t n_slots_;
    uint64_t n_items_;
};

}  // namespace kvlane

// Items are folded in order whichever tasks compute them, in a ring of any size.

#include <algorithm>
#include <numeric>

#include "../kernels/attention/reorder_buffer.hpp"
#include "support.hpp"

using kvlane::ReorderBuffer;

namespace {

struct Ring {
    std::vector<ReorderBuffer::State> states;
    std::vector<uint64_t> results;
    std::vector<uint64_t> folded;
    int n_wrong = 0;
    ReorderBuffer items;

    Ring(uint32_t n_slots, uint64_t n_items) : states(n_slots), results(n_slots), items(states.data(), n_slots, n_items) {}

    void complete(uint64_t item) {
        results[items.slot_of(item)] = 3 * item + 1;
        items.complete(item, [&](uint64_t i) {
            n_wrong += results[items.slot_of(i)] != 3 * i + 1;
            folded.push_back(i);
        });
    }
};

}  // namespace

TEST_CASE("tasks: an item is folded once all before it are, by whoever completes the last of those") {
    Ring ring(3, 5);
    for (uint64_t i = 0; i < 3; ++i) {
        CHECK(ring.items.claim() == i);
    }
    CHECK(ring.items.claim() == ReorderBuffer::none);  // no slot is free
    ring.complete(2);
    ring.complete(1);
    CHECK(ring.folded.empty());
    CHECK(ring.items.claim() == ReorderBuffer::none);
    ring.complete(0);
    CHECK(ring.folded == std::vector<uint64_t>{0, 1, 2});
    CHECK(ring.items.claim() == 3);
    CHECK(ring.items.claim() == 4);
    CHECK(ring.items.claim() == ReorderBuffer::none);  // no item is left
    ring.complete(3);
    CHECK(ring.folded.size() == 4);
    ring.complete(4);
    CHECK(ring.folded == std::vector<uint64_t>{0, 1, 2, 3, 4});
}

TEST_CASE("tasks: without items there is none to claim") {
    ReorderBuffer items(nullptr, 0, 0);
    CHECK(items.claim() == ReorderBuffer::none);
}

TEST_CASE("tasks: threads that return when no slot is free leave no item behind") {
    constexpr uint64_t n_items = 20000;
    for (const uint32_t n_slots : {1u, 2u, 3u, 8u, 64u}) {
        for (const int n_threads : {1, 2, 5}) {
            CAPTURE(n_slots);
            CAPTURE(n_threads);
            Ring ring(n_slots, n_items);
            std::vector<std::thread> threads;
            threads.reserve(static_cast<size_t>(n_threads));
            for (int t = 0; t < n_threads; ++t) {
                threads.emplace_back([&] {
                    for (uint64_t item; (item = ring.items.claim()) != ReorderBuffer::none;) {
                        if (item % 7 == 0) {
                            std::this_thread::yield();
                        }
                        ring.complete(item);
                    }
                });
            }
            std::for_each(threads.begin(), threads.end(), [](std::thread &thread) { thread.join(); });
            std::vector<uint64_t> all(n_items);
            std::iota(all.begin(), all.end(), 0);
            CHECK(ring.folded == all);
            CHECK(ring.n_wrong == 0);
        }
    }
}

#pragma once

// NUMA nodes of the system, and memory on them: by Linux's system calls, which need no library.

#include <bitset>
#include <cstddef>
#include <cstdint>

namespace kvlane {

struct NumaNodes {
    static constexpr int max_nodes = 1023;  // as Linux has at most, less the one that its masks cannot name

    std::bitset<max_nodes> usable;  // those whose memory this process may use
    int error = 0;                  // errno, if the system does not tell

    bool has(int32_t node) const { return node >= 0 && node < max_nodes && usable[static_cast<size_t>(node)]; }
};

// Node numbers, "0, 2" for example; truncated if they are many.
struct NumaNodesText {
    explicit NumaNodesText(const NumaNodes &nodes);
    char text[64];
};

// Node 0 alone where the system has no memory policies.
NumaNodes numa_nodes();

// Prefers a node of numa_nodes() for pages of [first, first + bytes) that are committed from now on; first lies on a page.
// -> errno, or 0; also 0 where the system has no memory policies.
int prefer_numa_node(void *first, size_t bytes, int32_t node);

}  // namespace kvlane

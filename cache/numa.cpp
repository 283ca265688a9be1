#include "numa.hpp"

#include <cstdio>

#if defined(__linux__)
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#endif

namespace kvlane {

NumaNodesText::NumaNodesText(const NumaNodes &nodes) : text{} {
    size_t n = 0;
    for (int node = 0; node < NumaNodes::max_nodes && n < sizeof text; ++node) {
        if (nodes.has(node)) {
            n += static_cast<size_t>(std::snprintf(text + n, sizeof text - n, n == 0 ? "%d" : ", %d", node));
        }
    }
}

#if defined(__linux__)

namespace {

// A set of nodes as the system calls take it.
struct NodeMask {
    static constexpr int word_bits = sizeof(unsigned long) * CHAR_BIT;
    static constexpr unsigned long n_bits = NumaNodes::max_nodes + 1;  // the calls take one more than they read

    unsigned long words[n_bits / word_bits] = {};

    bool has(int node) const { return words[node / word_bits] >> (node % word_bits) & 1; }
    void add(int node) { words[node / word_bits] |= 1UL << (node % word_bits); }
};

}  // namespace

NumaNodes numa_nodes() {
    NumaNodes nodes;
    NodeMask mask;
    if (syscall(SYS_get_mempolicy, nullptr, mask.words, NodeMask::n_bits, nullptr, MPOL_F_MEMS_ALLOWED) != 0) {
        nodes.error = errno == ENOSYS ? 0 : errno;
        mask.add(0);
    }
    for (int node = 0; node < NumaNodes::max_nodes; ++node) {
        nodes.usable[static_cast<size_t>(node)] = mask.has(node);
    }
    return nodes;
}

int prefer_numa_node(void *first, size_t bytes, int32_t node) {
    NodeMask mask;
    mask.add(node);
    return syscall(SYS_mbind, first, bytes, MPOL_PREFERRED, mask.words, NodeMask::n_bits, 0) == 0 || errno == ENOSYS ? 0
                                                                                                                     : errno;
}

#else

NumaNodes numa_nodes() {
    NumaNodes nodes;
    nodes.usable[0] = true;
    return nodes;
}

int prefer_numa_node(void *, size_t, int32_t) { return 0; }

#endif

}  // namespace kvlane

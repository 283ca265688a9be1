#pragma once

// What `kvlane info` says of this machine.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tool {

struct Isa {
    std::string name;
    bool is_supported;
};

struct CpuCache {
    int level;
    std::string type;  // "data", "instruction" or "unified"
    uint64_t bytes;
    int n_cpus;  // that share it
};

struct Limits {
    int n_threads;
    double bytes_per_second;          // read from memory
    double multiply_adds_per_second;  // of f32
};

struct FormatKernels {
    std::string format;
    std::string group_1;
    std::string group_4;
};

struct Machine {
    std::string cpu;  // "unknown" where the system does not name it
    int n_cpus;
    std::vector<std::string> features;  // of those that the kernels use
    std::string isa_in_force;
    std::vector<Isa> isas;  // that are compiled in
    std::vector<CpuCache> caches;
    int n_numa_nodes;                         // 0 where the system does not say
    std::string huge_pages;                   // "always", "madvise", "never"; "unknown" where the system does not say
    std::optional<uint64_t> available_bytes;  // memory
    std::vector<FormatKernels> kernels;
    std::vector<Limits> limits;  // on one thread, and on all; none where there is too little memory to measure them
};

// Measures the limits, for about two seconds.
Machine this_machine();

}  // namespace tool

#include "system.hpp"

#include <algorithm>
#include <fstream>
#include <string>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace bench {
namespace {

std::optional<uint64_t> number_in(const char *path) {
    uint64_t value;
    std::ifstream file(path);
    return file >> value ? std::optional(value) : std::nullopt;
}

std::optional<uint64_t> available_to_all() {
    std::ifstream file("/proc/meminfo");
    for (std::string name; file >> name;) {
        uint64_t kilobytes;
        if (name == "MemAvailable:" && file >> kilobytes) {
            return 1024 * kilobytes;
        }
    }
    return std::nullopt;
}

// "max", which is no number, where the group has no limit.
std::optional<uint64_t> available_to_group() {
    const auto limit = number_in("/sys/fs/cgroup/memory.max");
    const auto used = number_in("/sys/fs/cgroup/memory.current");
    if (!limit || !used) {
        return std::nullopt;
    }
    return *limit - std::min(*limit, *used);
}

}  // namespace

std::optional<uint64_t> available_bytes() {
    const auto all = available_to_all(), group = available_to_group();
    return all && group ? std::min(*all, *group) : all ? all : group;
}

#ifdef STDERR_FILENO
bool stderr_is_terminal() { return isatty(STDERR_FILENO) == 1; }
#else
bool stderr_is_terminal() { return false; }
#endif

}  // namespace bench

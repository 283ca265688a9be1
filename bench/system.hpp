#pragma once

// What the system says of the machine. Where it says nothing, neither do these.

#include <cstdint>
#include <optional>

namespace bench {

// Memory that can be had without swapping, within the limit of the process's control group.
std::optional<uint64_t> available_bytes();

// Whether what is written to stderr is read by a person, now.
bool stderr_is_terminal();

}  // namespace bench

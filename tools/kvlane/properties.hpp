#pragma once

// The properties that `kvlane check` tests on the isa in force.

#include <string>
#include <vector>

namespace tool {

struct Property {
    std::string name;
    std::string measured;
    bool holds;
};

// Errors against attention in double precision and against the numbers that were stored, within the bounds of kvlane.h.
std::vector<Property> accuracy();

// Bits that do not depend on the threads, the batch, the pieces of a prompt, or who owns the memory.
std::vector<Property> determinism();

}  // namespace tool

#pragma once

#include "kernel_table.hpp"

namespace kvlane {

// Finds the kernels of the isa in force, chosen once: the one that KVLANE_ISA names, or the widest that the CPU supports.
kvl_status kernels_in_force(const KernelTable *&table);

}  // namespace kvlane

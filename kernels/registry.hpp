#pragma once

#include "kernel_table.hpp"

namespace kvlane {

// Finds the kernels of the isa in force, chosen once: the widest that the CPU supports, or what KVLANE_ISA names.
kvl_status kernels_in_force(const KernelTable *&table);

}  // namespace kvlane

#pragma once

#include "kernel_table.hpp"
#include "unroll.hpp"

namespace kvlane {

static constexpr bool are_integers(Numbers n) { return n == Numbers::words || n == Numbers::bytes; }

}  // namespace kvlane

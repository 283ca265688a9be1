// One isa's weighted sums of values: weighted_sum for every format.

#include "isa_unit.hpp"
#include "weighted_sum-inl.hpp"

namespace kvlane {

constexpr SumTable KVLANE_OF_ISA(sum_table) = {{
#define KVLANE_FORMAT(name, bits, scale, group) KVLANE_BY_NUMBERS(weighted_sum, numbers_of_values, name)
#include "formats.inc"
#undef KVLANE_FORMAT
}};

}  // namespace kvlane

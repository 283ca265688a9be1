// One isa's kernels for both products of tiles that store integers and scales.

#include "isa_unit.hpp"

namespace kvlane {

constexpr ProductKernels KVLANE_OF_ISA(integer_products)[] = {
#define KVLANE_FORMAT(name, bits, scale, group) products_of<format::name, true>(),
#include "formats.inc"
#undef KVLANE_FORMAT
};

}  // namespace kvlane

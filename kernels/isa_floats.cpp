// One isa's kernels for both products of tiles that store floats.

#include "isa_unit.hpp"

namespace kvlane {

constexpr ProductKernels KVLANE_OF_ISA(float_products)[] = {
#define KVLANE_FORMAT(name, bits, scale, group) products_of<format::name, false>(),
#include "formats.inc"
#undef KVLANE_FORMAT
};

}  // namespace kvlane

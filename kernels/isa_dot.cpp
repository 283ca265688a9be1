// One isa's scores: dot for every format.

#include "dot-inl.hpp"
#include "isa_unit.hpp"

namespace kvlane {

constexpr DotTable KVLANE_OF_ISA(dot_table) = {{
#define KVLANE_FORMAT(name, bits, scale, group) KVLANE_BY_NUMBERS(dot, numbers_of_keys, name)
#include "formats.inc"
#undef KVLANE_FORMAT
}};

}  // namespace kvlane

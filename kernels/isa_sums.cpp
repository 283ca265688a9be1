// One isa's kernels for weighted sums of values, for every format.

#include "isa_unit.hpp"

namespace kvlane {

// Stored integers cannot be NaN or infinite.
template <class Format>
static constexpr SumVisibleFn sum_visible_of() {
    if constexpr (Format::is_scaled) {
        return nullptr;
    } else {
        return sum_visible<Isa, Format>;
    }
}

constexpr SumTable KVLANE_OF_ISA(sum_table) = {
    .of =
        {
#define KVLANE_FORMAT(name, bits, scale, group)                           \
    {sum_tile<Isa, format::name, numbers<format::name, Numbers::floats>>, \
     sum_tile<Isa, format::name, numbers<format::name, Numbers::scaled>>, \
     sum_tile<Isa, format::name, numbers<format::name, Numbers::words>>,  \
     sum_tile<Isa, format::name, numbers<format::name, Numbers::bytes>>},
#include "formats.inc"
#undef KVLANE_FORMAT
        },
    .of_visible =
        {
#define KVLANE_FORMAT(name, bits, scale, group) sum_visible_of<format::name>(),
#include "formats.inc"
#undef KVLANE_FORMAT
        },
};

}  // namespace kvlane

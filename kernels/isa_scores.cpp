// One isa's score kernels, for every format.

#include "isa_unit.hpp"

namespace kvlane {

constexpr ScoreTable KVLANE_OF_ISA(score_table) = {{
#define KVLANE_FORMAT(name, bits, scale, group)                             \
    {score_tile<Isa, format::name, numbers<format::name, Numbers::floats>>, \
     score_tile<Isa, format::name, numbers<format::name, Numbers::scaled>>, \
     score_tile<Isa, format::name, numbers<format::name, Numbers::words>>,  \
     score_tile<Isa, format::name, numbers<format::name, Numbers::bytes>>},
#include "formats.inc"
#undef KVLANE_FORMAT
}};

}  // namespace kvlane

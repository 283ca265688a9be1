#include "functions.hpp"

#include <string>

#include "kvlane/kvlane.hpp"

#define KVLANE_ISA_ROW(name, features) \
    namespace kvlane::isa {            \
    struct name;                       \
    }
#include "built_isas.inc"

test::Functions test::functions_in_force() {
    const std::string in_force = kvlane::isa_in_force();
    Functions found = {};
#define KVLANE_ISA_ROW(name, features) found = in_force == #name ? functions_of<kvlane::isa::name>() : found;
#include "built_isas.inc"
    return found;
}

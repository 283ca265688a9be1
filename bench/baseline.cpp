#include "baseline.hpp"

#include <cstring>
#include <stdexcept>

#include "kvlane/kvlane.hpp"

namespace bench {

#define KVLANE_ISA_ROW(name, features) extern const Baseline baseline_##name;
#include "built_isas.inc"

const Baseline &baseline() {
    static constexpr const Baseline *all[] = {
#define KVLANE_ISA_ROW(name, features) &baseline_##name,
#include "built_isas.inc"
    };
    const char *in_force = kvlane::isa_in_force();
    for (const Baseline *one : all) {
        if (std::strcmp(one->name, in_force) == 0) {
            return *one;
        }
    }
    throw std::logic_error("no baseline for the isa in force");
}

const Baseline &scalar_baseline() { return baseline_scalar; }

}  // namespace bench

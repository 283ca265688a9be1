// Prints the widest isa that this CPU supports, which KVLANE_ISAS=native builds. isa.cmake compiles and runs this program.

#include <cstdio>

#include "cpu.hpp"

int main() {
    const char *widest = "";
#define KVLANE_ISA_ROW(name, features)                 \
    if (((features) & ~kvlane::cpu_features()) == 0) { \
        widest = #name;                                \
    }
    using namespace kvlane;
#include "built_isas.inc"
    std::fputs(widest, stdout);
}

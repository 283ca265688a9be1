#pragma once

// What a shim offers: a shared object that holds one version of the library with the benchmarks of that version. No type of
// the library's crosses this boundary, so versions whose interfaces differ run in one process.

#include <cstddef>

namespace against {

// Functions that return a text return null, or what went wrong; the text stays until the next call.
struct Shim {
    const char *(*start)();                            // registers the benchmarks
    void (*stop)();                                    // unless start failed
    const char *(*label)(size_t i);                    // of the i-th benchmark; null if there is none
    const char *(*context)(const char *key);           // what the benchmarks say of themselves; null of other keys
    const char *(*open)(size_t i);                     // makes the i-th benchmark's case and warms it up
    const char *(*step)(double *seconds);              // one iteration of it, and the seconds that it says
    const char *(*close)();                            // ends it: its counters are set then
    bool (*counter)(const char *name, double *value);  // false where there is none of that name
};

inline constexpr char shim_symbol[] = "kvlane_against_shim";

}  // namespace against

extern "C" const against::Shim *kvlane_against_shim();

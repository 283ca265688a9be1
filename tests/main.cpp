// Runs the tests on the isa that KVLANE_ISA names, and makes sure that it is the one that ran. What -tc= and -tce= leave out
// is reported.

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>

#include "support.hpp"

namespace {

constexpr int skipped = 77;  // ctest's SKIP_RETURN_CODE

bool is_lacking(const std::string &isa) {
    for (uint32_t i = 0; i < kvl_n_isas(); ++i) {
        if (isa == kvl_isa_name(i)) {
            return !kvl_isa_supported(i);
        }
    }
    return false;
}

}  // namespace

int main(int argc, char **argv) {
    std::printf("isas:");
    for (uint32_t i = 0; i < kvl_n_isas(); ++i) {
        std::printf(" %s", kvl_isa_name(i));
    }
    std::printf("\n");
    const std::string forced = test::forced_isa();
    if (is_lacking(forced)) {
        std::printf("skipped: this CPU lacks %s\n", forced.c_str());
        return skipped;
    }
    try {
        const std::string in_force = kvlane::isa_in_force();
        std::printf("in force: %s\n", in_force.c_str());
        if (!forced.empty() && in_force != forced) {
            std::printf("failed: KVLANE_ISA names %s\n", forced.c_str());
            return EXIT_FAILURE;
        }
    } catch (const kvlane::Error &error) {
        std::printf("failed: %s\n", error.what());
        return EXIT_FAILURE;
    }
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument.starts_with("-tc=")) {
            std::printf("skipped: all tests but %s\n", argument.c_str() + std::strlen("-tc="));
        } else if (argument.starts_with("-tce=")) {
            std::printf("skipped: tests %s\n", argument.c_str() + std::strlen("-tce="));
        }
    }
    return doctest::Context(argc, argv).run();
}

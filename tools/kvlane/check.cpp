// kvlane check: whether the kernels of every instruction set of this CPU are accurate and deterministic.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>

#include "child.hpp"
#include "commands.hpp"
#include "kvlane/kvlane.hpp"
#include "properties.hpp"

namespace tool {
namespace {

// Whether all hold; a line for each.
bool report(const std::vector<Property> &properties) {
    bool all_hold = true;
    for (const Property &property : properties) {
        std::printf("  %-34s %-32s %s\n", property.name.c_str(), property.measured.c_str(),
                    property.holds ? "ok" : "FAILED");
        std::fflush(stdout);
        all_hold = all_hold && property.holds;
    }
    return all_hold;
}

bool check_isa_in_force(const std::string &isa) {
    if (isa != kvlane::isa_in_force()) {
        throw std::runtime_error("the isa in force is " + std::string(kvlane::isa_in_force()) + "; it must be " + isa);
    }
    std::printf("%s\n", kvlane::isa_in_force());
    const bool is_accurate = report(accuracy());
    return report(determinism()) && is_accurate;
}

// Runs check_isa_in_force in a child process, because a process chooses its isa once. A child that a signal ends has failed.
bool check_isa(const char *isa) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child < 0) {
        throw std::runtime_error("no process can be made for the check of an isa");
    }
    if (child == 0) {
        setenv("KVLANE_ISA", isa, 1);
        bool is_right = false;
        try {
            is_right = check_isa_in_force(isa);
        } catch (const std::exception &error) {
            std::fprintf(stderr, "kvlane: %s\n", error.what());
        }
        std::fflush(stdout);
        _exit(is_right ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    const int status = wait_for(child);
    if (WIFSIGNALED(status)) {
        std::printf("  %-67s FAILED\n", ("ended by signal " + std::to_string(WTERMSIG(status))).c_str());
    }
    return status == 0;
}

// The isas of this CPU, or the one that KVLANE_ISA names.
bool check_all() {
    const char *forced = std::getenv("KVLANE_ISA");
    const std::string only = forced && *forced ? kvlane::isa_in_force() : "";
    std::string failed;
    for (uint32_t i = 0; i < kvl_n_isas(); ++i) {
        const char *isa = kvl_isa_name(i);
        if (kvl_isa_supported(i) && (only.empty() || only == isa) && !check_isa(isa)) {
            failed += std::string(" ") + isa;
        }
    }
    std::puts(failed.empty() ? "\nAll properties hold." : ("\nFAILED on" + failed + ".").c_str());
    return failed.empty();
}

}  // namespace

void declare_check(CLI::App &app, int &status) {
    CLI::App *check = app.add_subcommand("check", "Accuracy and determinism of every isa of this CPU");
    check->footer("With KVLANE_ISA in the environment that isa alone is checked.");
    check->callback([&status] { status = check_all() ? 0 : 1; });
}

}  // namespace tool

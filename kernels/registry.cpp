#include "registry.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cpu.hpp"
#include "error.hpp"

namespace kvlane {

#define KVLANE_ISA_ROW(name, features) extern const KernelTable table_##name;
#include "built_isas.inc"

namespace {

struct IsaRow {
    const char *name;
    const KernelTable *table;
    uint32_t features;
};

constexpr IsaRow isas[] = {
#define KVLANE_ISA_ROW(name, features) {#name, &table_##name, (features)},
#include "built_isas.inc"
};
constexpr uint32_t n_isas = sizeof isas / sizeof isas[0];

std::atomic<const KernelTable *> in_force{nullptr};

bool supported(const IsaRow &isa) { return (isa.features & ~cpu_features()) == 0; }

kvl_status fail_forced(const char *forced) {
    char available[256] = "";
    for (const IsaRow &isa : isas) {
        if (supported(isa)) {
            const size_t used = std::strlen(available);
            std::snprintf(available + used, sizeof available - used, " %s", isa.name);
        }
    }
    return fail(KVL_ERROR_ISA, "KVLANE_ISA is %s; this build on this CPU has%s", Quoted(forced).text, available);
}

kvl_status choose(const KernelTable *&table) {
    const char *forced = std::getenv("KVLANE_ISA");
    const bool is_forced = forced && *forced;
    const KernelTable *chosen = nullptr;
    for (const IsaRow &isa : isas) {
        if (supported(isa) && (!is_forced || std::strcmp(forced, isa.name) == 0)) {
            chosen = isa.table;
        }
    }
    if (!chosen) {
        return fail_forced(forced);
    }
    table = chosen;
    return KVL_OK;
}

}  // namespace

kvl_status kernels_in_force(const KernelTable *&table) {
    table = in_force.load(std::memory_order_acquire);
    if (!table) {
        KVLANE_TRY(choose(table));
        in_force.store(table, std::memory_order_release);
    }
    return KVL_OK;
}

}  // namespace kvlane

using namespace kvlane;

const char *kvl_version(void) {
#define KVLANE_TEXT_(x) #x
#define KVLANE_TEXT(x) KVLANE_TEXT_(x)
    return KVLANE_TEXT(KVL_VERSION_MAJOR) "." KVLANE_TEXT(KVL_VERSION_MINOR) "." KVLANE_TEXT(KVL_VERSION_PATCH);
#undef KVLANE_TEXT
#undef KVLANE_TEXT_
}

uint32_t kvl_n_isas(void) { return n_isas; }

const char *kvl_isa_name(uint32_t i) { return i < n_isas ? isas[i].name : nullptr; }

int kvl_isa_supported(uint32_t i) { return i < n_isas && supported(isas[i]); }

kvl_status kvl_isa_in_force(const char **name) {
    KVLANE_TRY(check_not_null(name, "name"));
    const KernelTable *table;
    KVLANE_TRY(kernels_in_force(table));
    *name = table->name;
    return KVL_OK;
}

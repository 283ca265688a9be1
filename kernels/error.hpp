#pragma once

// How a C function says no: a status, and for the thread a text that names the argument, its value and what is allowed.

#include <cinttypes>

#include "kvlane/kvlane.h"

namespace kvlane {

// Keeps the text for kvl_last_error and returns the status.
[[gnu::format(printf, 2, 3)]] kvl_status fail(kvl_status status, const char *format, ...);

kvl_status check_not_null(const void *pointer, const char *name);
kvl_status check_struct_size(size_t size, size_t expected, const char *name);
kvl_status check_flags(uint32_t flags, uint32_t known, const char *name);
kvl_status check_reserved(uint32_t reserved, const char *name);
kvl_status check_format(kvl_format format, const char *name);
kvl_status check_rotation(kvl_rotation rotation, const char *name);
kvl_status check_head_dim(uint32_t dim, const char *name);
kvl_status check_range(int64_t value, int64_t least, int64_t most, const char *name);

// What every descriptor is checked for.
template <class Desc>
kvl_status check_desc(const Desc *desc, uint32_t known_flags, const char *name);

}  // namespace kvlane

#define KVLANE_TRY(expression)                                  \
    if (const kvl_status tried = (expression); tried != KVL_OK) \
    return tried

template <class Desc>
kvl_status kvlane::check_desc(const Desc *desc, uint32_t known_flags, const char *name) {
    KVLANE_TRY(check_not_null(desc, name));
    KVLANE_TRY(check_struct_size(desc->struct_size, sizeof(Desc), name));
    return check_flags(desc->flags, known_flags, name);
}

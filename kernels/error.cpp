#include "descriptor.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "formats.hpp"

namespace kvlane {
namespace {

thread_local char last_error[512];

struct KnownFormats {
    char text[64] = "";
};

// The names of all formats, each preceded by a space.
KnownFormats known_formats() {
    KnownFormats known;
    size_t used = 0;
    for (const char *name : format::names) {
        used += static_cast<size_t>(std::snprintf(known.text + used, sizeof known.text - used, " %s", name));
    }
    return known;
}

}  // namespace

kvl_status fail(kvl_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

kvl_status fail_in(kvl_status status, const char *format, ...) {
    char inner[sizeof last_error];
    std::memcpy(inner, last_error, sizeof inner);
    va_list arguments;
    va_start(arguments, format);
    const int n = std::vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    const size_t used = std::min(sizeof last_error - 1, static_cast<size_t>(std::max(0, n)));
    std::snprintf(last_error + used, sizeof last_error - used, "%s", inner);
    return status;
}

Quoted::Quoted(const char *quoted) {
    constexpr size_t most = sizeof text - 6;
    const bool is_cut = std::strlen(quoted) > most;
    std::snprintf(text, sizeof text, "\"%.*s%s\"", static_cast<int>(most), quoted, is_cut ? "..." : "");
}

Named::Named(const char *name, uint32_t value) {
    if (name) {
        std::snprintf(text, sizeof text, "%s", name);
    } else {
        std::snprintf(text, sizeof text, "%u", value);
    }
}

Named name_of_format(kvl_format format) { return Named(kvl_format_name(format), format); }

Named name_of_rotation(kvl_rotation rotation) {
    static constexpr const char *names[] = {"default", "none", "hadamard"};
    return Named(rotation <= KVL_ROTATION_HADAMARD ? names[rotation] : nullptr, rotation);
}

kvl_status check_not_null(const void *pointer, const char *name) {
    return pointer ? KVL_OK : fail(KVL_ERROR_NULL, "%s is null; it must point to something", name);
}

kvl_status check_struct_size(size_t size, size_t least, size_t current) {
    return size >= least && size <= KVL_MAX_STRUCT_SIZE && size % alignof(uint64_t) == 0
               ? KVL_OK
               : fail(KVL_ERROR_STRUCT_SIZE,
                      "struct_size is %zu; it must be sizeof the type, %zu in this version, and from %zu to %d in any", size,
                      current, least, KVL_MAX_STRUCT_SIZE);
}

kvl_status check_later_fields(const void *desc, size_t begin, size_t end, const char *reader) {
    for (size_t offset = begin; offset < end; ++offset) {
        if (static_cast<const unsigned char *>(desc)[offset] != 0) {
            return fail(KVL_ERROR_STRUCT_SIZE,
                        "the byte at offset %zu is not 0; %s has a version of the type with %zu bytes and does not know it",
                        offset, reader, begin);
        }
    }
    return KVL_OK;
}

kvl_status check_flags(uint32_t flags, uint32_t known) {
    return (flags & ~known) == 0 ? KVL_OK
                                 : fail(KVL_ERROR_FLAGS, "flags is 0x%x; only the bits of 0x%x are known", flags, known);
}

kvl_status check_reserved(uint32_t reserved) {
    return reserved == 0 ? KVL_OK : fail(KVL_ERROR_FLAGS, "reserved is %u; it must be 0", reserved);
}

kvl_status check_format(kvl_format format, const char *name) {
    return format < format::count ? KVL_OK
                                  : fail(KVL_ERROR_FORMAT, "%s is %u; it must be one of%s, 0 to %u", name, format,
                                         known_formats().text, format::count - 1);
}

kvl_status check_rotation(kvl_rotation rotation, const char *name) {
    return rotation <= KVL_ROTATION_HADAMARD
               ? KVL_OK
               : fail(KVL_ERROR_ROTATION, "%s is %u; it must be KVL_ROTATION_DEFAULT, _NONE or _HADAMARD, 0 to %d", name,
                      rotation, KVL_ROTATION_HADAMARD);
}

kvl_status check_head_dim(uint32_t dim, const char *name) {
    return dim >= 1 && dim <= KVL_MAX_HEAD_DIM
               ? KVL_OK
               : fail(KVL_ERROR_HEAD_DIM, "%s is %u; it must be from 1 to %d", name, dim, KVL_MAX_HEAD_DIM);
}

kvl_status check_len(size_t len, int64_t n_tokens, uint32_t n_kv_heads, uint32_t dim, const char *name) {
    const uint64_t expected = static_cast<uint64_t>(n_tokens) * n_kv_heads * dim;
    return len == expected ? KVL_OK
                           : fail(KVL_ERROR_LENGTH, "%s is %zu; %" PRId64 " tokens of %u heads of %u elements need %" PRIu64,
                                  name, len, n_tokens, n_kv_heads, dim, expected);
}

kvl_status check_range(int64_t value, int64_t least, int64_t most, const char *name) {
    return value >= least && value <= most
               ? KVL_OK
               : fail(KVL_ERROR_RANGE, "%s is %" PRId64 "; it must be from %" PRId64 " to %" PRId64, name, value, least,
                      most);
}

}  // namespace kvlane

using namespace kvlane;

const char *kvl_last_error(void) { return last_error; }

const char *kvl_status_name(kvl_status status) {
    switch (status) {
#define KVLANE_STATUS(name) \
    case name: return #name;
        KVLANE_STATUS(KVL_OK)
        KVLANE_STATUS(KVL_ERROR_STRUCT_SIZE)
        KVLANE_STATUS(KVL_ERROR_FLAGS)
        KVLANE_STATUS(KVL_ERROR_NULL)
        KVLANE_STATUS(KVL_ERROR_RANGE)
        KVLANE_STATUS(KVL_ERROR_FORMAT)
        KVLANE_STATUS(KVL_ERROR_HEADS)
        KVLANE_STATUS(KVL_ERROR_HEAD_DIM)
        KVLANE_STATUS(KVL_ERROR_SCALE)
        KVLANE_STATUS(KVL_ERROR_LAYER)
        KVLANE_STATUS(KVL_ERROR_LENGTH)
        KVLANE_STATUS(KVL_ERROR_CAPACITY)
        KVLANE_STATUS(KVL_ERROR_APPEND_TWICE)
        KVLANE_STATUS(KVL_ERROR_LAYER_MISSING)
        KVLANE_STATUS(KVL_ERROR_GEOMETRY)
        KVLANE_STATUS(KVL_ERROR_WORKSPACE_SIZE)
        KVLANE_STATUS(KVL_ERROR_WORKSPACE_ALIGNMENT)
        KVLANE_STATUS(KVL_ERROR_WORKSPACE_STATE)
        KVLANE_STATUS(KVL_ERROR_TASK)
        KVLANE_STATUS(KVL_ERROR_ISA)
        KVLANE_STATUS(KVL_ERROR_MEMORY)
        KVLANE_STATUS(KVL_ERROR_ROTATION)
        KVLANE_STATUS(KVL_ERROR_RULE)
        KVLANE_STATUS(KVL_ERROR_PRECISION)
        KVLANE_STATUS(KVL_ERROR_BLOCK)
        KVLANE_STATUS(KVL_ERROR_STRIDE)
        KVLANE_STATUS(KVL_ERROR_OVERLAP)
        KVLANE_STATUS(KVL_ERROR_MASK)
        KVLANE_STATUS(KVL_ERROR_ALIGNMENT)
        KVLANE_STATUS(KVL_ERROR_PLAN)
        KVLANE_STATUS(KVL_ERROR_NUMA)
#undef KVLANE_STATUS
    }
    return "unknown status";
}

const char *kvl_format_name(kvl_format format) { return format < format::count ? format::names[format] : nullptr; }

kvl_status kvl_format_from_name(const char *name, kvl_format *format) {
    KVLANE_TRY(check_not_null(name, "name"));
    KVLANE_TRY(check_not_null(format, "format"));
    for (kvl_format f = 0; f < format::count; ++f) {
        if (std::strcmp(name, format::names[f]) == 0) {
            *format = f;
            return KVL_OK;
        }
    }
    return fail(KVL_ERROR_FORMAT, "name is %s; the formats are%s", Quoted(name).text, known_formats().text);
}

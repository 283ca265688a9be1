#pragma once

// Error reporting of the C functions: a status, and a thread-local text with the argument, its value and the allowed values.

#include <cinttypes>
#include <cstdio>

#include "kvlane/kvlane.h"

// The conversions that texts are checked for. MinGW has two printf, of which the C++ library's headers choose one.
#if defined(__MINGW_PRINTF_FORMAT)
#define KVLANE_PRINTF __MINGW_PRINTF_FORMAT
#else
#define KVLANE_PRINTF printf
#endif

namespace kvlane {

// Stores the text for kvl_last_error and returns the status.
[[gnu::format(KVLANE_PRINTF, 2, 3)]] kvl_status fail(kvl_status status, const char *format, ...);

// Prefixes the stored text with the location of the failure, "sequences[1]: " for example, and returns the status.
[[gnu::format(KVLANE_PRINTF, 2, 3)]] kvl_status fail_in(kvl_status status, const char *format, ...);

// A caller's text as quoted in an error: truncated, so that the allowed values still fit after it.
struct Quoted {
    explicit Quoted(const char *text);
    char text[72];
};

// The name of a format or rotation, or its number if it has no name.
struct Named {
    explicit Named(const char *name, uint32_t value);
    char text[16];
};
Named name_of_format(kvl_format format);
Named name_of_rotation(kvl_rotation rotation);

kvl_status check_not_null(const void *pointer, const char *name);
kvl_status check_flags(uint32_t flags, uint32_t known);
kvl_status check_reserved(uint32_t reserved);
kvl_status check_format(kvl_format format, const char *name);
kvl_status check_rotation(kvl_rotation rotation, const char *name);
kvl_status check_head_dim(uint32_t dim, const char *name);
kvl_status check_len(size_t len, int64_t n_tokens, uint32_t n_kv_heads, uint32_t dim, const char *name);
kvl_status check_range(int64_t value, int64_t least, int64_t most, const char *name);

}  // namespace kvlane

#define KVLANE_TRY(expression)                                  \
    if (const kvl_status tried = (expression); tried != KVL_OK) \
    return tried

// KVLANE_TRY that prefixes the error with its location, given as the arguments of fail_in.
#define KVLANE_TRY_IN(expression, ...)                          \
    if (const kvl_status tried = (expression); tried != KVL_OK) \
    return fail_in(tried, __VA_ARGS__)

#pragma once

#include <cstdint>

#include "kvlane/kvlane.h"

namespace kvlane::format {

// One tag a format: what kernels are templated on.
#define KVLANE_FORMAT(name, bits_per_element)              \
    struct name {                                          \
        static constexpr int bits = bits_per_element;      \
        static constexpr int bytes = bits_per_element / 8; \
    };
#include "formats.inc"
#undef KVLANE_FORMAT

enum : kvl_format {
#define KVLANE_FORMAT(name, bits) index_##name,
#include "formats.inc"
#undef KVLANE_FORMAT
    count
};
static_assert(+index_f32 == +KVL_F32 && +index_f16 == +KVL_F16 && +index_bf16 == +KVL_BF16);

static constexpr const char *names[count] = {
#define KVLANE_FORMAT(name, bits) #name,
#include "formats.inc"
#undef KVLANE_FORMAT
};

static constexpr int bits_of[count] = {
#define KVLANE_FORMAT(name, bits) bits,
#include "formats.inc"
#undef KVLANE_FORMAT
};

// Bytes of a stored row of dim elements, padding not counted.
static inline int64_t row_bytes(kvl_format format, uint32_t dim) { return int64_t{dim} * bits_of[format] / 8; }

}  // namespace kvlane::format

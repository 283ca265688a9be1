#pragma once

#include <cstdint>

#include "kvlane/kvlane.h"

namespace kvlane::format {

// One tag a format: what kernels are templated on. `most` is the largest magnitude of an integer.
#define KVLANE_FORMAT(name, bits_per_element, scale)                                   \
    struct name {                                                                      \
        static constexpr int bits = bits_per_element;                                  \
        static constexpr int bytes = bits_per_element / 8;                             \
        static constexpr bool is_scaled = scale > 0;                                   \
        static constexpr int most = is_scaled ? (1 << (bits_per_element - 1)) - 1 : 0; \
    };
#include "formats.inc"
#undef KVLANE_FORMAT

enum : kvl_format {
#define KVLANE_FORMAT(name, bits, scale) index_##name,
#include "formats.inc"
#undef KVLANE_FORMAT
    count
};
static_assert(+index_f32 == +KVL_F32 && +index_f16 == +KVL_F16 && +index_bf16 == +KVL_BF16 && +index_q8 == +KVL_Q8);

static constexpr const char *names[count] = {
#define KVLANE_FORMAT(name, bits, scale) #name,
#include "formats.inc"
#undef KVLANE_FORMAT
};

static constexpr int bits_of[count] = {
#define KVLANE_FORMAT(name, bits, scale) bits,
#include "formats.inc"
#undef KVLANE_FORMAT
};

static constexpr int64_t scale_bytes_of[count] = {
#define KVLANE_FORMAT(name, bits, scale) scale,
#include "formats.inc"
#undef KVLANE_FORMAT
};

// Whether rows are integers that a scale of their own multiplies.
static inline bool is_scaled(kvl_format format) { return scale_bytes_of[format] > 0; }

// The rotation in force.
static inline kvl_rotation rotation_of(kvl_rotation rotation, kvl_format) {
    return rotation == KVL_ROTATION_DEFAULT ? +KVL_ROTATION_NONE : rotation;
}

// Bytes of a stored row of dim elements, padding not counted.
static inline int64_t row_bytes(kvl_format format, uint32_t dim) { return int64_t{dim} * bits_of[format] / 8; }

}  // namespace kvlane::format

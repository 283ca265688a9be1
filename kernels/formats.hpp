#pragma once

#include <cstdint>

#include "kvlane/kvlane.h"

namespace kvlane::format {

enum : kvl_format {
#define KVLANE_FORMAT(name, bits, scale, group) index_##name,
#include "formats.inc"
#undef KVLANE_FORMAT
    count
};
// One tag a format: what kernels are templated on.
#define KVLANE_FORMAT(name, bits_per_element, scale, group_elements) \
    struct name {                                                    \
        static constexpr int bits = bits_per_element;                \
        static constexpr int bytes = bits_per_element / 8;           \
        static constexpr bool is_scaled = scale > 0;                 \
        static constexpr int group = group_elements;                 \
        static constexpr kvl_format index = index_##name;            \
    };
#include "formats.inc"
#undef KVLANE_FORMAT

static_assert(+index_f32 == +KVL_F32 && +index_f16 == +KVL_F16 && +index_bf16 == +KVL_BF16 && +index_q8 == +KVL_Q8 &&
              +index_q4 == +KVL_Q4);

static constexpr const char *names[count] = {
#define KVLANE_FORMAT(name, bits, scale, group) #name,
#include "formats.inc"
#undef KVLANE_FORMAT
};

static constexpr int bits_of[count] = {
#define KVLANE_FORMAT(name, bits, scale, group) bits,
#include "formats.inc"
#undef KVLANE_FORMAT
};

static constexpr int scale_bytes_of[count] = {
#define KVLANE_FORMAT(name, bits, scale, group) scale,
#include "formats.inc"
#undef KVLANE_FORMAT
};

static constexpr int group_of[count] = {
#define KVLANE_FORMAT(name, bits, scale, group) group,
#include "formats.inc"
#undef KVLANE_FORMAT
};

// Whether rows are integers that a scale of their own multiplies.
static inline bool is_scaled(kvl_format format) { return scale_bytes_of[format] > 0; }

// That of the tokens of a layer that are kept in f16.
static inline kvl_format in_f16_window(kvl_format format) { return is_scaled(format) ? +KVL_F16 : format; }

// Bytes of the scales of one row of dim elements: f32, and a byte a group.
static inline int64_t entry_bytes(kvl_format format, uint32_t dim) {
    const int64_t n_groups = group_of[format] ? (dim + group_of[format] - 1) / group_of[format] : 0;
    return scale_bytes_of[format] + n_groups;
}

// The rotation in force. Keys have outliers, which integers of 8 bits lose already; values lose by 4 bits only.
static inline kvl_rotation rotation_of(kvl_rotation rotation, kvl_format format, bool keys) {
    const bool is_rotated = format == index_q4 || (format == index_q8 && keys);
    return rotation != KVL_ROTATION_DEFAULT ? rotation : is_rotated ? +KVL_ROTATION_HADAMARD : +KVL_ROTATION_NONE;
}

// Bytes of a stored row of dim elements, padding not counted.
static inline int64_t row_bytes(kvl_format format, uint32_t dim) { return (int64_t{dim} * bits_of[format] + 7) / 8; }

}  // namespace kvlane::format

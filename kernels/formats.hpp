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
// One tag type per format, the template parameter of kernels.
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

// Whether rows are stored as integers with a scale per row.
static inline bool is_scaled(kvl_format format) { return scale_bytes_of[format] > 0; }

// The format of a layer's tokens that are kept in f16: f16 instead of q8 or q4, any other format unchanged.
static inline kvl_format in_f16_window(kvl_format format) { return is_scaled(format) ? +KVL_F16 : format; }

// Bytes of the scales of one row of dim elements: one f32, and one byte per group.
static inline int64_t entry_bytes(kvl_format format, uint32_t dim) {
    const int64_t n_groups = group_of[format] ? (dim + group_of[format] - 1) / group_of[format] : 0;
    return scale_bytes_of[format] + n_groups;
}

// The rotation in force. By default, outliers make rotation worthwhile for keys from 8 bits down, for values only at 4 bits.
static inline kvl_rotation rotation_of(kvl_rotation rotation, kvl_format format, bool keys) {
    const bool is_rotated = format == index_q4 || (format == index_q8 && keys);
    return rotation != KVL_ROTATION_DEFAULT ? rotation : is_rotated ? +KVL_ROTATION_HADAMARD : +KVL_ROTATION_NONE;
}

// Bytes of a stored row of dim elements, without padding.
static inline int64_t row_bytes(kvl_format format, uint32_t dim) { return (int64_t{dim} * bits_of[format] + 7) / 8; }

}  // namespace kvlane::format

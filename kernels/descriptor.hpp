#pragma once

// Callers' descriptors, which may be of an earlier or a later version of their types.

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "error.hpp"

namespace kvlane {

// The size of a type in the first version that had it, the smallest that is accepted.
template <class Desc>
inline constexpr size_t least_struct_size = sizeof(Desc);
template <>
inline constexpr size_t least_struct_size<kvl_sequence> = offsetof(kvl_sequence, q_format);
template <>
inline constexpr size_t least_struct_size<kvl_mask> = offsetof(kvl_mask, bits_head_stride_bytes);
template <>
inline constexpr size_t least_struct_size<kvl_layer_desc> = offsetof(kvl_layer_desc, k_offset);
template <>
inline constexpr size_t least_struct_size<kvl_view> = offsetof(kvl_view, k_offset);

// Checks a caller's struct_size: at least that of the type's first version, at most KVL_MAX_STRUCT_SIZE.
kvl_status check_struct_size(size_t size, size_t least, size_t current);

// Checks that the bytes [begin, end) of a descriptor, fields of a later version than the reader's, are 0.
kvl_status check_later_fields(const void *desc, size_t begin, size_t end, const char *reader);

// Checks a descriptor's struct_size and flags; check_desc first checks that it is not null.
template <class Desc>
kvl_status check_header(const Desc &desc, uint32_t known_flags) {
    KVLANE_TRY(check_struct_size(desc.struct_size, least_struct_size<Desc>, sizeof desc));
    KVLANE_TRY(check_later_fields(&desc, sizeof desc, desc.struct_size, "this library"));
    return check_flags(desc.flags, known_flags);
}
template <class Desc>
kvl_status check_desc(const Desc *desc, uint32_t known_flags, const char *name) {
    KVLANE_TRY(check_not_null(desc, name));
    KVLANE_TRY_IN(check_header(*desc, known_flags), "%s: ", name);
    return KVL_OK;
}

// A descriptor of any version as one of this version: 0 in the fields that the caller's lacks.
template <class Desc>
Desc read_desc(const Desc &desc) {
    Desc whole = {};
    std::memcpy(&whole, &desc, std::min(desc.struct_size, sizeof whole));
    whole.struct_size = sizeof whole;
    return whole;
}

// A caller's array of descriptors, all of one version.
template <class Desc>
struct DescArray {
    const Desc *first;
    uint32_t n;

    const Desc &raw(uint32_t i) const {
        const auto *at = reinterpret_cast<const std::byte *>(first) + (i == 0 ? 0 : i * first->struct_size);
        return *reinterpret_cast<const Desc *>(at);
    }
    Desc operator[](uint32_t i) const { return read_desc(raw(i)); }
    size_t bytes() const { return n == 0 ? 0 : n * first->struct_size; }

    // The header of one element, those before it being checked.
    kvl_status check(uint32_t i, uint32_t known_flags) const {
        KVLANE_TRY(check_header(raw(i), known_flags));
        return raw(i).struct_size == first->struct_size
                   ? KVL_OK
                   : fail(KVL_ERROR_STRUCT_SIZE, "struct_size is %zu; it must be that of the array's first element, %zu",
                          raw(i).struct_size, first->struct_size);
    }
};

// Fills in a caller's descriptor, whose struct_size stays as it is: later fields become 0, and those that it has no room for
// are left out.
template <class Desc>
kvl_status write_desc(const Desc &from, Desc *to) {
    const size_t size = to->struct_size;
    KVLANE_TRY(check_struct_size(size, least_struct_size<Desc>, sizeof from));
    std::memset(to, 0, size);
    std::memcpy(to, &from, std::min(size, sizeof from));
    to->struct_size = size;
    return KVL_OK;
}

// write_desc, unless a field that is left out is not 0: a caller who does not know it could not understand the rest.
template <class Desc>
kvl_status write_whole_desc(const Desc &from, Desc *to) {
    KVLANE_TRY(check_struct_size(to->struct_size, least_struct_size<Desc>, sizeof from));
    KVLANE_TRY(check_later_fields(&from, to->struct_size, sizeof from, "the caller"));
    return write_desc(from, to);
}

}  // namespace kvlane

// One isa's table of kernels, with those that its other units do not hold.

#include "decode-inl.hpp"
#include "encode-inl.hpp"
#include "isa_unit.hpp"

namespace kvlane {

constexpr KernelTable KVLANE_OF_ISA(table) = {
    .name = KVLANE_STRING(KVLANE_ISA_NAME),
#define KVLANE_FORMAT(name, bits, scale, group) bytes_from_group<Isa, format::name>(),
    .bytes_from_group =
        {
#include "formats.inc"
        },
#undef KVLANE_FORMAT
    .dot = &KVLANE_OF_ISA(dot_table),
    .sum = &KVLANE_OF_ISA(sum_table),
#define KVLANE_FORMAT(name, bits, scale, group) encode<Isa, format::name>,
    .encode =
        {
#include "formats.inc"
        },
#undef KVLANE_FORMAT
#define KVLANE_FORMAT(name, bits, scale, group) decode<Isa, format::name>,
    .decode =
        {
#include "formats.inc"
        },
#undef KVLANE_FORMAT
    .decode_chunk = decode_chunk<Isa>,
    .merge = merge<Isa>,
};

}  // namespace kvlane

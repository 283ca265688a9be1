// One isa's kernels. The build compiles this file once for every row of isa.inc, with that row's flags, KVLANE_ISA_NAME set
// to its name and KVLANE_ISA_HEADER to its header in simd/.

#include KVLANE_ISA_HEADER

#include "decode-inl.hpp"
#include "dot-inl.hpp"
#include "encode-inl.hpp"
#include "weighted_sum-inl.hpp"

#define KVLANE_STRING_(x) #x
#define KVLANE_STRING(x) KVLANE_STRING_(x)

namespace kvlane {

#define KVLANE_TABLE__(name) table_##name
#define KVLANE_TABLE_(name) KVLANE_TABLE__(name)
#define KVLANE_TABLE KVLANE_TABLE_(KVLANE_ISA_NAME)

extern const KernelTable KVLANE_TABLE;

using Isa = isa::KVLANE_ISA_NAME;

constexpr KernelTable KVLANE_TABLE = {
    .name = KVLANE_STRING(KVLANE_ISA_NAME),
#define KVLANE_FORMAT(name, bits, scale, group) bytes_from_group<Isa, format::name>(),
    .bytes_from_group =
        {
#include "formats.inc"
        },
#undef KVLANE_FORMAT
#define KVLANE_BY_NUMBERS(kernel, numbers, name)                             \
    {kernel<Isa, format::name, numbers<Isa, format::name>(Numbers::floats)>, \
     kernel<Isa, format::name, numbers<Isa, format::name>(Numbers::scaled)>, \
     kernel<Isa, format::name, numbers<Isa, format::name>(Numbers::words)>,  \
     kernel<Isa, format::name, numbers<Isa, format::name>(Numbers::bytes)>},
#define KVLANE_FORMAT(name, bits, scale, group) KVLANE_BY_NUMBERS(dot, numbers_of_keys, name)
    .dot =
        {
#include "formats.inc"
        },
#undef KVLANE_FORMAT
#define KVLANE_FORMAT(name, bits, scale, group) KVLANE_BY_NUMBERS(weighted_sum, numbers_of_values, name)
    .sum =
        {
#include "formats.inc"
        },
#undef KVLANE_FORMAT
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

// One isa's kernel table, and the kernels that are not in its other units.

#include "isa_unit.hpp"
#include "merge-inl.hpp"
#include "pack-inl.hpp"

namespace kvlane {

constexpr KernelTable KVLANE_OF_ISA(table) = {
    .name = KVLANE_STRING(KVLANE_ISA_NAME),
    .has_byte_products = Isa::has_byte_products,
    .products =
        {
#define KVLANE_FORMAT(name, bits, scale, group) \
    &(format::name::is_scaled ? KVLANE_OF_ISA(integer_products) : KVLANE_OF_ISA(float_products))[format::index_##name],
#include "formats.inc"
#undef KVLANE_FORMAT
        },
    .softmax = {softmax_tile<Isa, ComputeType::f32>, softmax_tile<Isa, ComputeType::dequantized>,
                softmax_tile<Isa, ComputeType::i16>, softmax_tile<Isa, compute_type<format::q8, ComputeType::i8>>},
    .pack =
        {
#define KVLANE_FORMAT(name, bits, scale, group) {pack<Isa, format::name, false>, pack<Isa, format::name, true>},
#include "formats.inc"
#undef KVLANE_FORMAT
        },
    .unpack =
        {
#define KVLANE_FORMAT(name, bits, scale, group) {unpack<Isa, format::name, false>, unpack<Isa, format::name, true>},
#include "formats.inc"
#undef KVLANE_FORMAT
        },
    .rotate_row = rotate_row<Isa>,
    .load_row = load_row<Isa>,
    .attend_chunk = attend_chunk<Isa>,
    .merge = merge<Isa>,
    .finish_rows = finish_rows<Isa>,
};

}  // namespace kvlane

#pragma once

// Shared by the translation units of an isa. The build compiles each of isa.cpp, isa_floats.cpp and isa_integers.cpp
// once for every row of isa.inc, with that row's flags, KVLANE_ISA_NAME set to its name and KVLANE_ISA_HEADER to its header
// in simd/. The split lets several cores compile an isa in parallel; scores and weighted sums share micro-kernels.

#include KVLANE_ISA_HEADER

#include "attend_chunk-inl.hpp"

#define KVLANE_STRING_(x) #x
#define KVLANE_STRING(x) KVLANE_STRING_(x)
#define KVLANE_JOIN_(a, b) a##_##b
#define KVLANE_JOIN(a, b) KVLANE_JOIN_(a, b)

// The isa-specific name of an object: table_avx2, for example.
#define KVLANE_OF_ISA(name) KVLANE_JOIN(name, KVLANE_ISA_NAME)

namespace kvlane {

using Isa = isa::KVLANE_ISA_NAME;

// The compute type used for N: the nearest that the format (integer or not) and the isa (byte products or not) support.
template <class Format, ComputeType N>
static constexpr ComputeType compute_type = !Format::is_scaled                                ? ComputeType::f32
                                            : N == ComputeType::f32                           ? ComputeType::dequantized
                                            : N == ComputeType::i8 && !Isa::has_byte_products ? ComputeType::i16
                                                                                              : N;

// A format's kernels for both products, in the unit for formats that are scaled, or not; nulls in the other.
template <class Format, bool IsScaled>
static constexpr ProductKernels products_of() {
    ProductKernels kernels = {};
    if constexpr (Format::is_scaled == IsScaled) {
        unroll<4>([&](auto i) {
            constexpr ComputeType n = compute_type<Format, static_cast<ComputeType>(i.value)>;
            kernels.score[i] = score_tile<Isa, Format, n>;
            if constexpr (n != ComputeType::i8 || Format::group > 0) {  // 8 bits are too few for weights of q8
                kernels.sum[i] = sum_tile<Isa, Format, n>;
            }
        });
        if constexpr (!IsScaled) {  // stored integers cannot be NaN or infinite
            kernels.sum_visible = sum_visible<Isa, Format>;
        }
    }
    return kernels;
}

extern const ProductKernels KVLANE_OF_ISA(float_products)[format::count];
extern const ProductKernels KVLANE_OF_ISA(integer_products)[format::count];
extern const KernelTable KVLANE_OF_ISA(table);

}  // namespace kvlane

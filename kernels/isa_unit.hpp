#pragma once

// Shared by the translation units of an isa. The build compiles each of isa.cpp, isa_scores.cpp and isa_sums.cpp
// once for every row of isa.inc, with that row's flags, KVLANE_ISA_NAME set to its name and KVLANE_ISA_HEADER to its header
// in simd/. The split lets several cores compile an isa in parallel.

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
template <class Format, Numbers N>
static constexpr Numbers numbers = !Format::is_scaled                               ? Numbers::floats
                                   : N == Numbers::floats                           ? Numbers::scaled
                                   : N == Numbers::bytes && !Isa::has_byte_products ? Numbers::words
                                                                                    : N;

extern const ScoreTable KVLANE_OF_ISA(score_table);
extern const SumTable KVLANE_OF_ISA(sum_table);
extern const KernelTable KVLANE_OF_ISA(table);

}  // namespace kvlane

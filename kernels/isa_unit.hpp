#pragma once

// What the translation units of an isa have in common. The build compiles each of isa.cpp, isa_dot.cpp and isa_sum.cpp once
// for every row of isa.inc, with that row's flags, KVLANE_ISA_NAME set to its name and KVLANE_ISA_HEADER to its header in
// simd/. They are several so that two cores share the work of compiling an isa.

#include KVLANE_ISA_HEADER

#include "kernel_table.hpp"

#define KVLANE_STRING_(x) #x
#define KVLANE_STRING(x) KVLANE_STRING_(x)
#define KVLANE_JOIN_(a, b) a##_##b
#define KVLANE_JOIN(a, b) KVLANE_JOIN_(a, b)

// The name of an isa's own object: table_avx2, for example.
#define KVLANE_OF_ISA(name) KVLANE_JOIN(name, KVLANE_ISA_NAME)

// A format's row of a kernel: an instance for each kind of Numbers that numbers<Isa, format> maps it to.
#define KVLANE_BY_NUMBERS(kernel, numbers, name)                             \
    {kernel<Isa, format::name, numbers<Isa, format::name>(Numbers::floats)>, \
     kernel<Isa, format::name, numbers<Isa, format::name>(Numbers::scaled)>, \
     kernel<Isa, format::name, numbers<Isa, format::name>(Numbers::words)>,  \
     kernel<Isa, format::name, numbers<Isa, format::name>(Numbers::bytes)>},

namespace kvlane {

using Isa = isa::KVLANE_ISA_NAME;

extern const DotTable KVLANE_OF_ISA(dot_table);
extern const SumTable KVLANE_OF_ISA(sum_table);
extern const KernelTable KVLANE_OF_ISA(table);

}  // namespace kvlane

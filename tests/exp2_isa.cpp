// One isa's exp2, over an array; compiled once for every row of isa.inc, as kernels/isa.cpp is.

#include KVLANE_ISA_HEADER

#include "../kernels/exp-inl.hpp"

namespace test {

template <class Isa>
void exp2_each(const float *x, float *y, int n) {
    for (int i = 0; i < n; i += Isa::lanes) {
        Isa::store(y + i, kvlane::exp2<Isa>(Isa::load(x + i)));
    }
}

template void exp2_each<kvlane::isa::KVLANE_ISA_NAME>(const float *, float *, int);

}  // namespace test

// Functions of one isa that tests call over arrays; compiled once for every row of isa.inc, as kernels/isa.cpp is.

#include "functions.hpp"

#include <numeric>

#include KVLANE_ISA_HEADER

#include "../kernels/exp-inl.hpp"

namespace test {
namespace {

template <class Isa>
void exp2_each(const float *x, float *y, int n) {
    for (int i = 0; i < n; i += Isa::lanes) {
        Isa::store(y + i, kvlane::exp2<Isa>(Isa::load(x + i)));
    }
}

template <class Isa>
void multiply_words_each(const int16_t *a, const int16_t *b, int16_t *to, int n) {
    for (int i = 0; i < n; i += 2 * Isa::lanes) {
        Isa::multiply_words(to + i, a + i, b + i);
    }
}

template <class Isa>
void unpack_codes_each(const std::byte *codes, std::byte *lower, std::byte *upper, int n) {
    for (int i = 0; i < n; i += 4 * Isa::lanes) {
        Isa::unpack_codes(codes + i, lower + i, upper + i);
    }
}

template <class Isa>
int32_t sum_of(const int8_t *x, int n) {
    if constexpr (requires { Isa::sum_of(x, n); }) {
        return Isa::sum_of(x, n);
    }
    return std::accumulate(x, x + n, 0);
}

}  // namespace

template <class Isa>
Functions functions_of() {
    return {.exp2 = exp2_each<Isa>,
            .multiply_words = multiply_words_each<Isa>,
            .unpack_codes = unpack_codes_each<Isa>,
            .sum_of = sum_of<Isa>};
}
template Functions functions_of<kvlane::isa::KVLANE_ISA_NAME>();

}  // namespace test

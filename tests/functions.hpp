#pragma once

// Functions of one isa over arrays, for tests.

#include <cstddef>
#include <cstdint>

namespace test {

struct Functions {
    void (*exp2)(const float *x, float *y, int n);                                            // n: a multiple of 16
    void (*multiply_words)(const int16_t *a, const int16_t *b, int16_t *to, int n);           // of 32
    void (*unpack_codes)(const std::byte *codes, std::byte *lower, std::byte *upper, int n);  // of 64
    int32_t (*sum_of)(const int8_t *x, int n);                                                // of 16
};

template <class Isa>
Functions functions_of();  // functions_isa.cpp has one for each isa

Functions functions_in_force();

}  // namespace test

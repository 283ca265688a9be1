#pragma once

// Conversion of f16 and bf16 without special instructions, one element at a time; the reference for testing the isas.

#include <cstdint>
#include <cstring>

namespace kvlane::isa {

// Templated on the isa so that each isa has its own symbols.
template <class Isa>
struct Half {
    static uint32_t bits(float x) {
        uint32_t u;
        std::memcpy(&u, &x, sizeof u);
        return u;
    }

    static float value(uint32_t u) {
        float x;
        std::memcpy(&x, &u, sizeof x);
        return x;
    }

    static float from_f16(uint16_t h) {
        const uint32_t sign = uint32_t{h & 0x8000u} << 16;
        const uint32_t magnitude = h & 0x7fffu;
        if (magnitude < 0x400) {  // zero or denormal: a multiple of 2^-24
            return value(sign | bits(static_cast<float>(magnitude) * 0x1p-24f));
        }
        const bool finite = magnitude < 0x7c00;
        const uint32_t quiet = magnitude > 0x7c00 ? 0x400000u : 0;
        return value(sign | ((magnitude << 13) + (finite ? 112u << 23 : 224u << 23)) | quiet);
    }

    static uint16_t to_f16(float x) {
        const uint32_t u = bits(x);
        const uint32_t sign = (u >> 16) & 0x8000u;
        const uint32_t magnitude = u & 0x7fffffffu;
        if (magnitude > 0x7f800000u) {
            return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
        }
        if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
            return static_cast<uint16_t>(sign | 0x7c00u);
        }
        if (magnitude < 0x38800000u) {  // below 2^-14: adding 2^-1 rounds to a multiple of 2^-24
            return static_cast<uint16_t>(sign | (bits(value(magnitude) + 0.5f) - bits(0.5f)));
        }
        const uint32_t odd = (magnitude >> 13) & 1;
        return static_cast<uint16_t>(sign | ((magnitude - (112u << 23) + 0xfffu + odd) >> 13));
    }

    static float from_bf16(uint16_t h) { return value(uint32_t{h} << 16); }

    static uint16_t to_bf16(float x) {
        const uint32_t u = bits(x);
        if ((u & 0x7fffffffu) > 0x7f800000u) {
            return static_cast<uint16_t>((u >> 16) | 0x40u);
        }
        return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
    }
};

}  // namespace kvlane::isa

// The naive attention, as a compiler makes it for this isa: plain loops, free to be vectorised (-ffast-math). Compiled once
// for every row of isa.inc, as kernels/isa.cpp is.

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "../kernels/view.hpp"
#include "baseline.hpp"

namespace bench {
namespace {

// Finite values only, so that it can be vectorised.
float value_of(uint16_t f16) {
    const auto magnitude = std::bit_cast<uint32_t>(std::bit_cast<float>((f16 & 0x7fffu) << 13) * 0x1p112f);
    return std::bit_cast<float>(magnitude | (f16 & 0x8000u) << 16);
}

float value_of(float f32) { return f32; }

struct Bf16 {
    uint16_t bits;
};
float value_of(Bf16 bf16) { return std::bit_cast<float>(uint32_t{bf16.bits} << 16); }

template <class Stored>
float dot(const float *q, const std::byte *row, uint32_t dim) {
    const auto *stored = reinterpret_cast<const Stored *>(row);
    float sum = 0;
    for (uint32_t d = 0; d < dim; ++d) {
        sum += q[d] * value_of(stored[d]);
    }
    return sum;
}

template <class Stored>
void add_row(float weight, const std::byte *row, uint32_t dim, float *out) {
    const auto *stored = reinterpret_cast<const Stored *>(row);
    for (uint32_t d = 0; d < dim; ++d) {
        out[d] += weight * value_of(stored[d]);
    }
}

void softmax(float *scores, int64_t n) {
    float m = scores[0];
    for (int64_t t = 1; t < n; ++t) {
        m = scores[t] > m ? scores[t] : m;
    }
    float l = 0;
    for (int64_t t = 0; t < n; ++t) {
        scores[t] = expf(scores[t] - m);
        l += scores[t];
    }
    for (int64_t t = 0; t < n; ++t) {
        scores[t] /= l;
    }
}

using Dot = float(const float *, const std::byte *, uint32_t);
using AddRow = void(float, const std::byte *, uint32_t, float *);

// By format of rows, in the order of formats.inc.
constexpr Dot *dots[] = {dot<float>, dot<uint16_t>, dot<Bf16>};
constexpr AddRow *add_rows[] = {add_row<float>, add_row<uint16_t>, add_row<Bf16>};

}  // namespace

#define KVLANE_NAME_(name) naive_##name
#define KVLANE_NAME(name) KVLANE_NAME_(name)

Naive KVLANE_NAME(KVLANE_ISA_NAME);

void KVLANE_NAME(KVLANE_ISA_NAME)(const kvl_view &view, int64_t len, uint32_t kv_head, const float *q, float scale,
                                  float *scores, float *out) {
    for (int64_t t = 0; t < len; ++t) {
        scores[t] = scale * dots[view.k_format](q, kvlane::k_row(view, *view.spans, kv_head, t), view.head_dim);
    }
    softmax(scores, len);
    for (uint32_t d = 0; d < view.v_head_dim; ++d) {
        out[d] = 0;
    }
    for (int64_t t = 0; t < len; ++t) {
        add_rows[view.v_format](scores[t], kvlane::v_row(view, *view.spans, kv_head, t), view.v_head_dim, out);
    }
}

}  // namespace bench

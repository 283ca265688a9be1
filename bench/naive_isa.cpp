// The naive attention, as a compiler makes it for this isa: plain loops, free to be vectorised (-ffast-math). Compiled once
// for every row of isa.inc, as kernels/isa.cpp is.

#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>

#include "../kernels/formats.hpp"
#include "../kernels/view.hpp"
#include "baseline.hpp"

namespace bench {
namespace {

// Finite values only, so that it can be vectorised.
float value_of(uint16_t f16) {
    const auto magnitude = std::bit_cast<uint32_t>(std::bit_cast<float>((f16 & 0x7fffu) << 13) * 0x1p112f);
    return std::bit_cast<float>(magnitude | (f16 & 0x8000u) << 16);
}

struct F32 {
    using Stored = float;
    static float value(float x) { return x; }
};

struct F16 {
    using Stored = uint16_t;
    static float value(uint16_t x) { return value_of(x); }
};

struct Bf16 {
    using Stored = uint16_t;
    static float value(uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16); }
};

struct Q8 {
    using Stored = int8_t;
    static float value(int8_t x) { return x; }
};

template <class Format>
float dot(const float *q, const std::byte *row, uint32_t dim) {
    const auto *k = reinterpret_cast<const typename Format::Stored *>(row);
    float sum = 0;
    for (uint32_t d = 0; d < dim; ++d) {
        sum += q[d] * Format::value(k[d]);
    }
    return sum;
}

template <class Format>
void add_row(float weight, const std::byte *row, uint32_t dim, float *out) {
    const auto *v = reinterpret_cast<const typename Format::Stored *>(row);
    for (uint32_t d = 0; d < dim; ++d) {
        out[d] += weight * Format::value(v[d]);
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

// By format, in the order of formats.inc.
constexpr Dot *dots[] = {dot<F32>, dot<F16>, dot<Bf16>, dot<Q8>};
constexpr AddRow *add_rows[] = {add_row<F32>, add_row<F16>, add_row<Bf16>, add_row<Q8>};
static_assert(std::size(dots) == kvlane::format::count && std::size(add_rows) == kvlane::format::count);

float scale_at(const std::byte *p) {
    float scale;
    std::memcpy(&scale, p, sizeof scale);
    return scale;
}

float key_scale(const kvl_view &view, uint32_t kv_head, int64_t t) {
    return kvlane::format::is_scaled(view.k_format) ? scale_at(kvlane::k_scale(view, *view.spans, kv_head, t)) : 1;
}

float value_scale(const kvl_view &view, uint32_t kv_head, int64_t t) {
    return kvlane::format::is_scaled(view.v_format) ? scale_at(kvlane::v_scale(view, *view.spans, kv_head, t)) : 1;
}

}  // namespace

#define KVLANE_NAME_(name) naive_##name
#define KVLANE_NAME(name) KVLANE_NAME_(name)

Naive KVLANE_NAME(KVLANE_ISA_NAME);

void KVLANE_NAME(KVLANE_ISA_NAME)(const kvl_view &view, int64_t len, uint32_t kv_head, const float *q, float scale,
                                  float *scores, float *out) {
    for (int64_t t = 0; t < len; ++t) {
        const std::byte *row = kvlane::k_row(view, *view.spans, kv_head, t);
        scores[t] = scale * key_scale(view, kv_head, t) * dots[view.k_format](q, row, view.head_dim);
    }
    softmax(scores, len);
    for (uint32_t d = 0; d < view.v_head_dim; ++d) {
        out[d] = 0;
    }
    for (int64_t t = 0; t < len; ++t) {
        const std::byte *row = kvlane::v_row(view, *view.spans, kv_head, t);
        add_rows[view.v_format](scores[t] * value_scale(view, kv_head, t), row, view.v_head_dim, out);
    }
}

}  // namespace bench

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

// How a format's element d is read from a row, and what stands beside it.
template <class Stored, float (*Value)(Stored)>
struct Plain {
    static float at(const std::byte *row, const std::byte *, uint32_t d, uint32_t) {
        return Value(reinterpret_cast<const Stored *>(row)[d]);
    }
};

float value_of_f32(float x) { return x; }
float value_of_bf16(uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16); }
float value_of_q8(int8_t x) { return x; }

struct Q4 {
    static float at(const std::byte *row, const std::byte *entry, uint32_t d, uint32_t dim) {
        const uint32_t group = d / 32, left = dim - 32 * group, half = left < 32 ? (left + 1) / 2 : 16, in_group = d % 32;
        const auto both = static_cast<uint32_t>(row[16 * group + in_group % half]);
        const auto stored = static_cast<int>(in_group < half ? both & 15 : both >> 4);
        return static_cast<float>((stored - 8) * static_cast<int>(entry[sizeof(float) + group]));
    }
};

template <class Format>
float dot(const float *q, const std::byte *row, const std::byte *entry, uint32_t dim) {
    float sum = 0;
    for (uint32_t d = 0; d < dim; ++d) {
        sum += q[d] * Format::at(row, entry, d, dim);
    }
    return sum;
}

template <class Format>
void add_row(float weight, const std::byte *row, const std::byte *entry, uint32_t dim, float *out) {
    for (uint32_t d = 0; d < dim; ++d) {
        out[d] += weight * Format::at(row, entry, d, dim);
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

using Dot = float(const float *, const std::byte *, const std::byte *, uint32_t);
using AddRow = void(float, const std::byte *, const std::byte *, uint32_t, float *);

using F32 = Plain<float, value_of_f32>;
using F16 = Plain<uint16_t, value_of>;
using Bf16 = Plain<uint16_t, value_of_bf16>;
using Q8 = Plain<int8_t, value_of_q8>;

// By format, in the order of formats.inc.
constexpr Dot *dots[] = {dot<F32>, dot<F16>, dot<Bf16>, dot<Q8>, dot<Q4>};
constexpr AddRow *add_rows[] = {add_row<F32>, add_row<F16>, add_row<Bf16>, add_row<Q8>, add_row<Q4>};
static_assert(std::size(dots) == kvlane::format::count && std::size(add_rows) == kvlane::format::count);

const std::byte *key_entry(const kvl_view &view, uint32_t kv_head, int64_t t) {
    return kvlane::format::is_scaled(view.k_format) ? kvlane::k_scale(view, *view.spans, kv_head, t) : nullptr;
}

const std::byte *value_entry(const kvl_view &view, uint32_t kv_head, int64_t t) {
    return kvlane::format::is_scaled(view.v_format) ? kvlane::v_scale(view, *view.spans, kv_head, t) : nullptr;
}

float scale_of(const std::byte *entry) {
    float scale = 1;
    if (entry) {
        std::memcpy(&scale, entry, sizeof scale);
    }
    return scale;
}

// A row of the cache's rotation to its elements, or back.
void rotate(float *x, uint32_t dim) {
    for (uint32_t first = 0, size; first < dim; first += size) {
        size = std::bit_floor(dim - first);
        for (uint32_t step = 1; step < size; step *= 2) {
            for (uint32_t d = first; d < first + size; ++d) {
                if (((d - first) & step) == 0) {
                    const float a = x[d], b = x[d + step];
                    x[d] = a + b;
                    x[d + step] = a - b;
                }
            }
        }
        for (uint32_t d = first; d < first + size; ++d) {
            x[d] /= sqrtf(static_cast<float>(size));
        }
    }
}

}  // namespace

#define KVLANE_NAME_(name) naive_##name
#define KVLANE_NAME(name) KVLANE_NAME_(name)

Naive KVLANE_NAME(KVLANE_ISA_NAME);

void KVLANE_NAME(KVLANE_ISA_NAME)(const kvl_view &view, int64_t len, uint32_t kv_head, const float *q, float scale,
                                  float *scores, float *out) {
    float rotated[KVL_MAX_HEAD_DIM];
    if (view.k_rotation == KVL_ROTATION_HADAMARD) {
        std::memcpy(rotated, q, view.head_dim * sizeof(float));
        rotate(rotated, view.head_dim);
        q = rotated;
    }
    for (int64_t t = 0; t < len; ++t) {
        const std::byte *entry = key_entry(view, kv_head, t);
        const std::byte *row = kvlane::k_row(view, *view.spans, kv_head, t);
        scores[t] = scale * scale_of(entry) * dots[view.k_format](q, row, entry, view.head_dim);
    }
    softmax(scores, len);
    for (uint32_t d = 0; d < view.v_head_dim; ++d) {
        out[d] = 0;
    }
    for (int64_t t = 0; t < len; ++t) {
        const std::byte *entry = value_entry(view, kv_head, t);
        const std::byte *row = kvlane::v_row(view, *view.spans, kv_head, t);
        add_rows[view.v_format](scores[t] * scale_of(entry), row, entry, view.v_head_dim, out);
    }
    if (view.v_rotation == KVL_ROTATION_HADAMARD) {
        rotate(out, view.v_head_dim);
    }
}

}  // namespace bench

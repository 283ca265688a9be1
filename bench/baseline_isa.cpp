// One isa's baseline; compiled once for every row of isa.inc, as kernels/isa.cpp is.

#include <cmath>

#include "baseline.hpp"

#define KVLANE_STRING_(x) #x
#define KVLANE_STRING(x) KVLANE_STRING_(x)
#include KVLANE_STRING(../kernels/simd/KVLANE_ISA_NAME.hpp)

#include "../kernels/rows-inl.hpp"
#include "../kernels/view.hpp"

namespace bench {
namespace {

using Isa = kvlane::isa::KVLANE_ISA_NAME;
using Vec = Isa::Vec;
using kvlane::unroll;

// The maximum of everything read: unlike a sum it is as fast on denormals and NaN as on numbers.
template <int Streams, bool Prefetch>
float read_in_streams(const std::byte *data, size_t bytes) {
    constexpr int line = kvlane::cache_line_bytes;
    constexpr int vectors = line / (Isa::lanes * static_cast<int>(sizeof(float)));
    constexpr int lines_at_once = 4 / Streams;
    constexpr int ahead = 16 * line;
    const size_t part = bytes / Streams;
    Vec largest[Streams * vectors];
    unroll<Streams * vectors>([&](auto i) { largest[i] = Isa::broadcast(0); });
    for (size_t at = 0; at < part; at += lines_at_once * line) {
        unroll<Streams>([&](auto s) {
            unroll<lines_at_once>([&](auto l) {
                const std::byte *p = data + s * part + at + l * line;
                if (Prefetch) {
                    __builtin_prefetch(p + ahead, 0, 3);
                }
                unroll<vectors>([&](auto i) {
                    Vec &kept = largest[s * vectors + i];
                    kept = Isa::max(kept, Isa::load(reinterpret_cast<const float *>(p) + i * Isa::lanes));
                });
            });
        });
    }
    unroll<Streams * vectors>([&](auto i) { largest[0] = Isa::max(largest[0], largest[i]); });
    return Isa::reduce_max(largest[0]);
}

float read(const std::byte *data, size_t bytes, int variant) {
    switch (variant) {
        case 0: return read_in_streams<1, false>(data, bytes);
        case 1: return read_in_streams<2, false>(data, bytes);
        case 2: return read_in_streams<4, false>(data, bytes);
        case 3: return read_in_streams<1, true>(data, bytes);
        case 4: return read_in_streams<2, true>(data, bytes);
        default: return read_in_streams<4, true>(data, bytes);
    }
}

int64_t multiply_add(int64_t n, float *sink) {
    constexpr int chains = 12;  // 2 ports x 4 or 5 cycles, and a register for each
    const Vec a = Isa::broadcast(0.999f);
    const Vec b = Isa::broadcast(0.001f);
    Vec acc[chains];
    unroll<chains>([&](auto i) { acc[i] = Isa::broadcast(static_cast<float>(i)); });
    int64_t done = 0;
    for (; done < n; done += chains * Isa::lanes) {
        unroll<chains>([&](auto i) { acc[i] = Isa::fma(acc[i], a, b); });
    }
    unroll<chains>([&](auto i) { acc[0] = acc[0] + acc[i]; });
    *sink = Isa::reduce_add(acc[0]);
    return done;
}

// What follows is what a runtime's vector routines do: four accumulators over one key, one value row at a time. The
// models' dims are whole vectors.
template <class Format>
float dot(const float *q, const std::byte *k, int dim) {
    constexpr int step = Isa::lanes;
    Vec acc[4] = {Isa::broadcast(0), Isa::broadcast(0), Isa::broadcast(0), Isa::broadcast(0)};
    int d = 0;
    for (; d + 4 * step <= dim; d += 4 * step) {
        unroll<4>([&](auto i) {
            acc[i] = Isa::fma(Isa::load(q + d + i * step), Isa::load(Format{}, k + (d + i * step) * Format::bytes), acc[i]);
        });
    }
    for (; d + step <= dim; d += step) {
        acc[0] = Isa::fma(Isa::load(q + d), Isa::load(Format{}, k + d * Format::bytes), acc[0]);
    }
    return Isa::reduce_add((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

template <class Format>
void multiply_add_row(float weight, const std::byte *v, int dim, float *out) {
    const Vec w = Isa::broadcast(weight);
    for (int d = 0; d + Isa::lanes <= dim; d += Isa::lanes) {
        Isa::store(out + d, Isa::fma(w, Isa::load(Format{}, v + d * Format::bytes), Isa::load(out + d)));
    }
}

using Dot = float (*)(const float *, const std::byte *, int);
using MultiplyAddRow = void (*)(float, const std::byte *, int, float *);

constexpr Dot dots[] = {
#define KVLANE_FORMAT(name, bits) dot<kvlane::format::name>,
#include "../kernels/formats.inc"
#undef KVLANE_FORMAT
};

constexpr MultiplyAddRow multiply_add_rows[] = {
#define KVLANE_FORMAT(name, bits) multiply_add_row<kvlane::format::name>,
#include "../kernels/formats.inc"
#undef KVLANE_FORMAT
};

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

void naive(const kvl_view &view, int64_t len, uint32_t kv_head, const float *q, float scale, float *scores, float *out) {
    const Dot dot_of = dots[view.k_format];
    const MultiplyAddRow add_row = multiply_add_rows[view.v_format];
    for (int64_t t = 0; t < len; ++t) {
        scores[t] = scale * dot_of(q, kvlane::k_row(view, *view.spans, kv_head, t), static_cast<int>(view.head_dim));
    }
    softmax(scores, len);
    for (uint32_t d = 0; d < view.v_head_dim; ++d) {
        out[d] = 0;
    }
    for (int64_t t = 0; t < len; ++t) {
        add_row(scores[t], kvlane::v_row(view, *view.spans, kv_head, t), static_cast<int>(view.v_head_dim), out);
    }
}

}  // namespace

#define KVLANE_BASELINE__(name) baseline_##name
#define KVLANE_BASELINE_(name) KVLANE_BASELINE__(name)
#define KVLANE_BASELINE KVLANE_BASELINE_(KVLANE_ISA_NAME)

extern const Baseline KVLANE_BASELINE;
constexpr Baseline KVLANE_BASELINE = {KVLANE_STRING(KVLANE_ISA_NAME), read, multiply_add, naive};

}  // namespace bench

// One isa's baseline; compiled once for every row of isa.inc, as kernels/isa.cpp is.

#include "baseline.hpp"

#include KVLANE_ISA_HEADER

#include "../kernels/unroll.hpp"

namespace bench {
namespace {

using Isa = kvlane::isa::KVLANE_ISA_NAME;
using Vec = Isa::Vec;
using kvlane::unroll;

// The maximum of everything read: unlike a sum it is as fast on denormals and NaN as on numbers.
template <int Streams, bool Prefetch>
float read_in_streams(const std::byte *data, size_t bytes) {
    constexpr int line = 64;  // of a CPU's cache, in bytes
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

}  // namespace

#define KVLANE_STRING_(x) #x
#define KVLANE_STRING(x) KVLANE_STRING_(x)
#define KVLANE_NAME__(prefix, name) prefix##_##name
#define KVLANE_NAME_(prefix, name) KVLANE_NAME__(prefix, name)
#define KVLANE_NAME(prefix) KVLANE_NAME_(prefix, KVLANE_ISA_NAME)

Naive KVLANE_NAME(naive);

extern const Baseline KVLANE_NAME(baseline);
constexpr Baseline KVLANE_NAME(baseline) = {KVLANE_STRING(KVLANE_ISA_NAME), read, multiply_add, KVLANE_NAME(naive)};

}  // namespace bench

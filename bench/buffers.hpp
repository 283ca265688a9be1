#pragma once

// The memory that is measured over.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kvlane/kvlane.hpp"

namespace bench {

// What calls must rotate over so that each finds its bytes in memory: twice the last-level cache, and enough for a laptop's
// and a server's alike. On a Xeon with 260 MB of it, reads over one, two, four and eight times as much are equally fast.
uint64_t cold_bytes();

// Tokens of a cache's tile.
inline constexpr int64_t tile_tokens = 64;

// Of f32, f16 and bf16.
inline uint64_t element_bytes(kvlane::Format format) { return format == kvlane::Format::f32 ? 4 : 2; }

std::vector<float> normals(size_t n);

// Appends n_tokens to every layer, all layers alike: random rows, the same ones over and over.
void fill(kvlane::Cache &cache, int64_t n_tokens);

// Straight memory, of a cache's own kind: random numbers of f32, f16 or bf16.
class Plane {
public:
    explicit Plane(uint64_t bytes, kvlane::Format format = kvlane::Format::f32);

    uint64_t bytes() const { return memory_.size(); }

    // The next that many bytes, from the start again where the end is reached.
    std::byte *next(size_t bytes);

private:
    kvlane::Cache cache_;
    std::span<std::byte> memory_;
    size_t at_ = 0;
};

}  // namespace bench

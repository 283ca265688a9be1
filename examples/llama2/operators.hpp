#pragma once

#include <kvlane/kvlane.hpp>

#include <complex>
#include <cstdint>
#include <span>

namespace llama2 {

/// Adds a vector to another.  x += y
void add(std::span<float> x, std::span<const float> y);

/// Multiplies a matrix and some vectors, reading it once for all.  out[i] = matrix x[i]
/// Shape:  out [n_vectors, rows]; matrix [rows, columns]; x [n_vectors, columns]
/// Pre:    out overlaps neither matrix nor x
/// Threads: the executor's; the calling thread's where executor is null. Bits do not depend on them
void multiply(std::span<float> out, std::span<const float> matrix, std::span<const float> x, size_t n_vectors,
              const kvl_executor *executor);

/// Normalises vectors.  out = weight * x / sqrt(mean(x^2) + epsilon)
/// Shape:  out and x [n_vectors, dim]; weight [dim]
/// Source: B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization" (2019)
void rms_norm(std::span<float> out, std::span<const float> x, std::span<const float> weight, float epsilon);

/// Computes the turns of a position, one for each pair of a head.  turns[i] = exp(j pos theta^(-2 i / head_dim))
/// Shape:  turns [head_dim / 2]
void set_turns(std::span<std::complex<float>> turns, int64_t pos, float theta);

/// Turns each head's adjacent pairs, as complex numbers (RoPE).  head[2 i, 2 i + 1] *= turns[i]
/// Shape:  heads [n_tokens, n_heads, head_dim]; turns [n_tokens, head_dim / 2]
/// Source: J. Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021)
void rotate(std::span<float> heads, std::span<const std::complex<float>> turns, size_t n_tokens);

/// Gates a vector.  gate = gate / (1 + exp(-gate)) * up
/// Shape:  both alike
/// Source: N. Shazeer, "GLU Variants Improve Transformer" (2020)
void swiglu(std::span<float> gate, std::span<const float> up);

}  // namespace llama2

#pragma once

// A caller's own rows: what a cache holds of a layer in f32, f16 or bf16, unrotated, as rows of any strides.

#include <vector>

#include "../kernels/simd/half.hpp"
#include "support.hpp"

namespace test {

/// The formats that rows may have.
inline std::vector<kvlane::Format> row_formats() { return {kvlane::Format::f32, kvlane::Format::f16, kvlane::Format::bf16}; }

/// Values that a format holds exactly, as stored.
inline std::vector<std::byte> stored(kvl_format format, const std::vector<float> &values) {
    using Half = kvlane::isa::Half<struct RowMemoryHalf>;
    std::vector<std::byte> bytes(values.size() * row_bytes(format, 1));
    for (size_t i = 0; i < values.size(); ++i) {
        if (format == KVL_F32) {
            std::memcpy(&bytes[4 * i], &values[i], 4);
        } else {
            const uint16_t half = format == KVL_F16 ? Half::to_f16(values[i]) : Half::to_bf16(values[i]);
            std::memcpy(&bytes[2 * i], &half, 2);
        }
    }
    return bytes;
}

/// Where row (token, head) of keys or values begins, in bytes.
struct Strides {
    int64_t token;
    int64_t head;
};

/// Copies of all tokens of a layer; view() is one of one span.
class RowMemory {
public:
    /// Rows by head, [head][token][dim], or by token, [token][head][dim]; `gap` bytes follow each row, and the first begins
    /// `shift` bytes off a cache line.
    explicit RowMemory(const kvlane::Cache &cache, uint32_t layer = 0, bool token_major = false, int64_t gap = 0,
                       size_t shift = 0)
        : shift_(shift) {
        const kvl_layer_info info = cache.info(layer);
        view_.struct_size = sizeof view_;
        view_.n_kv_heads = info.n_kv_heads;
        view_.head_dim = info.head_dim;
        view_.v_head_dim = info.v_head_dim;
        view_.k_format = info.k_format;
        view_.v_format = info.v_format;
        view_.k_rotation = info.k_rotation;
        view_.v_rotation = info.v_rotation;
        view_.len = info.len;
        view_.n_spans = 1;
        span_.n_tokens = info.len;
        for (const bool keys : {true, false}) {
            const uint32_t dim = keys ? info.head_dim : info.v_head_dim;
            const kvl_format format = keys ? info.k_format : info.v_format;
            const auto row = static_cast<int64_t>(row_bytes(format, dim));
            const int64_t len = std::max<int64_t>(1, info.len);
            const Strides strides =
                token_major ? Strides{(row + gap) * info.n_kv_heads, row + gap} : Strides{row + gap, (row + gap) * len};
            const std::vector<std::byte> rows = stored(format, keys ? cache.read_k(layer) : cache.read_v(layer));
            std::vector<std::byte> &memory = keys ? k_ : v_;
            memory.assign(static_cast<size_t>((row + gap) * len * info.n_kv_heads) + line + shift, std::byte{0xff});  // NaN
            std::byte *const first = first_row(memory);
            for (int64_t t = 0; t < info.len; ++t) {
                for (uint32_t head = 0; head < info.n_kv_heads; ++head) {
                    std::memcpy(first + t * strides.token + head * strides.head, &rows[(t * info.n_kv_heads + head) * row],
                                static_cast<size_t>(row));
                }
            }
            (keys ? view_.k_token_stride_bytes : view_.v_token_stride_bytes) = strides.token;
            (keys ? view_.k_head_stride_bytes : view_.v_head_stride_bytes) = strides.head;
        }
    }
    RowMemory(const RowMemory &) = delete;
    RowMemory &operator=(const RowMemory &) = delete;

    kvl_view view() {
        span_.k = first_row(k_);
        span_.v = first_row(v_);
        view_.spans = &span_;
        return view_;
    }

private:
    static constexpr size_t line = 64;

    std::byte *first_row(std::vector<std::byte> &memory) const {
        return memory.data() + line - reinterpret_cast<uintptr_t>(memory.data()) % line + shift_;
    }

    size_t shift_;
    std::vector<std::byte> k_, v_;
    kvl_span span_{};
    kvl_view view_{};
};

}  // namespace test

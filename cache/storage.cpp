#include "storage.hpp"

#include <cstring>

#include "../kernels/error.hpp"
#include "../kernels/view.hpp"

namespace kvlane {
namespace {

constexpr int64_t max_bytes = int64_t{1} << 47;  // what an address space of 48 bits leaves to a process

// A layer's stored keys or values of one KV head, from one token on.
CodecRows stored_rows(bool keys, const kvl_view &view, uint32_t kv_head, int64_t first, int64_t n_tokens) {
    const kvl_span &span = *view.spans;
    const uint32_t dim = keys ? view.head_dim : view.v_head_dim;
    const bool scaled = format::is_scaled(keys ? view.k_format : view.v_format);
    const std::byte *rows = keys ? k_row(view, span, kv_head, first) : v_row(view, span, kv_head, first);
    const std::byte *scales = !scaled ? nullptr
                              : keys  ? k_scale(view, span, kv_head, first)
                                      : v_scale(view, span, kv_head, first);
    return {.f32 = nullptr,
            .stored = const_cast<std::byte *>(rows),
            .entries = const_cast<std::byte *>(scales),
            .f32_stride_bytes = int64_t{view.n_kv_heads} * dim * static_cast<int64_t>(sizeof(float)),
            .stored_stride_bytes = keys ? view.k_token_stride_bytes : view.v_token_stride_bytes,
            .entry_stride_bytes = keys ? view.k_scale_token_stride_bytes : view.v_scale_token_stride_bytes,
            .n_rows = n_tokens,
            .dim = dim,
            .is_rotated = (keys ? view.k_rotation : view.v_rotation) == KVL_ROTATION_HADAMARD};
}

// The same beside that head's elements in the caller's memory, [n_tokens, n_kv_heads, dim].
CodecRows head_rows(bool keys, const kvl_view &view, uint32_t kv_head, int64_t first, int64_t n_tokens, const float *f32) {
    CodecRows rows = stored_rows(keys, view, kv_head, first, n_tokens);
    rows.f32 = const_cast<float *>(f32) + uint64_t{kv_head} * rows.dim;
    return rows;
}

// Rows and scales as they are stored.
void copy_rows(const CodecRows &from, const CodecRows &to) {
    std::memcpy(to.stored, from.stored, static_cast<size_t>(from.n_rows * from.stored_stride_bytes));
    if (from.entries && to.entries) {
        std::memcpy(to.entries, from.entries, static_cast<size_t>(from.n_rows * from.entry_stride_bytes));
    }
}

}  // namespace

kvl_status Storage::create(const KernelTable &kernels, std::vector<kvl_layer_desc> layers, int64_t max_tokens,
                           bool huge_pages) {
    int64_t bytes = 0;
    for (const kvl_layer_desc &layer : layers) {
        layouts_.push_back(layer_at(bytes, layer, max_tokens));
        bytes += layouts_.back().bytes;
        if (bytes > max_bytes) {
            break;
        }
    }
    if (bytes > max_bytes || !memory_.reserve(bytes)) {
        return fail(KVL_ERROR_MEMORY, "max_tokens is %" PRId64 "; %" PRId64 " bytes of address space for it cannot be had",
                    max_tokens, bytes);
    }
    for (const LayerLayout &layout : layouts_) {
        spans_.push_back({memory_.data() + layout.k.offset, memory_.data() + layout.v.offset, max_tokens,
                          memory_.data() + layout.k_scales.offset, memory_.data() + layout.v_scales.offset});
    }
    huge_pages_of_.resize(layers.size());
    kernels_ = &kernels;
    layers_ = std::move(layers);
    max_tokens_ = max_tokens;
    huge_pages_ = huge_pages;
    return KVL_OK;
}

int64_t Storage::bytes_per_token(uint32_t layer) const {
    const LayerLayout &layout = layouts_[layer];
    return layers_[layer].n_kv_heads * (layout.k.token_stride_bytes + layout.v.token_stride_bytes +
                                        layout.k_scales.token_stride_bytes + layout.v_scales.token_stride_bytes);
}

kvl_view Storage::view(uint32_t layer, int64_t len) const {
    const kvl_layer_desc &desc = layers_[layer];
    const LayerLayout &layout = layouts_[layer];
    return {.struct_size = sizeof(kvl_view),
            .flags = 0,
            .n_kv_heads = desc.n_kv_heads,
            .head_dim = desc.head_dim,
            .v_head_dim = desc.v_head_dim,
            .k_format = desc.k_format,
            .v_format = desc.v_format,
            .k_token_stride_bytes = layout.k.token_stride_bytes,
            .k_head_stride_bytes = layout.k.head_stride_bytes,
            .v_token_stride_bytes = layout.v.token_stride_bytes,
            .v_head_stride_bytes = layout.v.head_stride_bytes,
            .k_scale_token_stride_bytes = layout.k_scales.token_stride_bytes,
            .k_scale_head_stride_bytes = layout.k_scales.head_stride_bytes,
            .v_scale_token_stride_bytes = layout.v_scales.token_stride_bytes,
            .v_scale_head_stride_bytes = layout.v_scales.head_stride_bytes,
            .len = len,
            .spans = &spans_[layer],
            .n_spans = 1,
            .reserved = 0,
            .k_rotation = desc.k_rotation,
            .v_rotation = desc.v_rotation};
}

// Asked for once half of each page would be in use: with a page for every head's plane, the first token of 32 layers of 8
// heads would otherwise commit a gigabyte. What was written before is collapsed into huge pages then, a plane an append and
// one more for every 64 tokens of it: a page takes about a millisecond.
void Storage::use_huge_pages(uint32_t layer, int64_t n_before, int64_t n_tokens) {
    const LayerLayout &layout = layouts_[layer];
    HugePages &pages = huge_pages_of_[layer];
    if (!huge_pages_) {
        return;
    }
    if (!pages.asked) {
        if (2 * (n_before + n_tokens) * layout.k.token_stride_bytes <
            std::min(huge_page_bytes, layout.k.head_stride_bytes)) {
            pages.small_tokens = std::max(pages.small_tokens, n_before + n_tokens);
            return;
        }
        memory_.ask_for_huge_pages(layout.offset, layout.bytes);
        pages.asked = true;
    }
    const uint32_t n_kv_heads = layers_[layer].n_kv_heads;
    for (int64_t left = 1 + n_tokens / 64; left > 0 && pages.small_tokens > 0 && pages.n_collapsed < 2 * n_kv_heads;
         --left) {
        const PlaneLayout &plane = pages.n_collapsed < n_kv_heads ? layout.k : layout.v;
        memory_.collapse(plane.offset + pages.n_collapsed % n_kv_heads * plane.head_stride_bytes,
                         pages.small_tokens * plane.token_stride_bytes);
        ++pages.n_collapsed;
    }
}

void Storage::write(uint32_t layer, int64_t first, int64_t n_tokens, const float *k, const float *v) {
    use_huge_pages(layer, first, n_tokens);
    const kvl_view to = view(layer, 0);
    for (uint32_t head = 0; head < to.n_kv_heads; ++head) {
        kernels_->encode[to.k_format](head_rows(true, to, head, first, n_tokens, k));
        kernels_->encode[to.v_format](head_rows(false, to, head, first, n_tokens, v));
    }
}

void Storage::read(bool keys, uint32_t layer, int64_t first, int64_t n_tokens, float *out) const {
    const kvl_view from = view(layer, 0);
    for (uint32_t head = 0; head < from.n_kv_heads; ++head) {
        kernels_->decode[keys ? from.k_format : from.v_format](head_rows(keys, from, head, first, n_tokens, out));
    }
}

void Storage::copy_tokens(const Storage &from, uint32_t layer, int64_t len) {
    if (len == 0) {
        return;
    }
    use_huge_pages(layer, 0, len);
    const kvl_view source = from.view(layer, len);
    const kvl_view target = view(layer, len);
    for (uint32_t head = 0; head < source.n_kv_heads; ++head) {
        for (const bool keys : {true, false}) {
            copy_rows(stored_rows(keys, source, head, 0, len), stored_rows(keys, target, head, 0, len));
        }
    }
}

}  // namespace kvlane

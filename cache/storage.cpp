#include "storage.hpp"

#include <cstring>

#include "../kernels/error.hpp"
#include "../kernels/view.hpp"

namespace kvlane {
namespace {

constexpr int64_t max_bytes = int64_t{1} << 47;  // what an address space of 48 bits leaves to a process

// One token's elements of every head, in the caller's memory.
CodecRows head_rows(const float *f32, uint32_t kv_head, uint32_t n_kv_heads, uint32_t dim, int64_t n_tokens,
                    const std::byte *stored, int64_t stored_stride_bytes) {
    return {const_cast<float *>(f32) + uint64_t{kv_head} * dim,
            const_cast<std::byte *>(stored),
            int64_t{n_kv_heads} * dim * static_cast<int64_t>(sizeof(float)),
            stored_stride_bytes,
            n_tokens,
            dim};
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
        spans_.push_back({memory_.data() + layout.k.offset, memory_.data() + layout.v.offset, max_tokens});
    }
    huge_pages_of_.resize(layers.size());
    kernels_ = &kernels;
    layers_ = std::move(layers);
    max_tokens_ = max_tokens;
    huge_pages_ = huge_pages;
    return KVL_OK;
}

int64_t Storage::bytes_per_token(uint32_t layer) const {
    return layers_[layer].n_kv_heads * (layouts_[layer].k.token_stride_bytes + layouts_[layer].v.token_stride_bytes);
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
            .len = len,
            .spans = &spans_[layer],
            .n_spans = 1,
            .reserved = 0};
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
        kernels_->encode[to.k_format](head_rows(k, head, to.n_kv_heads, to.head_dim, n_tokens,
                                                k_row(to, *to.spans, head, first), to.k_token_stride_bytes));
        kernels_->encode[to.v_format](head_rows(v, head, to.n_kv_heads, to.v_head_dim, n_tokens,
                                                v_row(to, *to.spans, head, first), to.v_token_stride_bytes));
    }
}

void Storage::read_k(uint32_t layer, int64_t first, int64_t n_tokens, float *out) const {
    const kvl_view from = view(layer, 0);
    for (uint32_t head = 0; head < from.n_kv_heads; ++head) {
        kernels_->decode[from.k_format](head_rows(out, head, from.n_kv_heads, from.head_dim, n_tokens,
                                                  k_row(from, *from.spans, head, first), from.k_token_stride_bytes));
    }
}

void Storage::read_v(uint32_t layer, int64_t first, int64_t n_tokens, float *out) const {
    const kvl_view from = view(layer, 0);
    for (uint32_t head = 0; head < from.n_kv_heads; ++head) {
        kernels_->decode[from.v_format](head_rows(out, head, from.n_kv_heads, from.v_head_dim, n_tokens,
                                                  v_row(from, *from.spans, head, first), from.v_token_stride_bytes));
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
        std::memcpy(const_cast<std::byte *>(k_row(target, *target.spans, head, 0)), k_row(source, *source.spans, head, 0),
                    static_cast<size_t>(len * source.k_token_stride_bytes));
        std::memcpy(const_cast<std::byte *>(v_row(target, *target.spans, head, 0)), v_row(source, *source.spans, head, 0),
                    static_cast<size_t>(len * source.v_token_stride_bytes));
    }
}

}  // namespace kvlane

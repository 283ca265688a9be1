#include "storage.hpp"

#include <cstring>
#include <utility>

#include "../kernels/error.hpp"
#include "../kernels/view.hpp"

namespace kvlane {
namespace {

constexpr int64_t max_bytes = int64_t{1} << 47;  // what an address space of 48 bits leaves to a process

// The stored keys or values of a run's tokens, of one KV head.
CodecRows stored_rows(bool keys, const kvl_view &view, const kvl_span &span, uint32_t kv_head) {
    const uint32_t dim = keys ? view.head_dim : view.v_head_dim;
    const bool scaled = format::is_scaled(keys ? view.k_format : view.v_format);
    const std::byte *rows = keys ? k_row(view, span, kv_head, 0) : v_row(view, span, kv_head, 0);
    const std::byte *scales = !scaled ? nullptr : keys ? k_scale(view, span, kv_head, 0) : v_scale(view, span, kv_head, 0);
    return {.f32 = nullptr,
            .stored = const_cast<std::byte *>(rows),
            .entries = const_cast<std::byte *>(scales),
            .f32_stride_bytes = int64_t{view.n_kv_heads} * dim * static_cast<int64_t>(sizeof(float)),
            .stored_stride_bytes = keys ? view.k_token_stride_bytes : view.v_token_stride_bytes,
            .entry_stride_bytes = keys ? view.k_scale_token_stride_bytes : view.v_scale_token_stride_bytes,
            .n_rows = span.n_tokens,
            .dim = dim,
            .is_rotated = (keys ? view.k_rotation : view.v_rotation) == KVL_ROTATION_HADAMARD};
}

// The same beside that head's elements in the caller's memory, [n_tokens, n_kv_heads, dim].
CodecRows head_rows(bool keys, const kvl_view &view, const kvl_span &span, uint32_t kv_head, const float *f32) {
    CodecRows rows = stored_rows(keys, view, span, kv_head);
    rows.f32 = const_cast<float *>(f32) + uint64_t{kv_head} * rows.dim;
    return rows;
}

// Of all heads, padding included.
int64_t stored_bytes(const kvl_view &shape) {
    return shape.n_kv_heads * (shape.k_token_stride_bytes + shape.v_token_stride_bytes + shape.k_scale_token_stride_bytes +
                               shape.v_scale_token_stride_bytes);
}

// Rows and scales as they are stored.
void copy_rows(const CodecRows &from, const CodecRows &to) {
    std::memcpy(to.stored, from.stored, static_cast<size_t>(from.n_rows * from.stored_stride_bytes));
    if (from.entries && to.entries) {
        std::memcpy(to.entries, from.entries, static_cast<size_t>(from.n_rows * from.entry_stride_bytes));
    }
}

// Rows of one format to those of another, by way of f32, as they are: what is rotated stays so.
void convert_rows(void (*decode)(const CodecRows &), void (*encode)(const CodecRows &), CodecRows from, CodecRows to) {
    float row[KVL_MAX_HEAD_DIM];
    from.f32 = to.f32 = row;
    from.is_rotated = to.is_rotated = false;
    const int64_t n_rows = std::exchange(from.n_rows, 1);
    to.n_rows = 1;
    for (int64_t i = 0; i < n_rows; ++i) {
        decode(from);
        encode(to);
        for (CodecRows *rows : {&from, &to}) {
            rows->stored += rows->stored_stride_bytes;
            rows->entries += rows->entry_stride_bytes;
        }
    }
}

}  // namespace

kvl_status Storage::create(const KernelTable &kernels, const std::vector<kvl_layer_desc> &layers, int64_t max_tokens,
                           bool huge_pages) {
    int64_t bytes = 0;
    for (const kvl_layer_desc &desc : layers) {
        Layer &layer = layers_.emplace_back();
        layer.finer = desc.n_first_f16 > 0 || desc.n_recent_f16 > 0
                          ? FinerTokens(desc.n_first_f16, desc.n_recent_f16, max_tokens)
                          : FinerTokens(max_tokens);
        layer.desc = desc;
        layer.desc.n_first_f16 = layer.finer.n_first();
        layer.desc.n_recent_f16 = layer.finer.n_recent();
        layer.layout = layer_at(bytes, desc, max_tokens, layer.finer.n_rows());
        bytes += layer.layout.bytes;
        if (bytes > max_bytes) {
            break;
        }
    }
    if (bytes > max_bytes) {
        return fail(KVL_ERROR_MEMORY,
                    "max_tokens is %" PRId64
                    "; its layers need more than the 2^47 bytes of an address space, layer %zu among them",
                    max_tokens, layers_.size() - 1);
    }
    if (!memory_.reserve(bytes)) {
        return fail(KVL_ERROR_MEMORY,
                    "max_tokens is %" PRId64 "; the system has not the %" PRId64 " bytes of address space that it needs",
                    max_tokens, bytes);
    }
    kernels_ = &kernels;
    max_tokens_ = max_tokens;
    huge_pages_ = huge_pages;
    for (Layer &layer : layers_) {
        layer.planes[false] = planes_of(layer, false);
        layer.planes[true] = planes_of(layer, true);
        make_views(layer, 0);
    }
    return KVL_OK;
}

kvl_status Storage::create_like(const Storage &other) {
    std::vector<kvl_layer_desc> layers;
    for (const Layer &layer : other.layers_) {
        layers.push_back(layer.desc);
    }
    return create(*other.kernels_, layers, other.max_tokens_, other.huge_pages_);
}

int64_t Storage::bytes_per_token(uint32_t layer) const { return stored_bytes(layers_[layer].planes[false].shape); }

int64_t Storage::bytes(uint32_t index) const {
    const Layer &layer = layers_[index];
    int64_t bytes = 0;
    for_each_run(layer, 0, layer.views[0].len,
                 [&](const Run &run) { bytes += run.span.n_tokens * stored_bytes(run.shape); });
    return bytes;
}

Storage::Planes Storage::planes_of(const Layer &layer, bool is_finer) const {
    const kvl_layer_desc &desc = layer.desc;
    const LayerLayout &layout = layer.layout;
    const bool k_is_finer = is_finer && format::is_scaled(desc.k_format);
    const bool v_is_finer = is_finer && format::is_scaled(desc.v_format);
    const PlaneLayout &k = k_is_finer ? layout.k_finer : layout.k;
    const PlaneLayout &v = v_is_finer ? layout.v_finer : layout.v;
    const PlaneLayout k_scales = k_is_finer ? PlaneLayout{} : layout.k_scales;
    const PlaneLayout v_scales = v_is_finer ? PlaneLayout{} : layout.v_scales;
    return {.shape = {.struct_size = sizeof(kvl_view),
                      .flags = 0,
                      .n_kv_heads = desc.n_kv_heads,
                      .head_dim = desc.head_dim,
                      .v_head_dim = desc.v_head_dim,
                      .k_format = is_finer ? format::finer_of(desc.k_format) : desc.k_format,
                      .v_format = is_finer ? format::finer_of(desc.v_format) : desc.v_format,
                      .k_token_stride_bytes = k.token_stride_bytes,
                      .k_head_stride_bytes = k.head_stride_bytes,
                      .v_token_stride_bytes = v.token_stride_bytes,
                      .v_head_stride_bytes = v.head_stride_bytes,
                      .k_scale_token_stride_bytes = k_scales.token_stride_bytes,
                      .k_scale_head_stride_bytes = k_scales.head_stride_bytes,
                      .v_scale_token_stride_bytes = v_scales.token_stride_bytes,
                      .v_scale_head_stride_bytes = v_scales.head_stride_bytes,
                      .len = 0,
                      .spans = nullptr,
                      .n_spans = 0,
                      .reserved = 0,
                      .k_rotation = desc.k_rotation,
                      .v_rotation = desc.v_rotation,
                      .next = nullptr,
                      .blocks = nullptr,
                      .n_blocks = 0,
                      .block_tokens = 0,
                      .k_block_stride_bytes = 0,
                      .v_block_stride_bytes = 0,
                      .k_scale_block_stride_bytes = 0,
                      .v_scale_block_stride_bytes = 0},
            .base = {.k = memory_.data() + k.offset,
                     .v = memory_.data() + v.offset,
                     .n_tokens = 0,
                     .k_scales = memory_.data() + k_scales.offset,
                     .v_scales = memory_.data() + v_scales.offset}};
}

kvl_span Storage::span_at(const Layer &layer, bool is_finer, int64_t first, int64_t n_tokens) {
    const auto &[shape, base] = layer.planes[is_finer];
    const int64_t row = is_finer ? layer.finer.row(first) : first;
    const int64_t k = format::is_scaled(layer.desc.k_format) ? row : first;
    const int64_t v = format::is_scaled(layer.desc.v_format) ? row : first;
    return {k_row(shape, base, 0, k), v_row(shape, base, 0, v), n_tokens, k_scale(shape, base, 0, first),
            v_scale(shape, base, 0, first)};
}

template <class Body>
void Storage::for_each_run(const Layer &layer, int64_t first, int64_t end, Body &&body) {
    for (const Section &section : layer.finer.sections()) {
        const int64_t section_end = std::min(end, section.end);
        int64_t n_tokens;
        for (int64_t t = std::max(first, section.first); t < section_end; t += n_tokens) {
            n_tokens = section_end - t;
            if (section.is_finer) {
                n_tokens = std::min(n_tokens, layer.finer.straight_rows(t));
            }
            body(Run{section.is_finer, layer.planes[section.is_finer].shape, t,
                     span_at(layer, section.is_finer, t, n_tokens)});
        }
    }
}

// A token of all heads is one piece of the caller's memory, but far apart as stored: a few tokens at a time, both sides are
// gone through in the order of memory.
template <class Body>
void Storage::for_each_short_run(const Layer &layer, int64_t first, int64_t end, Body &&body) {
    constexpr int64_t at_once = 8;
    for (int64_t t = first; t < end; t += at_once) {
        for_each_run(layer, t, std::min(end, t + at_once), body);
    }
}

void Storage::set_len(Layer &layer, int64_t len) {
    layer.views[0].len = len;
    if (layer.finer.is_used()) {
        make_views(layer, len);
    }
}

// A view for every section that has tokens; the first one always, so that there is one.
void Storage::make_views(Layer &layer, int64_t len) {
    kvl_view *view = layer.views;
    kvl_span *span = layer.spans;
    for (const Section &section : layer.finer.sections()) {
        if (section.first == section.end || section.first > std::max<int64_t>(0, len - 1)) {
            continue;
        }
        *view = layer.planes[section.is_finer].shape;
        view->len = len - section.first;
        view->spans = span;
        for_each_run(layer, section.first, section.end, [&](const Run &run) { *span++ = run.span; });
        view->n_spans = static_cast<uint32_t>(span - view->spans);
        if (view != layer.views) {
            view[-1].next = view;
        }
        ++view;
    }
}

// Asked for once half of each page would be in use: with a page for every head's plane, the first token of 32 layers of 8
// heads would otherwise commit a gigabyte. What was written before is collapsed into huge pages then, a plane an append and
// one more for every 64 tokens of it: a page takes about a millisecond.
void Storage::use_huge_pages(Layer &layer, int64_t n_before, int64_t n_tokens) const {
    const kvl_view &shape = layer.planes[false].shape;
    const LayerLayout &layout = layer.layout;
    HugePages &pages = layer.huge_pages;
    if (!huge_pages_) {
        return;
    }
    if (!pages.asked) {
        if (2 * (n_before + n_tokens) * shape.k_token_stride_bytes < std::min(huge_page_bytes, shape.k_head_stride_bytes)) {
            pages.small_tokens = std::max(pages.small_tokens, n_before + n_tokens);
            return;
        }
        memory_.ask_for_huge_pages(layout.offset, layout.bytes);
        pages.asked = true;
    }
    const uint32_t n_kv_heads = shape.n_kv_heads;
    for (int64_t left = 1 + n_tokens / 64; left > 0 && pages.small_tokens > 0 && pages.n_collapsed < 2 * n_kv_heads;
         --left) {
        const PlaneLayout &plane = pages.n_collapsed < n_kv_heads ? layout.k : layout.v;
        memory_.collapse(plane.offset + pages.n_collapsed % n_kv_heads * plane.head_stride_bytes,
                         pages.small_tokens * plane.token_stride_bytes);
        ++pages.n_collapsed;
    }
}

// From the planes of a layer's formats to the finer ones, or back.
void Storage::convert(const Layer &layer, int64_t first, int64_t end, bool to_finer) const {
    const kvl_view &source = layer.planes[!to_finer].shape;
    const kvl_view &target = layer.planes[to_finer].shape;
    int64_t n_tokens;
    for (int64_t t = first; t < end; t += n_tokens) {
        n_tokens = std::min(end - t, layer.finer.straight_rows(t));
        const kvl_span from = span_at(layer, !to_finer, t, n_tokens);
        const kvl_span to = span_at(layer, to_finer, t, n_tokens);
        for (uint32_t head = 0; head < source.n_kv_heads; ++head) {
            if (source.k_format != target.k_format) {
                convert_rows(kernels_->decode[source.k_format], kernels_->encode[target.k_format],
                             stored_rows(true, source, from, head), stored_rows(true, target, to, head));
            }
            if (source.v_format != target.v_format) {
                convert_rows(kernels_->decode[source.v_format], kernels_->encode[target.v_format],
                             stored_rows(false, source, from, head), stored_rows(false, target, to, head));
            }
        }
    }
}

void Storage::encode(const Layer &layer, int64_t first, int64_t end, const float *k, const float *v) const {
    for_each_short_run(layer, first, end, [&](const Run &run) {
        const uint64_t offset = static_cast<uint64_t>(run.first - first) * run.shape.n_kv_heads;
        for (const bool keys : {true, false}) {
            const auto encode_rows = kernels_->encode[keys ? run.shape.k_format : run.shape.v_format];
            const float *f32 = keys ? k + offset * run.shape.head_dim : v + offset * run.shape.v_head_dim;
            for (uint32_t head = 0; head < run.shape.n_kv_heads; ++head) {
                encode_rows(head_rows(keys, run.shape, run.span, head, f32));
            }
        }
    });
}

void Storage::write(uint32_t index, int64_t first, int64_t n_tokens, const float *k, const float *v) {
    Layer &layer = layers_[index];
    use_huge_pages(layer, first, n_tokens);
    const int64_t end = first + n_tokens;
    int64_t stop;
    for (int64_t t = first; t < end; t = stop) {
        // The ring has room for one tile more than it keeps: each is filled before what it replaces is due.
        stop = layer.finer.is_used() ? std::min(end, round_up(t + 1, tile_tokens)) : end;
        const uint64_t offset = static_cast<uint64_t>(t - first) * layer.desc.n_kv_heads;
        encode(layer, t, stop, k + offset * layer.desc.head_dim, v + offset * layer.desc.v_head_dim);
        convert(layer, layer.finer.encoded(), layer.finer.encoded_at(stop), false);
        layer.finer.grow(stop);
    }
    set_len(layer, end);
}

void Storage::truncate(uint32_t index, int64_t len) {
    Layer &layer = layers_[index];
    const int64_t aged = layer.finer.aged();
    convert(layer, layer.finer.truncate(len), std::min(len, aged), true);
    set_len(layer, len);
}

void Storage::read(bool keys, uint32_t layer, int64_t first, int64_t n_tokens, float *out) const {
    for_each_short_run(layers_[layer], first, first + n_tokens, [&](const Run &run) {
        const auto decode_rows = kernels_->decode[keys ? run.shape.k_format : run.shape.v_format];
        const uint32_t entry = run.shape.n_kv_heads * (keys ? run.shape.head_dim : run.shape.v_head_dim);
        float *f32 = out + static_cast<uint64_t>(run.first - first) * entry;
        for (uint32_t head = 0; head < run.shape.n_kv_heads; ++head) {
            decode_rows(head_rows(keys, run.shape, run.span, head, f32));
        }
    });
}

void Storage::copy_tokens(const Storage &from, uint32_t index) {
    Layer &layer = layers_[index];
    const Layer &source = from.layers_[index];
    const int64_t len = source.views[0].len;
    use_huge_pages(layer, 0, len);
    layer.finer = source.finer;
    const auto copy = [&](bool is_finer, int64_t first, int64_t n_tokens) {
        const kvl_view &shape = source.planes[is_finer].shape;
        const kvl_span source_span = span_at(source, is_finer, first, n_tokens);
        const kvl_span target_span = span_at(layer, is_finer, first, n_tokens);
        for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
            for (const bool keys : {true, false}) {
                copy_rows(stored_rows(keys, shape, source_span, head), stored_rows(keys, shape, target_span, head));
            }
        }
    };
    for_each_run(source, 0, len, [&](const Run &run) { copy(run.is_finer, run.first, run.span.n_tokens); });
    if (layer.finer.is_used()) {
        copy(false, layer.finer.aged(), layer.finer.encoded() - layer.finer.aged());
    }
    set_len(layer, len);
}

}  // namespace kvlane

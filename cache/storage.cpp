#include "storage.hpp"

#include <cerrno>
#include <cmath>
#include <cstring>

#include "../kernels/descriptor.hpp"
#include "../kernels/tiles.hpp"
#include "../kernels/view.hpp"
#include "numa.hpp"

namespace kvlane {
namespace {

constexpr int64_t max_bytes = int64_t{1} << 47;  // what an address space of 48 bits leaves to a process

int64_t tiles_of(int64_t n_tokens) { return (n_tokens + panel::tile_tokens - 1) / panel::tile_tokens; }

// Of tokens of all heads in one pool's formats, scales and padding included.
int64_t stored_bytes(const kvl_view &shape, int64_t n_tokens) {
    return n_tokens * shape.n_kv_heads * shape.k_token_stride_bytes / panel::tile_tokens;
}

}  // namespace

kvl_status Storage::create(const KernelTable &kernels, const std::vector<kvl_layer_desc> &layers, int64_t max_tokens,
                           bool huge_pages) {
    int64_t bytes = 0;
    for (const kvl_layer_desc &desc : layers) {
        Layer &layer = layers_.emplace_back();
        if (desc.n_first_f16 > 0 || desc.n_recent_f16 > 0) {
            layer.window = F16Window(desc.n_first_f16, desc.n_recent_f16);
        }
        layer.desc = desc;
        const size_t n_offsets = size_t{desc.n_kv_heads} * desc.head_dim;
        if (desc.k_offset) {
            layer.k_offset.assign(desc.k_offset, desc.k_offset + n_offsets);
        } else if (desc.flags & KVL_LAYER_ESTIMATE_K_OFFSET) {
            layer.k_offset.resize(n_offsets);
        }
        if (desc.numa_nodes) {
            layer.numa_nodes.assign(desc.numa_nodes, desc.numa_nodes + desc.n_kv_heads);
            layer.desc.numa_nodes = layer.numa_nodes.data();
        }
        layer.rotated_k_offset = layer.k_offset;  // has its size from here on: an append allocates nothing
        layer.desc.n_first_f16 = layer.window.n_first();
        layer.desc.n_recent_f16 = layer.window.n_recent();
        layer.layout = layer_at(bytes, desc, tiles_of(max_tokens), layer.window.is_used());
        bytes = layer.layout.offset + layer.layout.bytes;
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
    for (size_t i = 0; i < layers_.size(); ++i) {
        KVLANE_TRY_IN(place(layers_[i]), "layers[%zu]: ", i);
    }
    kernels_ = &kernels;
    max_tokens_ = max_tokens;
    huge_pages_ = huge_pages;
    for (Layer &layer : layers_) {
        layer.shapes[false] = shape_of(layer, false);
        layer.shapes[true] = shape_of(layer, true);
        set_k_offset(layer, !(layer.desc.flags & KVL_LAYER_ESTIMATE_K_OFFSET));
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

// Puts the memory of KV heads on their nodes.
kvl_status Storage::place(const Layer &layer) const {
    for (uint32_t head = 0; head < layer.numa_nodes.size(); ++head) {
        const int32_t node = layer.numa_nodes[head];
        for (const PoolLayout &pool : layer.layout.pools) {
            if (node < 0 || pool.head_stride_bytes == 0) {
                continue;
            }
            std::byte *const first = memory_.data() + pool.offset + head * pool.head_stride_bytes;
            const int error = prefer_numa_node(first, static_cast<size_t>(pool.head_stride_bytes), node);
            if (error == ENOMEM) {
                return fail(KVL_ERROR_MEMORY, "numa_nodes[%u] is %d; mbind has no memory for one more mapping", head, node);
            }
            if (error != 0) {
                return fail(KVL_ERROR_NUMA, "numa_nodes[%u] is %d; mbind does not let this process prefer it: %s", head,
                            node, std::strerror(error));
            }
        }
    }
    return KVL_OK;
}

int64_t Storage::bytes_per_token(uint32_t layer) const { return stored_bytes(layers_[layer].shapes[false], 1); }

int64_t Storage::bytes(uint32_t index) const {
    const Layer &layer = layers_[index];
    int64_t bytes = 0;
    for (const Section &section : layer.window.sections(layer.views[0].len)) {
        bytes += stored_bytes(layer.shapes[section.is_f16], section.end - section.first);
    }
    return bytes;
}

kvl_view Storage::shape_of(const Layer &layer, bool is_f16) const {
    kvl_view shape = tiles_of(layer.desc);
    shape.k_offset = nullptr;
    if (is_f16) {
        shape.k_format = format::in_f16_window(shape.k_format);
        shape.v_format = format::in_f16_window(shape.v_format);
    }
    shape.k_token_stride_bytes = layer.layout.pools[is_f16].tile.bytes;
    shape.k_head_stride_bytes = layer.layout.pools[is_f16].head_stride_bytes;
    return shape;
}

// Rotates the offset as the keys are, and lets tokens be stored with it; or, while it is not known, without.
void Storage::set_k_offset(Layer &layer, bool is_known) const {
    const bool has_offset = is_known && !layer.k_offset.empty();
    layer.desc.k_offset = layer.shapes[false].k_offset = has_offset ? layer.k_offset.data() : nullptr;
    if (has_offset) {
        layer.rotated_k_offset = layer.k_offset;
        for (uint32_t head = 0; layer.desc.k_rotation == KVL_ROTATION_HADAMARD && head < layer.desc.n_kv_heads; ++head) {
            kernels_->rotate_row(&layer.rotated_k_offset[size_t{head} * layer.desc.head_dim],
                                 static_cast<int>(layer.desc.head_dim));
        }
    }
}

// The mean of the keys of the first tile, which is whole and in f16.
void Storage::estimate_k_offset(Layer &layer) const {
    constexpr int at_once = panel::columns;
    const uint32_t dim = layer.desc.head_dim;
    float rows[at_once * KVL_MAX_HEAD_DIM];
    for (uint32_t head = 0; head < layer.desc.n_kv_heads; ++head) {
        double sums[KVL_MAX_HEAD_DIM] = {};
        for (int64_t token = 0; token < panel::tile_tokens; token += at_once) {
            PackRows from = rows_at(layer, {true, token, at_once}, true, head);
            from.rows = reinterpret_cast<std::byte *>(rows);
            from.stride_bytes = dim * static_cast<int64_t>(sizeof(float));
            kernels_->unpack[layer.shapes[true].k_format][true](from);
            for (uint32_t i = 0; i < at_once * dim; ++i) {
                sums[i % dim] += rows[i];
            }
        }
        for (uint32_t d = 0; d < dim; ++d) {
            const auto mean = static_cast<float>(sums[d] / panel::tile_tokens);
            layer.k_offset[size_t{head} * dim + d] = std::isfinite(mean) ? mean : 0;
        }
    }
    set_k_offset(layer, true);
}

int64_t Storage::offset_of(const Layer &layer, bool is_f16, uint32_t kv_head, int64_t token) const {
    const PoolLayout &pool = layer.layout.pools[is_f16];
    return pool.offset + kv_head * pool.head_stride_bytes + token / panel::tile_tokens * pool.tile.bytes;
}

std::byte *Storage::tile_at(const Layer &layer, bool is_f16, uint32_t kv_head, int64_t token) const {
    return memory_.data() + offset_of(layer, is_f16, kv_head, token);
}

// Of a piece's tokens, but for the rows themselves.
PackRows Storage::rows_at(const Layer &layer, const Piece &piece, bool keys, uint32_t kv_head) const {
    return rows_of_tile(layer.shapes[piece.is_f16], layer.layout.pools[piece.is_f16].tile,
                        tile_at(layer, piece.is_f16, kv_head, piece.first), kv_head, keys,
                        static_cast<int>(piece.first % panel::tile_tokens), piece.n_tokens);
}

template <class Body>
void Storage::for_each_piece(const Section &section, Body &&body) {
    int n_tokens;
    for (int64_t t = section.first; t < section.end; t += n_tokens) {
        n_tokens = static_cast<int>(std::min(section.end - t, panel::tile_tokens - t % panel::tile_tokens));
        body(Piece{section.is_f16, t, n_tokens});
    }
}

void Storage::set_len(Layer &layer, int64_t len) const {
    layer.views[0].len = len;
    if (layer.window.is_used()) {
        make_views(layer, len);
    }
}

// A view for every section that has tokens; one at least.
void Storage::make_views(Layer &layer, int64_t len) const {
    int n_views = 0;
    int64_t end = 0;  // of the sections before
    for (const Section &section : layer.window.sections(len)) {
        if (section.first == section.end && !(len == 0 && n_views == 0)) {
            continue;
        }
        kvl_view &view = layer.views[n_views];
        kvl_span &span = layer.spans[n_views];
        const int64_t room = section.end == len ? max_tokens_ : section.end;
        span = {tile_at(layer, section.is_f16, 0, section.first), nullptr, room - section.first};
        view = layer.shapes[section.is_f16];
        view.len = len - section.first;
        view.spans = &span;
        view.n_spans = 1;
        view.n_overlap = std::max<int64_t>(0, end - section.first);
        view.n_recent = layer.window.n_recent();
        // Callers of version 0.1 copy a chain's views to objects of theirs.
        view.struct_size = view.k_offset ? sizeof view : least_struct_size<kvl_view>;
        if (n_views > 0) {
            layer.views[n_views - 1].next = &view;
        }
        end = section.end;
        ++n_views;
    }
}

// Asked for once half of each page would be in use: with a page for every head's tiles, the first token of 32 layers of 8
// heads would otherwise commit half a gigabyte. What was written before is collapsed into huge pages then, a head an append
// and one more for every 64 tokens of it: a page takes about a millisecond.
void Storage::use_huge_pages(Layer &layer, int64_t n_before, int64_t n_tokens) const {
    const PoolLayout &pool = layer.layout.pools[false];
    HugePages &pages = layer.huge_pages;
    if (!huge_pages_) {
        return;
    }
    const auto bytes_of = [&](int64_t tokens) { return tiles_of(tokens) * pool.tile.bytes; };
    if (!pages.asked) {
        if (2 * bytes_of(n_before + n_tokens) < std::min(huge_page_bytes, pool.head_stride_bytes)) {
            pages.small_tokens = std::max(pages.small_tokens, n_before + n_tokens);
            return;
        }
        memory_.ask_for_huge_pages(layer.layout.offset, layer.layout.pools[true].offset - layer.layout.offset);
        pages.asked = true;
    }
    for (int64_t left = 1 + n_tokens / panel::tile_tokens;
         left > 0 && pages.small_tokens > 0 && pages.n_collapsed < layer.desc.n_kv_heads; --left) {
        memory_.collapse(pool.offset + pages.n_collapsed * pool.head_stride_bytes, bytes_of(pages.small_tokens));
        ++pages.n_collapsed;
    }
}

// Tiles that begin in a section, but are not filled by it, are zero before they are written: those that have never been are.
void Storage::clear_stale(Layer &layer, const Section &section) const {
    for_each_piece(section, [&](const Piece &piece) {
        if (piece.first % panel::tile_tokens == 0 && piece.n_tokens < panel::tile_tokens && piece.first < layer.n_written) {
            clear_tiles(layer.shapes[piece.is_f16], layer.layout.pools[piece.is_f16].tile,
                        tile_at(layer, piece.is_f16, 0, piece.first));
        }
    });
    layer.n_written = std::max(layer.n_written, section.end);
}

// After the last of len tokens.
void Storage::clear_rest_of_tile(const Layer &layer, bool is_f16, int64_t len) const {
    const kvl_view &shape = layer.shapes[is_f16];
    for (uint32_t head = 0; len % panel::tile_tokens != 0 && head < shape.n_kv_heads; ++head) {
        panel::clear_tokens(shape.k_format, shape.head_dim, shape.v_format, shape.v_head_dim,
                            static_cast<int>(len % panel::tile_tokens), tile_at(layer, is_f16, head, len));
    }
}

void Storage::pack(const Layer &layer, const Section &section, const StridedRows &k, const StridedRows &v) const {
    for_each_piece(section, [&](const Piece &piece) {
        const int64_t token = piece.first - section.first;
        pack_tokens(*kernels_, layer.shapes[piece.is_f16], layer.layout.pools[piece.is_f16].tile,
                    tile_at(layer, piece.is_f16, 0, piece.first), static_cast<int>(piece.first % panel::tile_tokens),
                    piece.n_tokens, k.from(token), v.from(token));
    });
}

// Tiles of tokens [first, end) from one pool to the other, by way of f32, as they are: what is rotated stays so.
void Storage::convert(const Layer &layer, int64_t first, int64_t end, bool to_f16) const {
    constexpr int at_once = panel::columns;
    float rows[at_once * KVL_MAX_HEAD_DIM];
    int n_tokens;
    for (int64_t t = first; t < end; t += n_tokens) {
        n_tokens = static_cast<int>(std::min(end - t, at_once - t % at_once));
        for (const bool keys : {true, false}) {
            for (uint32_t head = 0; head < layer.desc.n_kv_heads; ++head) {
                for (const bool is_target : {false, true}) {
                    const bool is_f16 = is_target == to_f16;
                    const kvl_view &shape = layer.shapes[is_f16];
                    PackRows of = rows_at(layer, {is_f16, t, n_tokens}, keys, head);
                    of.rows = reinterpret_cast<std::byte *>(rows);
                    of.stride_bytes = of.dim * static_cast<int64_t>(sizeof(float));
                    of.is_rotated = false;
                    of.offset = of.offset ? &layer.rotated_k_offset[size_t{head} * layer.desc.head_dim] : nullptr;
                    (is_target ? kernels_->pack : kernels_->unpack)[keys ? shape.k_format : shape.v_format][keys](of);
                }
            }
        }
    }
}

// Gives back the memory of f16 tokens [first, end), beside which nothing in [free_first, free_end) is in use.
void Storage::release(const Layer &layer, int64_t first, int64_t end, int64_t free_first, int64_t free_end) const {
    const auto on_tile = [](int64_t token) { return panel::round_up(token, panel::tile_tokens); };
    for (uint32_t head = 0; first < end && head < layer.desc.n_kv_heads; ++head) {
        const auto offset = [&](int64_t token) { return offset_of(layer, true, head, on_tile(token)); };
        memory_.release(offset(first), offset(end), offset(free_first), offset(free_end));
    }
}

void Storage::write(uint32_t index, int64_t first, int64_t n_tokens, const StridedRows &k, const StridedRows &v) {
    Layer &layer = layers_[index];
    use_huge_pages(layer, first, n_tokens);
    const int64_t end = first + n_tokens;
    const bool is_f16 = layer.window.is_used();
    int64_t stop;
    for (int64_t t = first; t < end; t = stop) {
        // A tile that is to be quantized is so while it is in the CPU's caches.
        stop = is_f16 ? std::min(end, panel::round_up(t + 1, panel::tile_tokens)) : end;
        const Section section{is_f16, t, stop};
        clear_stale(layer, section);
        pack(layer, section, k.from(t - first), v.from(t - first));
        if (is_f16) {
            const int64_t due = std::min(layer.window.cut(end), stop);
            if (due > layer.window.quantized() && !layer.k_offset.empty() && !layer.desc.k_offset) {
                estimate_k_offset(layer);
            }
            convert(layer, layer.window.quantized(), due, false);
            layer.window.quantize(due);
        }
    }
    set_len(layer, end);
}

// Tiles that tokens of the layer's formats were written to are committed already.
void Storage::commit(uint32_t index, uint32_t first_kv_head, uint32_t n_kv_heads, int64_t n_tokens) const {
    const Layer &layer = layers_[index];
    const PoolLayout &pool = layer.layout.pools[false];
    const int64_t n_in_use = layer.window.is_used() ? layer.window.quantized() : layer.n_written;
    const int64_t first = tiles_of(n_in_use) * pool.tile.bytes, end = tiles_of(n_tokens) * pool.tile.bytes;
    for (uint32_t head = first_kv_head; first < end && head < first_kv_head + n_kv_heads; ++head) {
        const int64_t offset = pool.offset + head * pool.head_stride_bytes;
        if (huge_pages_ && 2 * end >= huge_page_bytes) {
            memory_.ask_for_huge_pages(offset, pool.head_stride_bytes);
        }
        memory_.commit(offset + first, end - first);
    }
}

void Storage::advance(uint32_t index) {
    Layer &layer = layers_[index];
    if (!layer.window.is_used()) {
        return;
    }
    const int64_t first = layer.window.first_held();
    layer.window.advance(layer.views[0].len);
    release(layer, first, layer.window.first_held(), layer.window.n_first(), layer.window.first_held());
    set_len(layer, layer.views[0].len);
}

void Storage::truncate(uint32_t index, int64_t len) {
    Layer &layer = layers_[index];
    F16Window &window = layer.window;
    const int64_t len_before = layer.views[0].len;
    if (window.is_used() && window.truncate(len)) {
        clear_stale(layer, {true, window.first_held(), len});
        convert(layer, window.first_held(), len, true);
    }
    if ((layer.desc.flags & KVL_LAYER_ESTIMATE_K_OFFSET) && len < panel::tile_tokens) {
        window.forget_quantized();  // the first tile will have other tokens, and another mean
        set_k_offset(layer, false);
    }
    clear_rest_of_tile(layer, window.is_used(), len);
    if (window.is_used()) {
        release(layer, std::max(len, window.n_first()), len_before, std::max(len, window.n_first()), max_tokens_);
    }
    set_len(layer, len);
}

void Storage::read(bool keys, uint32_t index, int64_t first, int64_t n_tokens, float *out) const {
    const Layer &layer = layers_[index];
    for_each_piece({false, first, first + n_tokens}, [&](Piece piece) {
        piece.is_f16 = layer.window.is_f16(piece.first, layer.views[0].len);
        const kvl_view &shape = layer.shapes[piece.is_f16];
        for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
            PackRows rows = rows_at(layer, piece, keys, head);
            rows.rows =
                reinterpret_cast<std::byte *>(out + (static_cast<uint64_t>(piece.first - first) * shape.n_kv_heads + head) *
                                                        static_cast<uint64_t>(rows.dim));
            kernels_->unpack[keys ? shape.k_format : shape.v_format][keys](rows);
        }
    });
}

void Storage::copy_tokens(const Storage &from, uint32_t index) {
    Layer &layer = layers_[index];
    const Layer &source = from.layers_[index];
    const int64_t len = source.views[0].len;
    use_huge_pages(layer, 0, len);
    layer.window = source.window;
    layer.k_offset = source.k_offset;
    set_k_offset(layer, source.desc.k_offset || !(source.desc.flags & KVL_LAYER_ESTIMATE_K_OFFSET));
    layer.n_written = len;
    for (const Section &section : source.window.sections(len)) {
        for_each_piece(section, [&](const Piece &piece) {
            for (uint32_t head = 0; head < layer.desc.n_kv_heads; ++head) {
                std::memcpy(tile_at(layer, piece.is_f16, head, piece.first),
                            from.tile_at(source, piece.is_f16, head, piece.first),
                            static_cast<size_t>(layer.layout.pools[piece.is_f16].tile.bytes));
            }
        });
    }
    set_len(layer, len);
}

}  // namespace kvlane

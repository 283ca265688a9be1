#include "storage.hpp"

#include <cstring>

#include "../kernels/error.hpp"
#include "../kernels/tiles.hpp"
#include "../kernels/view.hpp"

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
        layer.finer = desc.n_first_f16 > 0 || desc.n_recent_f16 > 0
                          ? FinerTokens(desc.n_first_f16, desc.n_recent_f16, max_tokens)
                          : FinerTokens(max_tokens);
        layer.desc = desc;
        layer.desc.n_first_f16 = layer.finer.n_first();
        layer.desc.n_recent_f16 = layer.finer.n_recent();
        layer.layout = layer_at(bytes, desc, tiles_of(max_tokens), layer.finer.n_tiles());
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
        layer.shapes[false] = shape_of(layer, false);
        layer.shapes[true] = shape_of(layer, true);
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

int64_t Storage::bytes_per_token(uint32_t layer) const { return stored_bytes(layers_[layer].shapes[false], 1); }

int64_t Storage::bytes(uint32_t index) const {
    const Layer &layer = layers_[index];
    int64_t bytes = 0;
    for_each_piece(layer, 0, layer.views[0].len,
                   [&](const Piece &piece) { bytes += stored_bytes(layer.shapes[piece.is_finer], piece.n_tokens); });
    return bytes;
}

kvl_view Storage::shape_of(const Layer &layer, bool is_finer) const {
    kvl_view shape = tiles_of(layer.desc);
    if (is_finer) {
        shape.k_format = format::finer_of(shape.k_format);
        shape.v_format = format::finer_of(shape.v_format);
    }
    shape.k_token_stride_bytes = layer.layout.pools[is_finer].tile.bytes;
    shape.k_head_stride_bytes = layer.layout.pools[is_finer].head_stride_bytes;
    return shape;
}

std::byte *Storage::tile_at(const Layer &layer, bool is_finer, uint32_t kv_head, int64_t token) const {
    const PoolLayout &pool = layer.layout.pools[is_finer];
    const int64_t tile = is_finer ? layer.finer.tile(token) : token / panel::tile_tokens;
    return memory_.data() + pool.offset + kv_head * pool.head_stride_bytes + tile * pool.tile.bytes;
}

// Of a piece's tokens, but for the rows themselves.
PackRows Storage::rows_at(const Layer &layer, const Piece &piece, bool keys, uint32_t kv_head) const {
    return rows_of_tile(layer.shapes[piece.is_finer], layer.layout.pools[piece.is_finer].tile,
                        tile_at(layer, piece.is_finer, kv_head, piece.first), keys,
                        static_cast<int>(piece.first % panel::tile_tokens), piece.n_tokens);
}

template <class Body>
void Storage::for_each_piece(const Layer &layer, int64_t first, int64_t end, Body &&body) {
    int n_tokens;
    for (int64_t t = first; t < end; t += n_tokens) {
        n_tokens = static_cast<int>(std::min(end - t, panel::tile_tokens - t % panel::tile_tokens));
        body(Piece{layer.finer.is_finer(t), t, n_tokens});
    }
}

void Storage::set_len(Layer &layer, int64_t len) const {
    layer.views[0].len = len;
    if (layer.finer.is_used()) {
        make_views(layer, len);
    }
}

// A view for every section that has tokens; the first one always, so that there is one.
void Storage::make_views(Layer &layer, int64_t len) const {
    kvl_view *view = layer.views;
    kvl_span *span = layer.spans;
    for (const Section &section : layer.finer.sections()) {
        if (section.first == section.end || section.first > std::max<int64_t>(0, len - 1)) {
            continue;
        }
        *view = layer.shapes[section.is_finer];
        view->len = len - section.first;
        view->spans = span;
        int64_t n_tokens;
        for (int64_t t = section.first; t < section.end; t += n_tokens) {
            n_tokens = section.end - t;
            if (section.is_finer) {
                n_tokens = std::min(n_tokens, layer.finer.straight_tokens(t));
            }
            *span++ = {tile_at(layer, section.is_finer, 0, t), nullptr, n_tokens};
        }
        view->n_spans = static_cast<uint32_t>(span - view->spans);
        if (view != layer.views) {
            view[-1].next = view;
        }
        ++view;
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
        memory_.ask_for_huge_pages(layer.layout.offset, layer.layout.bytes);
        pages.asked = true;
    }
    for (int64_t left = 1 + n_tokens / panel::tile_tokens;
         left > 0 && pages.small_tokens > 0 && pages.n_collapsed < layer.desc.n_kv_heads; --left) {
        memory_.collapse(pool.offset + pages.n_collapsed * pool.head_stride_bytes, bytes_of(pages.small_tokens));
        ++pages.n_collapsed;
    }
}

// Tiles that begin among tokens [first, end), but are not filled by them, are zero before they are written: those that have
// never been are.
void Storage::clear_stale(Layer &layer, int64_t first, int64_t end) const {
    for_each_piece(layer, first, end, [&](const Piece &piece) {
        const bool was_written = piece.first < layer.n_written ||
                                 (piece.is_finer && layer.finer.tile(piece.first) != piece.first / panel::tile_tokens);
        if (piece.first % panel::tile_tokens == 0 && piece.n_tokens < panel::tile_tokens && was_written) {
            clear_tiles(layer.shapes[piece.is_finer], layer.layout.pools[piece.is_finer].tile,
                        tile_at(layer, piece.is_finer, 0, piece.first));
        }
    });
    layer.n_written = std::max(layer.n_written, end);
}

void Storage::pack(const Layer &layer, int64_t first, int64_t end, const float *k, const float *v) const {
    for_each_piece(layer, first, end, [&](const Piece &piece) {
        const int64_t offset = (piece.first - first) * layer.desc.n_kv_heads;
        pack_tokens(*kernels_, layer.shapes[piece.is_finer], layer.layout.pools[piece.is_finer].tile,
                    tile_at(layer, piece.is_finer, 0, piece.first), static_cast<int>(piece.first % panel::tile_tokens),
                    piece.n_tokens, k + offset * layer.desc.head_dim, v + offset * layer.desc.v_head_dim);
    });
}

// Tiles of tokens [first, end) from one pool to the other, by way of f32, as they are: what is rotated stays so.
void Storage::convert(const Layer &layer, int64_t first, int64_t end, bool to_finer) const {
    constexpr int at_once = panel::columns;
    float rows[at_once * KVL_MAX_HEAD_DIM];
    int n_tokens;
    for (int64_t t = first; t < end; t += n_tokens) {
        n_tokens = static_cast<int>(std::min(end - t, at_once - t % at_once));
        for (const bool keys : {true, false}) {
            for (uint32_t head = 0; head < layer.desc.n_kv_heads; ++head) {
                for (const bool is_target : {false, true}) {
                    const bool is_finer = is_target == to_finer;
                    const kvl_view &shape = layer.shapes[is_finer];
                    PackRows of = rows_at(layer, {is_finer, t, n_tokens}, keys, head);
                    of.rows = reinterpret_cast<std::byte *>(rows);
                    of.stride_bytes = of.dim * static_cast<int64_t>(sizeof(float));
                    of.is_rotated = false;
                    (is_target ? kernels_->pack : kernels_->unpack)[keys ? shape.k_format : shape.v_format][keys](of);
                }
            }
        }
    }
}

void Storage::write(uint32_t index, int64_t first, int64_t n_tokens, const float *k, const float *v) {
    Layer &layer = layers_[index];
    use_huge_pages(layer, first, n_tokens);
    const int64_t end = first + n_tokens;
    int64_t stop;
    for (int64_t t = first; t < end; t = stop) {
        // The ring has room for one tile more than it keeps: each is filled before what it replaces is due.
        stop = layer.finer.is_used() ? std::min(end, panel::round_up(t + 1, panel::tile_tokens)) : end;
        const uint64_t offset = static_cast<uint64_t>(t - first) * layer.desc.n_kv_heads;
        clear_stale(layer, t, stop);
        pack(layer, t, stop, k + offset * layer.desc.head_dim, v + offset * layer.desc.v_head_dim);
        convert(layer, layer.finer.encoded(), layer.finer.quantized_at(stop), false);
        layer.finer.grow(stop);
    }
    set_len(layer, end);
}

void Storage::truncate(uint32_t index, int64_t len) {
    Layer &layer = layers_[index];
    const int64_t quantized = layer.finer.quantized();
    const int64_t first = layer.finer.truncate(len);
    if (layer.finer.is_used() && first < quantized) {
        clear_stale(layer, first, std::min(len, quantized));
        convert(layer, first, std::min(len, quantized), true);
    }
    if (len % panel::tile_tokens != 0) {
        const Piece open{layer.finer.is_finer(len), len, 0};
        const kvl_view &shape = layer.shapes[open.is_finer];
        for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
            panel::clear_tokens(shape.k_format, shape.head_dim, shape.v_format, shape.v_head_dim,
                                static_cast<int>(len % panel::tile_tokens), tile_at(layer, open.is_finer, head, len));
        }
    }
    set_len(layer, len);
}

void Storage::read(bool keys, uint32_t index, int64_t first, int64_t n_tokens, float *out) const {
    const Layer &layer = layers_[index];
    for_each_piece(layer, first, first + n_tokens, [&](const Piece &piece) {
        const kvl_view &shape = layer.shapes[piece.is_finer];
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
    layer.finer = source.finer;
    layer.n_written = len;
    const auto copy = [&](const Piece &piece) {
        for (uint32_t head = 0; head < layer.desc.n_kv_heads; ++head) {
            std::memcpy(tile_at(layer, piece.is_finer, head, piece.first),
                        from.tile_at(source, piece.is_finer, head, piece.first),
                        static_cast<size_t>(layer.layout.pools[piece.is_finer].tile.bytes));
        }
    };
    for_each_piece(source, 0, len, copy);
    if (layer.finer.is_used() && layer.finer.encoded() > layer.finer.quantized()) {
        copy({false, layer.finer.quantized(), 0});
    }
    set_len(layer, len);
}

}  // namespace kvlane

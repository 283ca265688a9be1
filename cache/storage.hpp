#pragma once

#include <vector>

#include "../kernels/kernel_table.hpp"
#include "../kernels/strided_rows.hpp"
#include "f16_window.hpp"
#include "layout.hpp"
#include "memory.hpp"

namespace kvlane {

// The tiles of all layers in one reservation: where tokens are written and read, not which of them count.
class Storage {
public:
    // Lays the layers out and reserves their address space. Called once; geometry is valid.
    kvl_status create(const KernelTable &kernels, const std::vector<kvl_layer_desc> &layers, int64_t max_tokens,
                      bool huge_pages);

    // The same layers and address space as those of another, without its tokens.
    kvl_status create_like(const Storage &other);

    uint32_t n_layers() const { return static_cast<uint32_t>(layers_.size()); }
    int64_t max_tokens() const { return max_tokens_; }
    const kvl_layer_desc &desc(uint32_t layer) const { return layers_[layer].desc; }
    int64_t bytes_per_token(uint32_t layer) const;  // in the layer's formats
    int64_t bytes(uint32_t layer) const;            // of its tokens, each in its own

    // A view of the layer's tokens. Where it has an f16 window, what it points to changes with the next write, advance or
    // truncate.
    const kvl_view &view(uint32_t layer) const { return *layers_[layer].views; }

    // Packs rows as tokens [first, first + n_tokens). They are the layer's last ones then, and pending.
    void write(uint32_t layer, int64_t first, int64_t n_tokens, const StridedRows &k, const StridedRows &v);

    // Commits the memory of tokens 0 to n_tokens - 1 of KV heads, in the layer's formats.
    void commit(uint32_t layer, uint32_t first_kv_head, uint32_t n_kv_heads, int64_t n_tokens) const;

    // No token is pending any more.
    void advance(uint32_t layer);

    // Forgets tokens from len on.
    void truncate(uint32_t layer, int64_t len);

    // Unpacks the keys, or the values, of tokens [first, first + n_tokens) to [n_tokens, n_kv_heads, dim] f32.
    void read(bool keys, uint32_t layer, int64_t first, int64_t n_tokens, float *out) const;

    // Copies the tokens of a layer of the same geometry as stored.
    void copy_tokens(const Storage &from, uint32_t layer);

private:
    // What a layer has of huge pages. The tiles of heads are collapsed one head after the other.
    struct HugePages {
        bool asked = false;
        uint32_t n_collapsed = 0;
        int64_t small_tokens = 0;  // that were written to small pages before
    };

    // What an append reads comes first: of a model's many layers, none is in the CPU's caches then.
    struct Layer {
        kvl_layer_desc desc;                  // its k_offset is the next, or null while it is not known
        std::vector<float> k_offset;          // [n_kv_heads, head_dim], empty if the layer has none
        std::vector<float> rotated_k_offset;  // as the keys are stored
        std::vector<int32_t> numa_nodes;      // [n_kv_heads], or empty
        F16Window window;
        HugePages huge_pages;
        LayerLayout layout;
        int64_t n_written = 0;  // the most tokens that there were: tiles behind them are still zero
        kvl_view shapes[2];     // of the pools, without tokens
        kvl_view views[3];      // of the sections that have tokens
        kvl_span spans[3];      // of those
    };

    // Tokens of one tile.
    struct Piece {
        bool is_f16;
        int64_t first;
        int n_tokens;
    };

    // body(piece) for the tiles that hold tokens of a section.
    template <class Body>
    static void for_each_piece(const Section &section, Body &&body);

    int64_t offset_of(const Layer &layer, bool is_f16, uint32_t kv_head, int64_t token) const;
    std::byte *tile_at(const Layer &layer, bool is_f16, uint32_t kv_head, int64_t token) const;
    PackRows rows_at(const Layer &layer, const Piece &piece, bool keys, uint32_t kv_head) const;
    kvl_status place(const Layer &layer) const;
    kvl_view shape_of(const Layer &layer, bool is_f16) const;
    void set_k_offset(Layer &layer, bool is_known) const;
    void estimate_k_offset(Layer &layer) const;
    void set_len(Layer &layer, int64_t len) const;
    void make_views(Layer &layer, int64_t len) const;
    void use_huge_pages(Layer &layer, int64_t n_before, int64_t n_tokens) const;
    void clear_stale(Layer &layer, const Section &section) const;
    void clear_rest_of_tile(const Layer &layer, bool is_f16, int64_t len) const;
    void pack(const Layer &layer, const Section &section, const StridedRows &k, const StridedRows &v) const;
    void convert(const Layer &layer, int64_t first, int64_t end, bool to_f16) const;
    void release(const Layer &layer, int64_t first, int64_t end, int64_t free_first, int64_t free_end) const;

    const KernelTable *kernels_ = nullptr;
    std::vector<Layer> layers_;
    int64_t max_tokens_ = 0;
    bool huge_pages_ = false;
    Memory memory_;
};

}  // namespace kvlane

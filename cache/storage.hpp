#pragma once

#include <vector>

#include "../kernels/kernel_table.hpp"
#include "finer_tokens.hpp"
#include "layout.hpp"
#include "memory.hpp"

namespace kvlane {

// The stored rows of all layers in one reservation: where rows are written and read, not which of them count.
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

    // A view of the layer's tokens. What it points to changes with the next write or truncate where tokens are kept finer.
    const kvl_view &view(uint32_t layer) const { return *layers_[layer].views; }

    // Encodes tokens [first, first + n_tokens) from [n_tokens, n_kv_heads, dim] f32. They are the layer's last ones then.
    void write(uint32_t layer, int64_t first, int64_t n_tokens, const float *k, const float *v);

    // Forgets tokens from len on.
    void truncate(uint32_t layer, int64_t len);

    // Decodes the keys, or the values, of tokens [first, first + n_tokens) to [n_tokens, n_kv_heads, dim] f32.
    void read(bool keys, uint32_t layer, int64_t first, int64_t n_tokens, float *out) const;

    // Copies the tokens of a layer of the same geometry as stored.
    void copy_tokens(const Storage &from, uint32_t layer);

private:
    // What a layer has of huge pages. Planes of heads, those of K before those of V, are collapsed one after the other.
    struct HugePages {
        bool asked = false;
        uint32_t n_collapsed = 0;
        int64_t small_tokens = 0;  // that were written to small pages before
    };

    // Planes in which tokens are stored: strides and formats in a view without tokens, and where the planes begin.
    struct Planes {
        kvl_view shape;
        kvl_span base;
    };

    // What an append reads comes first: of a model's many layers, none is in the CPU's caches then.
    struct Layer {
        kvl_layer_desc desc;
        FinerTokens finer;
        HugePages huge_pages;
        Planes planes[2];   // of the layer's formats, and of finer ones
        kvl_view views[3];  // of the sections that have tokens
        kvl_span spans[4];  // of those: the newest tokens may have two
        LayerLayout layout;
    };

    // Consecutive tokens in consecutive rows.
    struct Run {
        bool is_finer;
        const kvl_view &shape;
        int64_t first;
        kvl_span span;
    };

    static kvl_span span_at(const Layer &layer, bool is_finer, int64_t first, int64_t n_tokens);

    // body(run) for the runs that hold tokens [first, end).
    template <class Body>
    static void for_each_run(const Layer &layer, int64_t first, int64_t end, Body &&body);
    // The same for runs of a few tokens at most.
    template <class Body>
    static void for_each_short_run(const Layer &layer, int64_t first, int64_t end, Body &&body);

    static void set_len(Layer &layer, int64_t len);
    static void make_views(Layer &layer, int64_t len);

    Planes planes_of(const Layer &layer, bool is_finer) const;
    void use_huge_pages(Layer &layer, int64_t n_before, int64_t n_tokens) const;
    void encode(const Layer &layer, int64_t first, int64_t end, const float *k, const float *v) const;
    void convert(const Layer &layer, int64_t first, int64_t end, bool to_finer) const;

    const KernelTable *kernels_ = nullptr;
    std::vector<Layer> layers_;
    int64_t max_tokens_ = 0;
    bool huge_pages_ = false;
    Memory memory_;
};

}  // namespace kvlane

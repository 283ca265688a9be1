#pragma once

#include <vector>

#include "../kernels/kernel_table.hpp"
#include "layout.hpp"
#include "memory.hpp"

namespace kvlane {

// The stored rows of all layers in one reservation: where rows are written and read, not which of them count.
class Storage {
public:
    // Lays the layers out and reserves their address space. Called once; geometry is valid.
    kvl_status create(const KernelTable &kernels, std::vector<kvl_layer_desc> layers, int64_t max_tokens, bool huge_pages);

    const KernelTable &kernels() const { return *kernels_; }
    uint32_t n_layers() const { return static_cast<uint32_t>(layers_.size()); }
    int64_t max_tokens() const { return max_tokens_; }
    bool huge_pages() const { return huge_pages_; }
    const std::vector<kvl_layer_desc> &layers() const { return layers_; }
    int64_t bytes_per_token(uint32_t layer) const;

    // A view of the first len tokens.
    kvl_view view(uint32_t layer, int64_t len) const;

    // Encodes tokens [first, first + n_tokens) from [n_tokens, n_kv_heads, dim] f32.
    void write(uint32_t layer, int64_t first, int64_t n_tokens, const float *k, const float *v);

    // Decodes the keys, or the values, of tokens [first, first + n_tokens) to [n_tokens, n_kv_heads, dim] f32.
    void read(bool keys, uint32_t layer, int64_t first, int64_t n_tokens, float *out) const;

    // Copies the first len tokens of a layer of the same geometry as stored.
    void copy_tokens(const Storage &from, uint32_t layer, int64_t len);

private:
    // What a layer has of huge pages. Planes of heads, those of K before those of V, are collapsed one after the other.
    struct HugePages {
        bool asked = false;
        uint32_t n_collapsed = 0;
        int64_t small_tokens = 0;  // that were written to small pages before
    };

    void use_huge_pages(uint32_t layer, int64_t n_before, int64_t n_tokens);

    const KernelTable *kernels_ = nullptr;
    std::vector<kvl_layer_desc> layers_;
    std::vector<LayerLayout> layouts_;
    std::vector<kvl_span> spans_;
    std::vector<HugePages> huge_pages_of_;  // by layer
    int64_t max_tokens_ = 0;
    bool huge_pages_ = false;
    Memory memory_;
};

}  // namespace kvlane

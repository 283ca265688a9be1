// kvlane for C++20, header-only over the C ABI: RAII, std::span, exceptions. The contract of a C function (shapes, bounds,
// threads) also applies to the member that calls it.
#ifndef KVLANE_KVLANE_HPP
#define KVLANE_KVLANE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "kvlane.h"

namespace kvlane {

/// A failed call: its status and the text of kvl_last_error.
class Error : public std::runtime_error {
public:
    /// The text is that of kvl_last_error.
    explicit Error(kvl_status status) : Error(status, kvl_last_error()) {}

    /// The text is the given one.
    Error(kvl_status status, const std::string &text) : std::runtime_error(text), status_(status) {}

    /// Returns the status of the call.
    kvl_status status() const noexcept { return status_; }

private:
    kvl_status status_;
};

/// Throws Error unless the status is KVL_OK.
inline void check(kvl_status status) {
    if (status != KVL_OK) {
        throw Error(status);
    }
}

/// Returns the name of the isa in force.
inline const char *isa_in_force() {
    const char *name;
    check(kvl_isa_in_force(&name));
    return name;
}

/// Storage format of keys, values, queries or outputs, see kvl_format.
enum class Format : kvl_format { f32 = KVL_F32, f16 = KVL_F16, bf16 = KVL_BF16, q8 = KVL_Q8, q4 = KVL_Q4 };

/// Matrix that rows are multiplied by before they are stored, see kvl_rotation.
enum class Rotation : kvl_rotation {
    by_format = KVL_ROTATION_DEFAULT,
    none = KVL_ROTATION_NONE,
    hadamard = KVL_ROTATION_HADAMARD
};

/// Rounding of queries and softmax weights, see kvl_precision.
enum class Precision : kvl_precision {
    by_format = KVL_PRECISION_DEFAULT,
    exact = KVL_PRECISION_EXACT,
    fast = KVL_PRECISION_FAST
};

/// Returns the format with the given name.
inline Format format_from_name(const std::string &name) {
    kvl_format format;
    check(kvl_format_from_name(name.c_str(), &format));
    return Format{format};
}

/// Geometry of one layer's keys and values.
struct Layer {
    uint32_t n_kv_heads = 0;
    uint32_t head_dim = 0;
    uint32_t v_head_dim = 0;  // 0: as head_dim
    Format k_format = Format::f16;
    Format v_format = Format::f16;
    Rotation k_rotation = Rotation::by_format;
    Rotation v_rotation = Rotation::by_format;
    int64_t n_first_f16 = 0;  // tokens of q8 and q4 layers that are kept in f16
    int64_t n_recent_f16 = 0;
    const float *k_offset = nullptr;           // [n_kv_heads, head_dim], or null: none
    bool estimates_k_offset = false;           // from the first tile
    std::span<const int32_t> numa_nodes = {};  // [n_kv_heads], or empty: any

    /// Returns the C descriptor.
    kvl_layer_desc desc() const noexcept {
        kvl_layer_desc desc = kvl_layer_desc_init();
        desc.n_kv_heads = n_kv_heads;
        desc.head_dim = head_dim;
        desc.v_head_dim = v_head_dim;
        desc.k_format = static_cast<kvl_format>(k_format);
        desc.v_format = static_cast<kvl_format>(v_format);
        desc.k_rotation = static_cast<kvl_rotation>(k_rotation);
        desc.v_rotation = static_cast<kvl_rotation>(v_rotation);
        desc.n_first_f16 = n_first_f16;
        desc.n_recent_f16 = n_recent_f16;
        desc.k_offset = k_offset;
        desc.flags = estimates_k_offset ? KVL_LAYER_ESTIMATE_K_OFFSET : 0;
        desc.numa_nodes = numa_nodes.empty() ? nullptr : numa_nodes.data();
        return desc;
    }
};

/// Lays out packed tiles of one layer in the caller's memory: a view without tokens, in blocks of block_tokens. See
/// kvl_tile_layout.
inline kvl_view tile_layout(const Layer &layer, uint32_t block_tokens) {
    const kvl_layer_desc desc = layer.desc();
    kvl_view view = kvl_view_init();
    check(kvl_tile_layout(&desc, block_tokens, &view));
    return view;
}

/// Writes tokens from the view's token `first` on, as many as k and v hold, into its tiles. See kvl_tiles_write.
/// Shape:  k [n_tokens, n_kv_heads, head_dim]; v [n_tokens, n_kv_heads, v_head_dim]
/// Errors: those of kvl_tiles_write; KVL_ERROR_LENGTH also when k or v is not a whole number of tokens
inline void write_tiles(const kvl_view &view, int64_t first, std::span<const float> k, std::span<const float> v) {
    const size_t entry = std::max<size_t>(1, size_t{view.n_kv_heads} * view.head_dim);
    const auto n_tokens = static_cast<int64_t>((k.size() + entry - 1) / entry);
    check(kvl_tiles_write(&view, first, n_tokens, k.data(), k.size(), v.data(), v.size()));
}

/// Rows of new tokens in the caller's memory, see kvl_rows.
struct Rows {
    int64_t n_tokens = 0;
    const void *k = nullptr;
    const void *v = nullptr;
    Format k_format = Format::f32;  // f32, f16 or bf16
    Format v_format = Format::f32;
    int64_t k_token_stride_bytes = 0;  // 0: contiguous, here and below
    int64_t k_head_stride_bytes = 0;
    int64_t v_token_stride_bytes = 0;
    int64_t v_head_stride_bytes = 0;

    /// Returns the C descriptor.
    operator kvl_rows() const noexcept {
        kvl_rows rows = kvl_rows_init();
        rows.k_format = static_cast<kvl_format>(k_format);
        rows.v_format = static_cast<kvl_format>(v_format);
        rows.n_tokens = n_tokens;
        rows.k = k;
        rows.v = v;
        rows.k_token_stride_bytes = k_token_stride_bytes;
        rows.k_head_stride_bytes = k_head_stride_bytes;
        rows.v_token_stride_bytes = v_token_stride_bytes;
        rows.v_head_stride_bytes = v_head_stride_bytes;
        return rows;
    }
};

/// Writes rows to the view's tiles, from its token `first` on. See kvl_tiles_write_rows.
inline void write_tiles(const kvl_view &view, int64_t first, const Rows &rows) {
    const kvl_rows desc = rows;
    check(kvl_tiles_write_rows(&view, first, &desc));
}

/// Writes rows to their slots in a pool of tiles: a slot for each token, negative for one that is not written. See
/// kvl_tiles_write_slots.
/// Errors: those of kvl_tiles_write_slots; KVL_ERROR_LENGTH when there are not as many slots as tokens
inline void write_slots(const kvl_view &pool, std::span<const int64_t> slots, const Rows &rows) {
    if (std::ssize(slots) != rows.n_tokens) {
        throw Error(KVL_ERROR_LENGTH, "slots has " + std::to_string(slots.size()) + " elements; it must have n_tokens, " +
                                          std::to_string(rows.n_tokens));
    }
    const kvl_rows desc = rows;
    check(kvl_tiles_write_slots(&pool, slots.data(), &desc));
}

/// One sequence's keys and values. Movable; copying is explicit.
class Cache {
public:
    /// Creates an empty cache of n_layers identical layers; max_tokens = 0 selects KVL_DEFAULT_MAX_TOKENS.
    Cache(uint32_t n_layers, const Layer &layer, int64_t max_tokens = 0, uint32_t flags = 0)
        : Cache(std::span(&layer, 1), n_layers, max_tokens, flags) {}

    /// Creates an empty cache of layers that may differ.
    explicit Cache(std::span<const Layer> layers, int64_t max_tokens = 0, uint32_t flags = 0)
        : Cache(layers, static_cast<uint32_t>(layers.size()), max_tokens, flags) {}

    /// Creates a cache with the same tokens in its own memory.
    Cache copy() const {
        kvl_cache *copy;
        check(kvl_cache_copy(get(), &copy));
        return Cache(copy);
    }

    /// Appends tokens to a layer: as many as k and v hold.
    /// Shape:  k [n_tokens, n_kv_heads, head_dim]; v [n_tokens, n_kv_heads, v_head_dim]
    /// Errors: those of kvl_cache_append; KVL_ERROR_LENGTH also when k or v is not a whole number of tokens
    void append(uint32_t layer, std::span<const float> k, std::span<const float> v) {
        const size_t entry = info(layer).k_entry_size;
        const auto n_tokens = static_cast<int64_t>((k.size() + entry - 1) / entry);
        check(kvl_cache_append(get(), layer, n_tokens, k.data(), k.size(), v.data(), v.size()));
    }

    /// Appends rows of any layout and format to a layer, see kvl_cache_append_rows.
    void append(uint32_t layer, const Rows &rows) {
        const kvl_rows desc = rows;
        check(kvl_cache_append_rows(get(), layer, &desc));
    }

    /// Commits memory of a range of KV heads on the calling thread, see kvl_cache_commit.
    void commit(uint32_t layer, uint32_t first_kv_head, uint32_t n_kv_heads, int64_t n_tokens) {
        check(kvl_cache_commit(get(), layer, first_kv_head, n_kv_heads, n_tokens));
    }

    /// Makes the n_tokens pending tokens of every layer part of the cache, see kvl_cache_advance.
    void advance(int64_t n_tokens = 1) { check(kvl_cache_advance(get(), n_tokens)); }

    /// Removes all tokens from position len on, and all pending tokens, see kvl_cache_truncate.
    void truncate(int64_t len) { check(kvl_cache_truncate(get(), len)); }

    /// Removes all tokens, see kvl_cache_clear.
    void clear() { check(kvl_cache_clear(get())); }

    /// Returns the number of tokens in every layer, excluding pending ones.
    int64_t len() const noexcept { return kvl_cache_len(get()); }

    /// Returns whether len() is 0.
    bool is_empty() const noexcept { return len() == 0; }

    /// Returns the capacity in tokens.
    int64_t max_tokens() const noexcept { return kvl_cache_max_tokens(get()); }

    /// Returns the memory of the tokens of all layers in bytes, see kvl_cache_bytes.
    uint64_t bytes() const noexcept { return kvl_cache_bytes(get()); }

    /// Returns the number of layers.
    uint32_t n_layers() const noexcept { return kvl_cache_n_layers(get()); }

    /// Describes one layer.
    kvl_layer_info info(uint32_t layer) const {
        kvl_layer_info info = kvl_layer_info_init();
        check(kvl_cache_layer_info(get(), layer, &info));
        return info;
    }

    /// Makes a view of one layer, including pending tokens, see kvl_cache_view for how long it is valid.
    kvl_view view(uint32_t layer) const {
        kvl_view view = kvl_view_init();
        check(kvl_cache_view(get(), layer, &view));
        return view;
    }

    /// Decodes all keys of the layer, pending tokens included.  -> [len, n_kv_heads, head_dim]
    std::vector<float> read_k(uint32_t layer) const {
        const kvl_layer_info layer_info = info(layer);
        std::vector<float> out(static_cast<size_t>(layer_info.len) * layer_info.k_entry_size);
        check(kvl_cache_read_k(get(), layer, 0, layer_info.len, out.data(), out.size()));
        return out;
    }

    /// Decodes all values of the layer, pending tokens included.  -> [len, n_kv_heads, v_head_dim]
    std::vector<float> read_v(uint32_t layer) const {
        const kvl_layer_info layer_info = info(layer);
        std::vector<float> out(static_cast<size_t>(layer_info.len) * layer_info.v_entry_size);
        check(kvl_cache_read_v(get(), layer, 0, layer_info.len, out.data(), out.size()));
        return out;
    }

    /// Returns the C object, which this object owns.
    kvl_cache *get() const noexcept { return cache_.get(); }

private:
    struct Destroy {
        void operator()(kvl_cache *cache) const noexcept { kvl_cache_destroy(cache); }
    };

    explicit Cache(kvl_cache *cache) : cache_(cache) {}

    Cache(std::span<const Layer> layers, uint32_t n_layers, int64_t max_tokens, uint32_t flags) {
        std::vector<kvl_layer_desc> descs;
        for (const Layer &layer : layers) {
            descs.push_back(layer.desc());
        }
        kvl_cache_desc desc = kvl_cache_desc_init();
        desc.flags = flags;
        desc.n_layers = n_layers;
        desc.layers = descs.data();
        desc.n_layer_descs = static_cast<uint32_t>(descs.size());
        desc.max_tokens = max_tokens;
        kvl_cache *cache;
        check(kvl_cache_create(&desc, &cache));
        cache_.reset(cache);
    }

    std::unique_ptr<kvl_cache, Destroy> cache_;
};

/// Returns the maximum number of tasks of a call on this executor (null: without one), as needed for its workspace size.
inline uint32_t max_tasks(const kvl_executor *executor) noexcept { return executor ? executor->n_threads : 1; }

/// Memory for calls, aligned to KVL_WORKSPACE_ALIGNMENT. One call at a time.
class Workspace {
public:
    /// Allocates a workspace of that many bytes.
    explicit Workspace(size_t bytes) : bytes_(bytes), data_(::operator new(bytes, alignment)) {}

    /// Returns the address of the memory.
    void *data() const noexcept { return data_.get(); }

    /// Returns the size in bytes.
    size_t size() const noexcept { return bytes_; }

private:
    static constexpr std::align_val_t alignment{KVL_WORKSPACE_ALIGNMENT};
    struct Delete {
        void operator()(void *data) const noexcept { ::operator delete(data, alignment); }
    };

    size_t bytes_;
    std::unique_ptr<void, Delete> data_;
};

/// Geometry and score rules of an attention object, as in kvl_attention_desc.
struct Geometry {
    uint32_t n_query_heads = 0;
    uint32_t n_kv_heads = 0;
    uint32_t head_dim = 0;
    uint32_t v_head_dim = 0;  // 0: as head_dim
    Format k_format = Format::f16;
    Format v_format = Format::f16;
    float scale = 0;  // 0: 1 / sqrt(head_dim)
    Rotation k_rotation = Rotation::by_format;
    Rotation v_rotation = Rotation::by_format;
    int64_t window = 0;  // 0: all tokens are visible
    int64_t n_sink_tokens = 0;
    float softcap = 0;                           // 0: none
    std::span<const float> alibi_slopes = {};    // [n_query_heads], or empty: none
    std::span<const float> sink_logits = {};     // [n_query_heads], or empty: none
    Precision precision = Precision::by_format;  // fast only if both formats are q8 or q4
};

/// Returns the geometry, formats and rotations of one layer of a cache, with n_query_heads query heads and no score rules.
inline Geometry geometry_of(const Cache &cache, uint32_t layer, uint32_t n_query_heads) {
    const kvl_layer_info info = cache.info(layer);
    return {.n_query_heads = n_query_heads,
            .n_kv_heads = info.n_kv_heads,
            .head_dim = info.head_dim,
            .v_head_dim = info.v_head_dim,
            .k_format = Format{info.k_format},
            .v_format = Format{info.v_format},
            .k_rotation = Rotation{info.k_rotation},
            .v_rotation = Rotation{info.v_rotation}};
}

/// Memory of a kvl_partial.
class Partial {
public:
    /// Allocates the partial state of n_queries queries.
    Partial(uint32_t n_queries, uint32_t n_query_heads, uint32_t v_head_dim)
        : m_(size_t{n_queries} * n_query_heads), l_(m_.size()), o_(m_.size() * v_head_dim) {}

    /// Returns the addresses of the arrays, which this object owns.
    kvl_partial get() noexcept { return {m_.data(), l_.data(), o_.data()}; }

private:
    std::vector<float> m_;
    std::vector<float> l_;
    std::vector<float> o_;
};

/// A view of rows in the caller's memory, see kvl_view: the first len tokens of its spans or blocks. len must be set. Chains
/// that overlap (n_overlap) need kvl_view itself, and views of tiles come from kvl_cache_view or tile_layout.
struct View {
    uint32_t n_kv_heads = 0;
    uint32_t head_dim = 0;
    uint32_t v_head_dim = 0;  // 0: as head_dim
    Format k_format = Format::f16;
    Format v_format = Format::f16;
    int64_t len = 0;                       // tokens from this view's first to the end of the chain
    std::span<const kvl_span> spans = {};  // in order of position
    int64_t k_token_stride_bytes = 0;
    int64_t k_head_stride_bytes = 0;
    int64_t v_token_stride_bytes = 0;
    int64_t v_head_stride_bytes = 0;
    Rotation k_rotation = Rotation::none;
    Rotation v_rotation = Rotation::none;
    const float *k_offset = nullptr;       // [n_kv_heads, head_dim], or null: none
    std::span<const int32_t> blocks = {};  // indices in order of position
    uint32_t block_tokens = 0;             // 0: no blocks
    int64_t k_block_stride_bytes = 0;
    int64_t v_block_stride_bytes = 0;
    const kvl_view *next = nullptr;  // the following tokens, or null: none

    /// Returns the C descriptor.
    operator kvl_view() const noexcept {
        kvl_view view = kvl_view_init();
        view.n_kv_heads = n_kv_heads;
        view.head_dim = head_dim;
        view.v_head_dim = v_head_dim ? v_head_dim : head_dim;
        view.k_format = static_cast<kvl_format>(k_format);
        view.v_format = static_cast<kvl_format>(v_format);
        view.len = len;
        view.spans = spans.data();
        view.n_spans = static_cast<uint32_t>(spans.size());
        view.k_token_stride_bytes = k_token_stride_bytes;
        view.k_head_stride_bytes = k_head_stride_bytes;
        view.v_token_stride_bytes = v_token_stride_bytes;
        view.v_head_stride_bytes = v_head_stride_bytes;
        view.k_rotation = static_cast<kvl_rotation>(k_rotation);
        view.v_rotation = static_cast<kvl_rotation>(v_rotation);
        view.k_offset = k_offset;
        view.blocks = blocks.data();
        view.n_blocks = static_cast<uint32_t>(blocks.size());
        view.block_tokens = block_tokens;
        view.k_block_stride_bytes = k_block_stride_bytes;
        view.v_block_stride_bytes = v_block_stride_bytes;
        view.next = next;
        return view;
    }
};

/// A range of a sequence's positions whose partial state is computed, as kvl_range.
struct Range {
    int64_t view_first = 0;  // position of the view's first token
    int64_t first = 0;       // the range's first position
    int64_t end = 0;         // one past its last position
    kvl_partial out = {};

    /// Returns the C descriptor.
    operator kvl_range() const noexcept {
        kvl_range range = kvl_range_init();
        range.view_first = view_first;
        range.first = first;
        range.end = end;
        range.out = out;
        return range;
    }
};

/// The tokens that queries see, and biases of their scores, as kvl_mask.
struct Mask {
    const uint64_t *bits = nullptr;  // null: all are visible
    const float *biases = nullptr;   // null: none
    int64_t n_tokens = 0;
    int64_t bits_stride_bytes = 0;
    int64_t biases_stride_bytes = 0;
    int64_t bits_head_stride_bytes = 0;
    int64_t biases_head_stride_bytes = 0;

    /// Returns the C descriptor.
    operator kvl_mask() const noexcept {
        kvl_mask mask = kvl_mask_init();
        mask.bits = bits;
        mask.biases = biases;
        mask.n_tokens = n_tokens;
        mask.bits_stride_bytes = bits_stride_bytes;
        mask.biases_stride_bytes = biases_stride_bytes;
        mask.bits_head_stride_bytes = bits_head_stride_bytes;
        mask.biases_head_stride_bytes = biases_head_stride_bytes;
        return mask;
    }
};

/// One sequence of a call, as kvl_sequence: name the fields that are not to be the default.
struct Sequence {
    const kvl_view *view = nullptr;  // keys and values
    int64_t len = 0;                 // number of tokens
    uint32_t n_queries = 1;
    const void *q = nullptr;
    void *out = nullptr;
    float *lse = nullptr;
    const kvl_range *range = nullptr;  // null: all tokens
    const kvl_mask *mask = nullptr;    // null: none
    bool is_causal = true;             // false: queries also see later tokens
    int64_t causal_offset = 0;         // added to the queries' positions
    Format q_format = Format::f32;
    Format out_format = Format::f32;
    int64_t q_token_stride_bytes = 0;
    int64_t q_head_stride_bytes = 0;
    int64_t out_token_stride_bytes = 0;
    int64_t out_head_stride_bytes = 0;
    int64_t lse_token_stride_bytes = 0;
    int64_t lse_head_stride_bytes = 0;
    bool is_kv_head_range = false;  // the view has more KV heads than the attention object
    uint32_t first_kv_head = 0;     // of such a view

    /// Returns the C descriptor.
    operator kvl_sequence() const noexcept {
        kvl_sequence sequence = kvl_sequence_init();
        sequence.flags = (is_causal ? 0 : KVL_SEQUENCE_NON_CAUSAL) | (is_kv_head_range ? KVL_SEQUENCE_KV_HEADS : 0);
        sequence.first_kv_head = first_kv_head;
        sequence.n_queries = n_queries;
        sequence.view = view;
        sequence.len = len;
        sequence.q = q;
        sequence.out = out;
        sequence.lse = lse;
        sequence.range = range;
        sequence.mask = mask;
        sequence.causal_offset = causal_offset;
        sequence.q_format = static_cast<kvl_format>(q_format);
        sequence.out_format = static_cast<kvl_format>(out_format);
        sequence.q_token_stride_bytes = q_token_stride_bytes;
        sequence.q_head_stride_bytes = q_head_stride_bytes;
        sequence.out_token_stride_bytes = out_token_stride_bytes;
        sequence.out_head_stride_bytes = out_head_stride_bytes;
        sequence.lse_token_stride_bytes = lse_token_stride_bytes;
        sequence.lse_head_stride_bytes = lse_head_stride_bytes;
        return sequence;
    }
};

/// An attention object: immutable, shared by threads.
class Attention {
public:
    /// Errors: those of kvl_attention_create; KVL_ERROR_LENGTH when slopes or logits are not empty or [n_query_heads]
    explicit Attention(const Geometry &geometry) {
        check_heads(geometry.alibi_slopes, geometry.n_query_heads, "alibi_slopes");
        check_heads(geometry.sink_logits, geometry.n_query_heads, "sink_logits");
        kvl_attention_desc desc = kvl_attention_desc_init();
        desc.n_query_heads = geometry.n_query_heads;
        desc.n_kv_heads = geometry.n_kv_heads;
        desc.head_dim = geometry.head_dim;
        desc.v_head_dim = geometry.v_head_dim;
        desc.k_format = static_cast<kvl_format>(geometry.k_format);
        desc.v_format = static_cast<kvl_format>(geometry.v_format);
        desc.scale = geometry.scale;
        desc.k_rotation = static_cast<kvl_rotation>(geometry.k_rotation);
        desc.v_rotation = static_cast<kvl_rotation>(geometry.v_rotation);
        desc.window = geometry.window;
        desc.n_sink_tokens = geometry.n_sink_tokens;
        desc.alibi_slopes = geometry.alibi_slopes.empty() ? nullptr : geometry.alibi_slopes.data();
        desc.sink_logits = geometry.sink_logits.empty() ? nullptr : geometry.sink_logits.data();
        desc.softcap = geometry.softcap;
        desc.precision = static_cast<kvl_precision>(geometry.precision);
        kvl_attention *attention;
        check(kvl_attention_create(&desc, &attention));
        attention_.reset(attention);
    }

    /// Makes a workspace for calls with up to n_sequences sequences of up to max_len tokens and max_queries queries each, on
    /// executors with up to max_tasks threads, with outputs in out_format or f32.
    Workspace workspace(uint32_t n_sequences, int64_t max_len, uint32_t max_queries = 1, uint32_t max_tasks = 1,
                        Format out_format = Format::f32) const {
        kvl_workspace_desc desc = kvl_workspace_desc_init();
        desc.n_sequences = n_sequences;
        desc.max_len = max_len;
        desc.max_queries = max_queries;
        desc.max_tasks = max_tasks;
        desc.out_format = static_cast<kvl_format>(out_format);
        size_t bytes;
        check(kvl_attention_workspace_size_for(get(), &desc, &bytes));
        return Workspace(bytes);
    }

    /// Computes attention for the queries of each sequence; on the calling thread if executor is null.
    void attend(std::span<const kvl_sequence> sequences, Workspace &workspace,
                const kvl_executor *executor = nullptr) const {
        check(kvl_attend(get(), sequences.data(), static_cast<uint32_t>(sequences.size()), workspace.data(),
                         workspace.size(), executor));
    }

    /// Computes attention for the queries of one sequence.
    void attend(const Sequence &sequence, Workspace &workspace, const kvl_executor *executor = nullptr) const {
        const kvl_sequence desc = sequence;
        attend(std::span(&desc, 1), workspace, executor);
    }

    /// Computes attention of one query token of one sequence over all tokens of the view.
    /// Shape:  q [n_query_heads, head_dim]; out [n_query_heads, v_head_dim]
    void attend(const kvl_view &view, const float *q, float *out, Workspace &workspace,
                const kvl_executor *executor = nullptr) const {
        attend(Sequence{.view = &view, .len = view.len, .q = q, .out = out}, workspace, executor);
    }

    /// Plans the calls of a step for up to max_tasks tasks, see kvl_plan.
    void plan(std::span<const kvl_sequence> sequences, Workspace &workspace, uint32_t max_tasks = 1) const {
        check(kvl_plan(get(), sequences.data(), static_cast<uint32_t>(sequences.size()), workspace.data(), workspace.size(),
                       max_tasks));
    }

    /// Merges the partials of several sequences, see kvl_merge_batch.
    void merge(std::span<const kvl_merge_desc> merges) const {
        check(kvl_merge_batch(get(), merges.data(), static_cast<uint32_t>(merges.size())));
    }

    /// Merges partials of n_queries queries each, in array order.
    /// Shape:  out [n_queries, n_query_heads, v_head_dim]; lse [n_queries, n_query_heads] or null
    void merge(std::span<const kvl_partial> partials, uint32_t n_queries, float *out, float *lse = nullptr) const {
        check(kvl_merge(get(), partials.data(), static_cast<uint32_t>(partials.size()), n_queries, out, lse));
    }

    /// Merges n_rows rows of partials, in array order, to a partial, which may be one of them. See kvl_merge_partials.
    void merge_partials(std::span<const kvl_partial> partials, uint32_t n_rows, kvl_partial out) const {
        check(kvl_merge_partials(get(), partials.data(), static_cast<uint32_t>(partials.size()), n_rows, out));
    }

    /// Returns the name of the kernel that calls use, see kvl_attention_kernel.
    const char *kernel() const noexcept { return kvl_attention_kernel(get()); }

    /// Returns the C object, which this object owns.
    kvl_attention *get() const noexcept { return attention_.get(); }

private:
    static void check_heads(std::span<const float> values, uint32_t n_query_heads, const char *name) {
        if (!values.empty() && values.size() != n_query_heads) {
            throw Error(KVL_ERROR_LENGTH, std::string(name) + " has " + std::to_string(values.size()) +
                                              " elements; it must have n_query_heads, " + std::to_string(n_query_heads) +
                                              ", or none");
        }
    }

    struct Destroy {
        void operator()(kvl_attention *attention) const noexcept { kvl_attention_destroy(attention); }
    };

    std::unique_ptr<kvl_attention, Destroy> attention_;
};

/// Computes attention for the sequences of the plan in a workspace, see kvl_attend_planned.
inline void attend_planned(Workspace &workspace, std::span<const kvl_sequence> sequences,
                           const kvl_executor *executor = nullptr) {
    check(kvl_attend_planned(workspace.data(), sequences.data(), static_cast<uint32_t>(sequences.size()), executor));
}

}  // namespace kvlane

#endif

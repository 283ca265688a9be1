// Every way to fail has a status of its own and a text that names the argument, its value and what is allowed; and it
// leaves outputs and state as they were.

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>

#include "row_memory.hpp"

using kvlane::Format;

namespace {

template <class T>
std::vector<std::byte> bytes_of(const T &object) {
    const auto *first = reinterpret_cast<const std::byte *>(&object);
    return {first, first + sizeof object};
}

constexpr uint32_t n_workers = 3;

void run_in_place(void *, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context) {
    for (uint32_t i = 0; i < n_tasks; ++i) {
        task(context, i);
    }
}

// A cache of 2 layers with 2 tokens of at most 4, a third token pending in layer 0, an attention object for it, and one
// variable for every output. Calls that fail must leave all of it as it was.
struct World {
    static constexpr uint32_t n_values = 16;                               // of one token: 2 heads of 8
    static constexpr int64_t tile_bytes = 64 * (16 + 16) * sizeof(float);  // 8 elements are padded to 16

    kvlane::Cache cache{2, {.n_kv_heads = 2, .head_dim = 8, .k_format = Format::f32, .v_format = Format::f32}, 4};
    kvlane::Attention attention{
        {.n_query_heads = 4, .n_kv_heads = 2, .head_dim = 8, .k_format = Format::f32, .v_format = Format::f32}};
    kvlane::Workspace workspace = attention.workspace(2, 4, 1, n_workers);
    std::vector<float> values = test::random_values(4 * n_values, 1);

    std::vector<float> out = std::vector<float>(2 * 32, 7.0f);
    std::vector<float> lse = std::vector<float>(2 * 4, 7.0f);
    std::vector<float> read = std::vector<float>(4 * n_values, 7.0f);
    kvl_cache *made_cache = cache.get();
    kvl_attention *made_attention = attention.get();
    kvl_layer_info info{.struct_size = sizeof(kvl_layer_info),
                        .flags = 0,
                        .n_kv_heads = 7,
                        .head_dim = 7,
                        .v_head_dim = 7,
                        .k_format = 7,
                        .v_format = 7,
                        .k_entry_size = 7,
                        .v_entry_size = 7,
                        .len = 7,
                        .bytes_per_token = 7,
                        .k_rotation = 7,
                        .v_rotation = 7,
                        .n_first_f16 = 7,
                        .n_recent_f16 = 7};
    kvl_view made_view{.struct_size = 7,
                       .flags = 7,
                       .n_kv_heads = 7,
                       .head_dim = 7,
                       .v_head_dim = 7,
                       .k_format = 7,
                       .v_format = 7,
                       .k_token_stride_bytes = 7,
                       .k_head_stride_bytes = 7,
                       .v_token_stride_bytes = 7,
                       .v_head_stride_bytes = 7,
                       .len = 7,
                       .spans = nullptr,
                       .n_spans = 7,
                       .reserved = 7,
                       .k_rotation = 7,
                       .v_rotation = 7,
                       .next = nullptr,
                       .blocks = nullptr,
                       .n_blocks = 7,
                       .block_tokens = 7,
                       .k_block_stride_bytes = 7,
                       .v_block_stride_bytes = 7,
                       .n_overlap = 7,
                       .n_recent = 7,
                       .k_offset = nullptr};
    size_t size = 7;
    uint64_t n_bytes = 7;
    uint32_t n_tasks = 7;
    kvl_format format = 7;

    std::unique_ptr<test::RowMemory> rows;                                // layer 0's
    kvl_view view;                                                        // of these
    kvl_span span;                                                        // its only one
    std::vector<float> pool = test::random_values(3 * 16 * n_values, 4);  // 3 blocks of 16 tokens
    int32_t blocks[2] = {2, 0};
    kvlane::Workspace tile_memory{2 * 3 * tile_bytes};  // 3 of each head
    std::span<float> tiles{static_cast<float *>(tile_memory.data()), tile_memory.size() / sizeof(float)};
    const float *first_value = values.data();
    const float *first_of_tiles = tiles.data();
    const float *last_of_tiles = tiles.data() + tiles.size() - 32;
    kvl_span tile_spans[2] = {{tiles.data(), nullptr, 64}, {tiles.data() + tile_bytes / sizeof(float), nullptr, 128}};
    kvl_sequence pair[2];  // both see the view
    const kvl_sequence *sequences = pair;
    kvlane::Partial partials[2] = {{1, 4, 8}, {1, 4, 8}};
    kvl_partial list[2] = {partials[0].get(), partials[1].get()};
    kvl_range range = kvlane::Range{
        .view_first = 10, .first = 11, .end = 13, .out = list[0]};  // of the view's tokens at 10 to 12, the last two
    std::vector<float> arena = std::vector<float>(1024);            // for what is read and written both
    std::vector<uint64_t> bits = std::vector<uint64_t>(2, ~uint64_t{0});
    std::vector<float> biases = std::vector<float>(16);  // with room behind the mask for what overlaps it
    kvl_mask mask = kvlane::Mask{.bits = bits.data(),
                                 .biases = biases.data(),
                                 .n_tokens = 3,
                                 .bits_stride_bytes = 8,
                                 .biases_stride_bytes = 12};  // of two queries that see all three tokens

    World() {
        std::memset(workspace.data(), 0, workspace.size());
        std::fill(tiles.begin(), tiles.end(), 0.0f);
        test::fill_random(cache, 2, 2);
        test::append_random(cache, 0, 1, 3);
        rows = std::make_unique<test::RowMemory>(cache);
        view = rows->view();
        span = *view.spans;
        view.spans = &span;
        for (int i = 0; i < 2; ++i) {
            pair[i] = kvlane::Sequence{
                .view = &view, .len = view.len, .q = values.data(), .out = out.data() + 32 * i, .lse = lse.data() + 4 * i};
        }
    }

    // Makes the second sequence one of two queries.
    void ask_twice() {
        pair[1].n_queries = 2;
        pair[1].out = pool.data();
        pair[1].lse = nullptr;
    }

    struct State {
        int64_t len;
        std::vector<std::vector<float>> contents;
        std::vector<float> out, lse, partial, read, tiles;
        std::vector<std::byte> workspace;
        const void *made_cache, *made_attention;
        std::vector<std::byte> info, made_view;
        size_t size;
        uint64_t n_bytes;
        uint32_t n_tasks;
        kvl_format format;
        bool operator==(const State &) const = default;
    };

    State state() {
        const kvl_partial range_out = partials[0].get();
        const auto *first = static_cast<const std::byte *>(workspace.data());
        return {cache.len(),
                {cache.read_k(0), cache.read_v(0), cache.read_k(1), cache.read_v(1)},
                out,
                lse,
                {range_out.o, range_out.o + 32},
                read,
                {tiles.begin(), tiles.end()},
                {first, first + workspace.size()},
                made_cache,
                made_attention,
                bytes_of(info),
                bytes_of(made_view),
                size,
                n_bytes,
                n_tasks,
                format};
    }

    kvl_status append(uint32_t layer, int64_t n_tokens) {
        const size_t len = static_cast<size_t>(n_tokens) * n_values;
        return kvl_cache_append(cache.get(), layer, n_tokens, values.data(), len, values.data(), len);
    }
    kvl_status attend() { return attend_in(workspace.data(), workspace.size()); }
    kvl_status attend_in(void *memory, size_t bytes) {
        const kvl_executor executor{run_in_place, nullptr, n_workers};
        return kvl_attend(attention.get(), sequences, 2, memory, bytes, &executor);
    }
    kvl_status begin() { return begin_in(workspace.data(), workspace.size()); }
    kvl_status begin_in(void *memory, size_t bytes) {
        return kvl_attend_begin(attention.get(), sequences, 2, memory, bytes, n_workers, &n_tasks);
    }
    kvl_status merge(uint32_t n_partials, uint32_t n_queries) {
        return kvl_merge(attention.get(), list, n_partials, n_queries, out.data(), lse.data());
    }
    // The view as one of two blocks, values that are the keys.
    void use_blocks() {
        constexpr int64_t row = 8 * sizeof(float);
        span.k = span.v = pool.data();
        span.n_tokens = 3 * 16 + 15;
        view.blocks = blocks;
        view.n_blocks = 2;
        view.block_tokens = 16;
        view.len = 20;
        view.k_head_stride_bytes = view.v_head_stride_bytes = 16 * row;
        view.k_block_stride_bytes = view.v_block_stride_bytes = 2 * 16 * row;
    }
    // The view as one of 70 tokens in two runs of tiles.
    void use_tiles() {
        view.flags = KVL_VIEW_TILES;
        view.spans = tile_spans;
        view.n_spans = 2;
        view.len = 70;
        view.k_token_stride_bytes = tile_bytes;
        view.k_head_stride_bytes = 3 * tile_bytes;
    }
    // And of two blocks of 64, the second of which comes first in memory.
    void use_blocks_of_tiles() {
        use_tiles();
        view.n_spans = 1;
        tile_spans[0].n_tokens = 3 * 64;
        view.blocks = blocks;
        view.n_blocks = 2;
        view.block_tokens = 64;
        view.k_block_stride_bytes = tile_bytes;
    }
    kvl_status write_tiles(int64_t first, int64_t n_tokens) {
        const size_t len = static_cast<size_t>(n_tokens) * n_values;
        return kvl_tiles_write(&view, first, n_tokens, values.data(), len, values.data(), len);
    }
    kvl_status count_bytes() { return kvl_attend_bytes(attention.get(), pair, 2, &n_bytes); }
};

// An array in memory that the call writes too, at its start.
template <class T>
T *moved_into(void *memory, const T *array, size_t n) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::memcpy(memory, array, n * sizeof(T));
    return static_cast<T *>(memory);
}

struct Failure {
    const char *what;
    kvl_status status;
    std::vector<std::string> says;
    std::function<kvl_status(World &)> call;
};

using Failures = std::vector<Failure>;

const float infinity = std::numeric_limits<float>::infinity();

kvl_layer_desc layer_of(Format format) {
    return kvlane::Layer{.n_kv_heads = 2, .head_dim = 8, .k_format = format, .v_format = format}.desc();
}

// A call with one field of a valid descriptor spoilt.
auto create_cache_with(std::function<void(kvl_cache_desc &, kvl_layer_desc &)> spoil) {
    return [=](World &w) {
        kvl_layer_desc layer = layer_of(Format::f32);
        kvl_cache_desc desc{sizeof desc, 0, 2, &layer, 1, 0, 4};
        spoil(desc, layer);
        return kvl_cache_create(&desc, &w.made_cache);
    };
}

auto create_attention_with(std::function<void(kvl_attention_desc &)> spoil) {
    return [=](World &w) {
        kvl_attention_desc desc{sizeof desc, 0, 4, 2, 8, 0, KVL_F32, KVL_F32, 0, 0, 0, 0, 0, nullptr, nullptr, 0, 0};
        spoil(desc);
        return kvl_attention_create(&desc, &w.made_attention);
    };
}

Failures failures_of_cache_create() {
    const auto with = create_cache_with;
    using Desc = kvl_cache_desc;
    using LayerDesc = kvl_layer_desc;
    return {
        {"no descriptor", KVL_ERROR_NULL, {"desc"}, [](World &w) { return kvl_cache_create(nullptr, &w.made_cache); }},
        {"no output",
         KVL_ERROR_NULL,
         {"cache"},
         [](World &) {
             const kvl_layer_desc layer = layer_of(Format::f32);
             const kvl_cache_desc desc{sizeof desc, 0, 2, &layer, 1, 0, 4};
             return kvl_cache_create(&desc, nullptr);
         }},
        {"struct_size",
         KVL_ERROR_STRUCT_SIZE,
         {"desc", "struct_size", "3", std::to_string(sizeof(Desc))},
         with([](Desc &d, LayerDesc &) { d.struct_size = 3; })},
        {"flags", KVL_ERROR_FLAGS, {"desc", "flags", "0x82", "0x1"}, with([](Desc &d, LayerDesc &) { d.flags = 0x82; })},
        {"layers null", KVL_ERROR_NULL, {"layers"}, with([](Desc &d, LayerDesc &) { d.layers = nullptr; })},
        {"no layers", KVL_ERROR_RANGE, {"n_layers", "0", "65536"}, with([](Desc &d, LayerDesc &) { d.n_layers = 0; })},
        {"many layers", KVL_ERROR_RANGE, {"n_layers", "65537"}, with([](Desc &d, LayerDesc &) { d.n_layers = 65537; })},
        {"layer descriptors", KVL_ERROR_RANGE, {"n_layer_descs", "3", "1 or", "2"}, with([](Desc &d, LayerDesc &) {
             d.n_layer_descs = 3;
         })},
        {"no layer descriptors", KVL_ERROR_RANGE, {"n_layer_descs", "0"}, with([](Desc &d, LayerDesc &) {
             d.n_layer_descs = 0;
         })},
        {"negative capacity", KVL_ERROR_RANGE, {"max_tokens", "-1"}, with([](Desc &d, LayerDesc &) { d.max_tokens = -1; })},
        {"capacity", KVL_ERROR_RANGE, {"max_tokens", "2147483649", "2147483648"}, with([](Desc &d, LayerDesc &) {
             d.max_tokens = KVL_MAX_TOKENS + 1;
         })},
        {"more than an address space",
         KVL_ERROR_MEMORY,
         {"max_tokens", "2147483648", "2^47"},
         with([](Desc &d, LayerDesc &l) {
             d.n_layers = 65536;
             d.max_tokens = KVL_MAX_TOKENS;
             l.n_kv_heads = 65536;
             l.head_dim = 1024;
         })},
    };
}

// The same of the layers that it describes.
Failures failures_of_layers() {
    const auto with = create_cache_with;
    using Desc = kvl_cache_desc;
    using LayerDesc = kvl_layer_desc;
    return {
        {"layer's struct_size", KVL_ERROR_STRUCT_SIZE, {"layer", "struct_size"}, with([](Desc &, LayerDesc &l) {
             l.struct_size = 0;
         })},
        {"layer's flags", KVL_ERROR_FLAGS, {"layer", "flags", "0x2"}, with([](Desc &, LayerDesc &l) { l.flags = 2; })},
        {"no heads", KVL_ERROR_RANGE, {"n_kv_heads", "0"}, with([](Desc &, LayerDesc &l) { l.n_kv_heads = 0; })},
        {"many heads", KVL_ERROR_RANGE, {"n_kv_heads", "65537"}, with([](Desc &, LayerDesc &l) { l.n_kv_heads = 65537; })},
        {"head_dim 0", KVL_ERROR_HEAD_DIM, {"head_dim", "0", "1024"}, with([](Desc &, LayerDesc &l) { l.head_dim = 0; })},
        {"head_dim", KVL_ERROR_HEAD_DIM, {"head_dim", "1025", "1024"}, with([](Desc &, LayerDesc &l) {
             l.head_dim = 1025;
         })},
        {"v_head_dim", KVL_ERROR_HEAD_DIM, {"v_head_dim", "1025", "1024"}, with([](Desc &, LayerDesc &l) {
             l.v_head_dim = 1025;
         })},
        {"k_format", KVL_ERROR_FORMAT, {"k_format", "99"}, with([](Desc &, LayerDesc &l) { l.k_format = 99; })},
        {"k_rotation", KVL_ERROR_ROTATION, {"k_rotation", "3"}, with([](Desc &, LayerDesc &l) { l.k_rotation = 3; })},
        {"v_rotation", KVL_ERROR_ROTATION, {"v_rotation", "4"}, with([](Desc &, LayerDesc &l) { l.v_rotation = 4; })},
        {"v_format", KVL_ERROR_FORMAT, {"v_format", "4000000000"}, with([](Desc &, LayerDesc &l) {
             l.v_format = 4000000000u;
         })},
        {"tokens of floats in f16", KVL_ERROR_RANGE, {"n_first_f16", "1", "q8 or q4"}, with([](Desc &, LayerDesc &l) {
             l.n_first_f16 = 1;
         })},
        {"newest tokens of floats in f16",
         KVL_ERROR_RANGE,
         {"n_recent_f16", "64", "q8 or q4"},
         with([](Desc &, LayerDesc &l) { l.n_recent_f16 = 64; })},
        {"n_first_f16", KVL_ERROR_RANGE, {"n_first_f16", "-1", "2147483648"}, with([](Desc &, LayerDesc &l) {
             l.k_format = KVL_Q8;
             l.n_first_f16 = -1;
         })},
        {"n_recent_f16", KVL_ERROR_RANGE, {"n_recent_f16", "2147483649", "2147483648"}, with([](Desc &, LayerDesc &l) {
             l.v_format = KVL_Q4;
             l.n_recent_f16 = KVL_MAX_TOKENS + 1;
         })},
    };
}

Failures failures_of_cache() {
    return {
        {"copy of null", KVL_ERROR_NULL, {"source"}, [](World &w) { return kvl_cache_copy(nullptr, &w.made_cache); }},
        {"copy to null", KVL_ERROR_NULL, {"copy"}, [](World &w) { return kvl_cache_copy(w.cache.get(), nullptr); }},
        {"append to null",
         KVL_ERROR_NULL,
         {"cache"},
         [](World &w) { return kvl_cache_append(nullptr, 1, 1, w.values.data(), 16, w.values.data(), 16); }},
        {"append, layer", KVL_ERROR_LAYER, {"layer", "2", "0 to 1"}, [](World &w) { return w.append(2, 1); }},
        {"append, no tokens", KVL_ERROR_RANGE, {"n_tokens", "0"}, [](World &w) { return w.append(1, 0); }},
        {"append, negative", KVL_ERROR_RANGE, {"n_tokens", "-1"}, [](World &w) { return w.append(1, -1); }},
        {"append, k null",
         KVL_ERROR_NULL,
         {"k is"},
         [](World &w) { return kvl_cache_append(w.cache.get(), 1, 1, nullptr, 16, w.values.data(), 16); }},
        {"append, v null",
         KVL_ERROR_NULL,
         {"v is"},
         [](World &w) { return kvl_cache_append(w.cache.get(), 1, 1, w.values.data(), 16, nullptr, 16); }},
        {"append, k_len",
         KVL_ERROR_LENGTH,
         {"k_len", "15", "16"},
         [](World &w) { return kvl_cache_append(w.cache.get(), 1, 1, w.values.data(), 15, w.values.data(), 16); }},
        {"append, v_len",
         KVL_ERROR_LENGTH,
         {"v_len", "17", "16"},
         [](World &w) { return kvl_cache_append(w.cache.get(), 1, 1, w.values.data(), 16, w.values.data(), 17); }},
        {"append twice", KVL_ERROR_APPEND_TWICE, {"layer 0", "1 pending"}, [](World &w) { return w.append(0, 1); }},
        {"append past capacity",
         KVL_ERROR_CAPACITY,
         {"n_tokens", "3", "2 of at most 4"},
         [](World &w) { return w.append(1, 3); }},
        {"advance of null", KVL_ERROR_NULL, {"cache"}, [](World &) { return kvl_cache_advance(nullptr, 1); }},
        {"advance by 0", KVL_ERROR_RANGE, {"n_tokens", "0"}, [](World &w) { return kvl_cache_advance(w.cache.get(), 0); }},
        {"advance, layer missing",
         KVL_ERROR_LAYER_MISSING,
         {"n_tokens is 1", "layer 1", "0 pending"},
         [](World &w) { return kvl_cache_advance(w.cache.get(), 1); }},
        {"advance by another number",
         KVL_ERROR_LAYER_MISSING,
         {"n_tokens is 2", "layer 0", "1 pending"},
         [](World &w) { return kvl_cache_advance(w.cache.get(), 2); }},
        {"truncate null", KVL_ERROR_NULL, {"cache"}, [](World &) { return kvl_cache_truncate(nullptr, 0); }},
        {"truncate below 0",
         KVL_ERROR_LENGTH,
         {"len", "-1", "2"},
         [](World &w) { return kvl_cache_truncate(w.cache.get(), -1); }},
        {"truncate past len",
         KVL_ERROR_LENGTH,
         {"len", "3", "2"},
         [](World &w) { return kvl_cache_truncate(w.cache.get(), 3); }},
        {"clear null", KVL_ERROR_NULL, {"cache"}, [](World &) { return kvl_cache_clear(nullptr); }},
        {"info of null", KVL_ERROR_NULL, {"cache"}, [](World &w) { return kvl_cache_layer_info(nullptr, 0, &w.info); }},
        {"info, layer",
         KVL_ERROR_LAYER,
         {"layer", "2"},
         [](World &w) { return kvl_cache_layer_info(w.cache.get(), 2, &w.info); }},
        {"info to null", KVL_ERROR_NULL, {"info"}, [](World &w) { return kvl_cache_layer_info(w.cache.get(), 0, nullptr); }},
        {"view of null", KVL_ERROR_NULL, {"cache"}, [](World &w) { return kvl_cache_view(nullptr, 0, &w.made_view); }},
        {"view, layer",
         KVL_ERROR_LAYER,
         {"layer", "9"},
         [](World &w) { return kvl_cache_view(w.cache.get(), 9, &w.made_view); }},
        {"view to null", KVL_ERROR_NULL, {"view"}, [](World &w) { return kvl_cache_view(w.cache.get(), 0, nullptr); }},
        {"view of unknown size",
         KVL_ERROR_STRUCT_SIZE,
         {"view", "struct_size"},
         [](World &w) { return kvl_cache_view(w.cache.get(), 0, &w.made_view); }},
    };
}

using Read = kvl_status (*)(const kvl_cache *, uint32_t, int64_t, int64_t, float *, size_t);

Failures failures_of_read(Read read) {
    return {
        {"read of null", KVL_ERROR_NULL, {"cache"}, [=](World &w) { return read(nullptr, 0, 0, 1, w.read.data(), 16); }},
        {"read, layer",
         KVL_ERROR_LAYER,
         {"layer", "2"},
         [=](World &w) { return read(w.cache.get(), 2, 0, 1, w.read.data(), 16); }},
        {"read, first < 0",
         KVL_ERROR_RANGE,
         {"first", "-1"},
         [=](World &w) { return read(w.cache.get(), 0, -1, 1, w.read.data(), 16); }},
        {"read, first",
         KVL_ERROR_RANGE,
         {"first", "4", "3"},
         [=](World &w) { return read(w.cache.get(), 0, 4, 0, w.read.data(), 0); }},
        {"read, n_tokens < 0",
         KVL_ERROR_RANGE,
         {"n_tokens", "-1"},
         [=](World &w) { return read(w.cache.get(), 0, 0, -1, w.read.data(), 16); }},
        {"read past len",
         KVL_ERROR_RANGE,
         {"n_tokens", "3", "2"},
         [=](World &w) { return read(w.cache.get(), 1, 0, 3, w.read.data(), 48); }},
        {"read, no overflow",
         KVL_ERROR_RANGE,
         {"n_tokens", "9223372036854775807"},
         [=](World &w) { return read(w.cache.get(), 0, 1, INT64_MAX, w.read.data(), 16); }},
        {"read to null", KVL_ERROR_NULL, {"out"}, [=](World &w) { return read(w.cache.get(), 0, 0, 1, nullptr, 16); }},
        {"read, out_len",
         KVL_ERROR_LENGTH,
         {"out_len", "17", "16"},
         [=](World &w) { return read(w.cache.get(), 0, 0, 1, w.read.data(), 17); }},
    };
}

Failures failures_of_attention_create() {
    const auto with = create_attention_with;
    using Desc = kvl_attention_desc;
    return {
        {"no descriptor",
         KVL_ERROR_NULL,
         {"desc"},
         [](World &w) { return kvl_attention_create(nullptr, &w.made_attention); }},
        {"no output",
         KVL_ERROR_NULL,
         {"attention"},
         [](World &) {
             const kvl_attention_desc desc{sizeof desc, 0, 4, 2, 8,       0,       KVL_F32, KVL_F32, 0,
                                           0,           0, 0, 0, nullptr, nullptr, 0,       0};
             return kvl_attention_create(&desc, nullptr);
         }},
        {"struct_size", KVL_ERROR_STRUCT_SIZE, {"struct_size", "40", std::to_string(sizeof(Desc))}, with([](Desc &d) {
             d.struct_size = 40;
         })},
        {"flags", KVL_ERROR_FLAGS, {"flags", "0x1"}, with([](Desc &d) { d.flags = 1; })},
        {"no KV heads", KVL_ERROR_RANGE, {"n_kv_heads", "0"}, with([](Desc &d) { d.n_kv_heads = 0; })},
        {"many KV heads", KVL_ERROR_RANGE, {"n_kv_heads", "65537"}, with([](Desc &d) { d.n_kv_heads = 65537; })},
        {"no query heads", KVL_ERROR_RANGE, {"n_query_heads", "0"}, with([](Desc &d) { d.n_query_heads = 0; })},
        {"many query heads", KVL_ERROR_RANGE, {"n_query_heads", "65538"}, with([](Desc &d) { d.n_query_heads = 65538; })},
        {"no multiple", KVL_ERROR_HEADS, {"n_query_heads", "5", "multiple", "2"}, with([](Desc &d) {
             d.n_query_heads = 5;
         })},
        {"fewer query heads", KVL_ERROR_HEADS, {"n_query_heads", "1", "2"}, with([](Desc &d) { d.n_query_heads = 1; })},
        {"head_dim 0", KVL_ERROR_HEAD_DIM, {"head_dim", "0", "1024"}, with([](Desc &d) { d.head_dim = 0; })},
        {"head_dim", KVL_ERROR_HEAD_DIM, {"head_dim", "1025", "1024"}, with([](Desc &d) { d.head_dim = 1025; })},
        {"v_head_dim", KVL_ERROR_HEAD_DIM, {"v_head_dim", "1025", "1024"}, with([](Desc &d) { d.v_head_dim = 1025; })},
        {"k_format", KVL_ERROR_FORMAT, {"k_format", "99"}, with([](Desc &d) { d.k_format = 99; })},
        {"k_rotation", KVL_ERROR_ROTATION, {"k_rotation", "3"}, with([](Desc &d) { d.k_rotation = 3; })},
        {"v_rotation", KVL_ERROR_ROTATION, {"v_rotation", "4"}, with([](Desc &d) { d.v_rotation = 4; })},
        {"v_format", KVL_ERROR_FORMAT, {"v_format", "99"}, with([](Desc &d) { d.v_format = 99; })},
        {"scale", KVL_ERROR_SCALE, {"scale", "inf", "finite"}, with([](Desc &d) { d.scale = infinity; })},
        {"negative scale", KVL_ERROR_SCALE, {"scale", "-inf"}, with([](Desc &d) { d.scale = -infinity; })},
        {"scale that is no number", KVL_ERROR_SCALE, {"scale", "nan"}, with([](Desc &d) { d.scale = infinity - infinity; })},
    };
}

Failures failures_of_rules() {
    const auto with = create_attention_with;
    using Desc = kvl_attention_desc;
    return {
        {"precision", KVL_ERROR_PRECISION, {"precision", "3", "KVL_PRECISION_"}, with([](Desc &d) { d.precision = 3; })},
        {"fast precision of floats",
         KVL_ERROR_PRECISION,
         {"precision", "FAST", "both formats are q8 or q4"},
         with([](Desc &d) {
             d.k_format = KVL_F16;
             d.v_format = KVL_F32;
             d.precision = KVL_PRECISION_FAST;
         })},
        {"window", KVL_ERROR_RANGE, {"window", "-1", "0"}, with([](Desc &d) { d.window = -1; })},
        {"n_sink_tokens < 0", KVL_ERROR_RANGE, {"n_sink_tokens", "-1"}, with([](Desc &d) {
             d.window = 5;
             d.n_sink_tokens = -1;
         })},
        {"n_sink_tokens, no window", KVL_ERROR_RANGE, {"n_sink_tokens", "without a window", "4", "0"}, with([](Desc &d) {
             d.n_sink_tokens = 4;
         })},
        {"softcap < 0", KVL_ERROR_RULE, {"softcap", "-1", "1e-38"}, with([](Desc &d) { d.softcap = -1; })},
        {"softcap", KVL_ERROR_RULE, {"softcap", "inf", "1e38"}, with([](Desc &d) { d.softcap = infinity; })},
        {"softcap over what its text allows", KVL_ERROR_RULE, {"softcap", "1.5e+38", "1e38"}, with([](Desc &d) {
             d.softcap = 1.5e38f;
         })},
        {"softcap without an inverse", KVL_ERROR_RULE, {"softcap", "e-41", "1e-38"}, with([](Desc &d) {
             d.softcap = 1e-40f;
         })},
        {"slope", KVL_ERROR_RULE, {"alibi_slopes[2]", "inf", "finite"}, with([](Desc &d) {
             static const float slopes[] = {1, 0.5f, infinity, 0.1f};
             d.alibi_slopes = slopes;
         })},
        {"sink logit", KVL_ERROR_RULE, {"sink_logits[3]", "nan", "less than infinity"}, with([](Desc &d) {
             static const float logits[] = {1, -infinity, 0, infinity - infinity};
             d.sink_logits = logits;
         })},
        {"slope that overflows with distance",
         KVL_ERROR_RULE,
         {"alibi_slopes[0]", "-1e+30", "KVL_MAX_TOKENS"},
         with([](Desc &d) {
             static const float slopes[] = {-1e30f, 0, 0, 0};
             d.alibi_slopes = slopes;
         })},
    };
}

Failures failures_of_workspace_size() {
    return {
        {"workspace for null",
         KVL_ERROR_NULL,
         {"attention"},
         [](World &w) { return kvl_attention_workspace_size(nullptr, 1, 4, 1, 1, &w.size); }},
        {"workspace to null",
         KVL_ERROR_NULL,
         {"bytes"},
         [](World &w) { return kvl_attention_workspace_size(w.attention.get(), 1, 4, 1, 1, nullptr); }},
        {"workspace, max_len < 0",
         KVL_ERROR_RANGE,
         {"max_len", "-1"},
         [](World &w) { return kvl_attention_workspace_size(w.attention.get(), 1, -1, 1, 1, &w.size); }},
        {"workspace, max_len",
         KVL_ERROR_RANGE,
         {"max_len", "2147483649"},
         [](World &w) { return kvl_attention_workspace_size(w.attention.get(), 1, KVL_MAX_TOKENS + 1, 1, 1, &w.size); }},
        {"workspace, no queries",
         KVL_ERROR_RANGE,
         {"max_queries", "0", "1"},
         [](World &w) { return kvl_attention_workspace_size(w.attention.get(), 1, 4, 0, 1, &w.size); }},
        {"workspace, no tasks",
         KVL_ERROR_RANGE,
         {"max_tasks", "0", "1"},
         [](World &w) { return kvl_attention_workspace_size(w.attention.get(), 1, 4, 1, 0, &w.size); }},
        {"workspace, many tasks",
         KVL_ERROR_RANGE,
         {"max_tasks", "65537", "65536"},
         [](World &w) { return kvl_attention_workspace_size(w.attention.get(), 1, 4, 1, KVL_MAX_TASKS + 1, &w.size); }},
    };
}

// What is wrong with a sequence, whoever is handed it: the second of two, so that the first must be left alone too.
auto with_sequence(kvl_status (World::*call)(), std::function<void(World &, kvl_sequence &)> spoil) {
    return [=](World &w) {
        spoil(w, w.pair[1]);
        return (w.*call)();
    };
}

Failures failures_of_sequences(kvl_status (World::*call)()) {
    const auto with = [=](auto spoil) { return with_sequence(call, spoil); };
    return {
        {"struct_size", KVL_ERROR_STRUCT_SIZE, {"sequence", "struct_size", "1"}, with([](World &, kvl_sequence &s) {
             s.struct_size = 1;
         })},
        {"flags", KVL_ERROR_FLAGS, {"sequence", "flags", "0x4"}, with([](World &, kvl_sequence &s) { s.flags = 4; })},
        {"a struct_size that ends within a field",
         KVL_ERROR_STRUCT_SIZE,
         {"struct_size is 76"},
         with([](World &, kvl_sequence &s) { s.struct_size = 76; })},
        {"sequences of two versions",
         KVL_ERROR_STRUCT_SIZE,
         {"sequences[1]: struct_size is 72; it must be that of the array's first element"},
         with([](World &, kvl_sequence &s) { s.struct_size = 72; })},
        {"causal_offset",
         KVL_ERROR_RANGE,
         {"sequences[1]: causal_offset is 2147483649", "-2147483648 to 2147483648"},
         with([](World &, kvl_sequence &s) { s.causal_offset = KVL_MAX_TOKENS + 1; })},
        {"view null", KVL_ERROR_NULL, {"view"}, with([](World &, kvl_sequence &s) { s.view = nullptr; })},
        {"q null", KVL_ERROR_NULL, {"sequence", "q"}, with([](World &, kvl_sequence &s) { s.q = nullptr; })},
        {"out null", KVL_ERROR_NULL, {"sequence", "out"}, with([](World &, kvl_sequence &s) { s.out = nullptr; })},
        {"len < 0", KVL_ERROR_LENGTH, {"sequence", "len", "-1", "3"}, with([](World &, kvl_sequence &s) { s.len = -1; })},
        {"len over the view's", KVL_ERROR_LENGTH, {"sequence", "len", "4", "3"}, with([](World &, kvl_sequence &s) {
             s.len = 4;
         })},
    };
}

// The same of its queries' and outputs' formats and strides.
Failures failures_of_rows(kvl_status (World::*call)()) {
    const auto with = [=](auto spoil) {
        return with_sequence(call, [=](World &w, kvl_sequence &s) {
            w.ask_twice();
            s.lse = w.lse.data();
            spoil(s);
        });
    };
    return {
        {"q_format", KVL_ERROR_FORMAT, {"sequences[1]: q_format is q8", "f32, f16 or bf16"}, with([](kvl_sequence &s) {
             s.q_format = KVL_Q8;
         })},
        {"out_format", KVL_ERROR_FORMAT, {"sequences[1]: out_format is 9"}, with([](kvl_sequence &s) { s.out_format = 9; })},
        {"q's token stride below a row",
         KVL_ERROR_STRIDE,
         {"sequences[1]: q_token_stride_bytes is 28; it must be 0, or a multiple of 4 from a row's 32 bytes"},
         with([](kvl_sequence &s) { s.q_token_stride_bytes = 28; })},
        {"q's head stride that is no multiple", KVL_ERROR_STRIDE, {"q_head_stride_bytes is 34"}, with([](kvl_sequence &s) {
             s.q_head_stride_bytes = 34;
         })},
        {"out's token stride that is negative",
         KVL_ERROR_STRIDE,
         {"out_token_stride_bytes is -32"},
         with([](kvl_sequence &s) { s.out_token_stride_bytes = -32; })},
        {"out's head stride beyond an address space",
         KVL_ERROR_STRIDE,
         {"out_head_stride_bytes is 9223372036854775804"},
         with([](kvl_sequence &s) { s.out_head_stride_bytes = INT64_MAX - 3; })},
        {"lse's token stride", KVL_ERROR_STRIDE, {"lse_token_stride_bytes is 2"}, with([](kvl_sequence &s) {
             s.lse_token_stride_bytes = 2;
         })},
        {"lse's head stride", KVL_ERROR_STRIDE, {"lse_head_stride_bytes is 3"}, with([](kvl_sequence &s) {
             s.lse_head_stride_bytes = 3;
         })},
    };
}

// The same of the view that it shows.
Failures failures_of_views(kvl_status (World::*call)()) {
    const auto with = [=](auto spoil) { return with_sequence(call, [=](World &w, kvl_sequence &) { spoil(w, w.view); }); };
    return {
        {"view's struct_size", KVL_ERROR_STRUCT_SIZE, {"view", "struct_size", "0"}, with([](World &, kvl_view &v) {
             v.struct_size = 0;
         })},
        {"view reserved", KVL_ERROR_FLAGS, {"view", "reserved", "99"}, with([](World &, kvl_view &v) { v.reserved = 99; })},
        {"view's flags", KVL_ERROR_FLAGS, {"view", "flags", "0x80"}, with([](World &, kvl_view &v) { v.flags = 0x80; })},
        {"view's heads", KVL_ERROR_GEOMETRY, {"view", "n_kv_heads", "4", "2"}, with([](World &, kvl_view &v) {
             v.n_kv_heads = 4;
         })},
        {"view's head_dim", KVL_ERROR_GEOMETRY, {"view", "head_dim", "16", "8"}, with([](World &, kvl_view &v) {
             v.head_dim = 16;
         })},
        {"view's v_head_dim", KVL_ERROR_GEOMETRY, {"view", "v_head_dim", "4", "8"}, with([](World &, kvl_view &v) {
             v.v_head_dim = 4;
         })},
        {"view's k_format",
         KVL_ERROR_GEOMETRY,
         {"sequences[0]: view[0]: k_format is f16", "has f32"},
         with([](World &, kvl_view &v) { v.k_format = KVL_F16; })},
        {"view's v_format", KVL_ERROR_GEOMETRY, {"view[0]", "v_format is bf16", "has f32"}, with([](World &, kvl_view &v) {
             v.v_format = KVL_BF16;
         })},
        {"view's k_rotation",
         KVL_ERROR_GEOMETRY,
         {"view[0]", "k_rotation is hadamard", "has none"},
         with([](World &, kvl_view &v) { v.k_rotation = KVL_ROTATION_HADAMARD; })},
        {"view's v_rotation", KVL_ERROR_GEOMETRY, {"view[0]", "v_rotation is 9", "has none"}, with([](World &, kvl_view &v) {
             v.v_rotation = 9;
         })},
        {"view that states no rotation",
         KVL_ERROR_ROTATION,
         {"view[0]", "k_rotation is KVL_ROTATION_DEFAULT", "KVL_ROTATION_NONE or _HADAMARD"},
         with([](World &, kvl_view &v) { v.k_rotation = KVL_ROTATION_DEFAULT; })},
        {"values' rotation that is not stated",
         KVL_ERROR_ROTATION,
         {"v_rotation is KVL_ROTATION_DEFAULT"},
         with([](World &, kvl_view &v) { v.v_rotation = KVL_ROTATION_DEFAULT; })},
    };
}

// And of where that says its tokens are.
Failures failures_of_spans(kvl_status (World::*call)()) {
    const auto with = [=](auto spoil) { return with_sequence(call, [=](World &w, kvl_sequence &) { spoil(w, w.view); }); };
    return {
        {"view's len < 0", KVL_ERROR_RANGE, {"view", "len", "-1"}, with([](World &, kvl_view &v) { v.len = -1; })},
        {"a next view behind one of no tokens",
         KVL_ERROR_RANGE,
         {"view[0]: len is 0", "at least 2"},
         with([](World &w, kvl_view &v) {
             static kvl_view next;
             next = v;
             v.len = 0;
             v.next = &next;
             w.pair[0].len = w.pair[1].len = 0;
         })},
        {"view's len over its spans", KVL_ERROR_LENGTH, {"view", "len", "4", "3"}, with([](World &, kvl_view &v) {
             v.len = 4;
         })},
        {"view without spans", KVL_ERROR_LENGTH, {"view", "len", "3", "0"}, with([](World &, kvl_view &v) {
             v.n_spans = 0;
         })},
        {"view's spans null", KVL_ERROR_NULL, {"view", "spans"}, with([](World &, kvl_view &v) { v.spans = nullptr; })},
        {"span's k null", KVL_ERROR_NULL, {"span", "k"}, with([](World &w, kvl_view &) { w.span.k = nullptr; })},
        {"span's v null", KVL_ERROR_NULL, {"span", "v"}, with([](World &w, kvl_view &) { w.span.v = nullptr; })},
        {"span's tokens < 0", KVL_ERROR_RANGE, {"span", "n_tokens", "-2"}, with([](World &w, kvl_view &) {
             w.span.n_tokens = -2;
         })},
        {"token stride", KVL_ERROR_STRIDE, {"view", "k_token_stride_bytes", "31", "32"}, with([](World &, kvl_view &v) {
             v.k_token_stride_bytes = 31;
         })},
        {"values' token stride < 0",
         KVL_ERROR_STRIDE,
         {"view", "v_token_stride_bytes", "-32", "32"},
         with([](World &, kvl_view &v) { v.v_token_stride_bytes = -32; })},
        {"token stride beyond an address space",
         KVL_ERROR_STRIDE,
         {"view[0]", "v_token_stride_bytes", "9223372036854775807", "32", "70368744177664", "KVL_MAX_EXTENT_BYTES / 2"},
         with([](World &, kvl_view &v) { v.v_token_stride_bytes = INT64_MAX; })},
        {"head stride beyond an address space",
         KVL_ERROR_STRIDE,
         {"k_head_stride_bytes", "140737488355329", "140737488355328"},
         with([](World &, kvl_view &v) { v.k_head_stride_bytes = KVL_MAX_EXTENT_BYTES + 1; })},
        {"head stride", KVL_ERROR_STRIDE, {"view", "v_head_stride_bytes", "0", "32"}, with([](World &, kvl_view &v) {
             v.v_head_stride_bytes = 0;
         })},
    };
}

// And of what it writes, where that is read too, or written twice.
Failures failures_of_overlaps(kvl_status (World::*call)()) {
    const auto with = [=](auto spoil) { return with_sequence(call, spoil); };
    return {
        {"out in keys",
         KVL_ERROR_OVERLAP,
         {"sequences[1]", "out", "0x", "may overlap nothing", "sequences[0]'s k "},
         with([](World &w, kvl_sequence &s) { s.out = static_cast<float *>(const_cast<void *>(w.span.k)) + 8; })},
        {"lse in values",
         KVL_ERROR_OVERLAP,
         {"sequences[1]", "lse", "sequences[0]'s v "},
         with([](World &w, kvl_sequence &s) {
             // the last row that is seen: of the second head, the third token
             s.lse = reinterpret_cast<float *>(static_cast<char *>(const_cast<void *>(w.span.v)) +
                                               w.view.v_head_stride_bytes + 2 * w.view.v_token_stride_bytes) +
                     7;
         })},
        {"keys in out", KVL_ERROR_OVERLAP, {"sequences[0]", "out", "sequences[0]'s k "}, with([](World &w, kvl_sequence &) {
             w.span.k = w.out.data();
         })},
        {"out in q", KVL_ERROR_OVERLAP, {"sequences[1]", "out", "sequences[0]'s q"}, with([](World &w, kvl_sequence &s) {
             s.out = w.values.data() + 31;
         })},
        {"out in another out",
         KVL_ERROR_OVERLAP,
         {"sequences[0]", "out", "sequences[1]'s out"},
         with([](World &w, kvl_sequence &s) { s.out = w.out.data() + 31; })},
        {"lse in another lse",
         KVL_ERROR_OVERLAP,
         {"sequences[0]", "lse", "sequences[1]'s lse"},
         with([](World &w, kvl_sequence &s) { s.lse = w.lse.data() + 3; })},
        {"lse in an out",
         KVL_ERROR_OVERLAP,
         {"sequences[0]", "out", "sequences[1]'s lse"},
         with([](World &w, kvl_sequence &s) { s.lse = w.out.data() + 31; })},
    };
}

// The same where what is read is an array or a descriptor, and the second sequence's output, or its lse, lies over it.
Failures failures_of_arrays(kvl_status (World::*call)(), bool in_lse) {
    const auto with = [=](std::function<void(World &, kvl_sequence &)> spoil) {
        return with_sequence(call, [=](World &w, kvl_sequence &s) {
            spoil(w, s);
            float *const at = w.arena.data();
            if (in_lse) {
                s.lse = at;
            } else if (s.range) {
                w.range.out.o = at;
            } else {
                s.out = at;
            }
        });
    };
    const std::string written = in_lse ? "sequences[1]'s lse" : "sequences[1]'s out";
    return {
        {"out in a view", KVL_ERROR_OVERLAP, {written, "sequences[1]'s view is"}, with([](World &w, kvl_sequence &s) {
             s.view = moved_into(w.arena.data(), s.view, 1);
         })},
        {"out in spans",
         KVL_ERROR_OVERLAP,
         {"view[0]: ", written, "sequences[0]'s view's spans"},
         with([](World &w, kvl_sequence &) { w.view.spans = moved_into(w.arena.data(), w.view.spans, 1); })},
        {"out in blocks",
         KVL_ERROR_OVERLAP,
         {"view[0]: ", written, "sequences[0]'s view's blocks"},
         with([](World &w, kvl_sequence &) {
             w.use_blocks();
             w.view.blocks = moved_into(w.arena.data(), w.view.blocks, 2);
         })},
        {"out in a mask", KVL_ERROR_OVERLAP, {written, "sequences[1]'s mask is"}, with([](World &w, kvl_sequence &s) {
             s.mask = moved_into(w.arena.data(), &w.mask, 1);
         })},
    };
}

Failures failures_of_arrays_in_lse(kvl_status (World::*call)()) { return failures_of_arrays(call, true); }
Failures failures_of_arrays_in_out(kvl_status (World::*call)()) {
    Failures all = failures_of_arrays(call, false);
    all.push_back({"range's o in a range",
                   KVL_ERROR_OVERLAP,
                   {"sequences[1]'s range's out.o", "sequences[1]'s range is"},
                   with_sequence(call, [](World &w, kvl_sequence &s) {
                       w.range.out.o = w.arena.data();
                       s.range = moved_into(w.arena.data(), &w.range, 1);
                   })});
    return all;
}

// The same of views of blocks.
Failures failures_of_blocks(kvl_status (World::*call)()) {
    const auto with = [=](std::function<void(World &, kvl_view &)> spoil) {
        return [=](World &w) {
            w.use_blocks();
            w.pair[0].len = w.pair[1].len = w.view.len;
            spoil(w, w.view);
            return (w.*call)();
        };
    };
    return {
        {"small blocks", KVL_ERROR_RANGE, {"view", "block_tokens", "15", "16"}, with([](World &, kvl_view &v) {
             v.block_tokens = 15;
         })},
        {"blocks of no tokens", KVL_ERROR_RANGE, {"view", "block_tokens", "0", "16"}, with([](World &, kvl_view &v) {
             v.block_tokens = 0;
         })},
        {"blocks of two spans", KVL_ERROR_RANGE, {"view", "n_spans", "2", "1"}, with([](World &, kvl_view &v) {
             v.n_spans = 2;
         })},
        {"blocks without a span", KVL_ERROR_RANGE, {"view", "n_spans", "0", "1"}, with([](World &, kvl_view &v) {
             v.n_spans = 0;
         })},
        {"blocks null", KVL_ERROR_NULL, {"view", "blocks"}, with([](World &, kvl_view &v) { v.blocks = nullptr; })},
        {"blocks' k null", KVL_ERROR_NULL, {"span", "k"}, with([](World &w, kvl_view &) { w.span.k = nullptr; })},
        {"len over the blocks", KVL_ERROR_LENGTH, {"view", "len", "33", "32"}, with([](World &, kvl_view &v) {
             v.len = 33;
         })},
        {"no blocks", KVL_ERROR_LENGTH, {"view", "len", "20", "0"}, with([](World &, kvl_view &v) { v.n_blocks = 0; })},
        {"block < 0", KVL_ERROR_BLOCK, {"view", "blocks[1]", "-1", "from 0 to 2"}, with([](World &w, kvl_view &) {
             w.blocks[1] = -1;
         })},
        {"block", KVL_ERROR_BLOCK, {"view", "blocks[0]", "3", "from 0 to 2", "63"}, with([](World &w, kvl_view &) {
             w.blocks[0] = 3;
         })},
        {"an empty pool", KVL_ERROR_BLOCK, {"view[0]", "its span holds 15 tokens", "16"}, with([](World &w, kvl_view &) {
             w.span.n_tokens = 15;
         })},
        {"block stride beyond an address space",
         KVL_ERROR_STRIDE,
         {"k_block_stride_bytes", "9223372036854775807"},
         with([](World &, kvl_view &v) { v.k_block_stride_bytes = INT64_MAX; })},
        {"block stride", KVL_ERROR_STRIDE, {"view", "v_block_stride_bytes", "31", "32"}, with([](World &, kvl_view &v) {
             v.v_block_stride_bytes = 31;
         })},
        {"out in a block", KVL_ERROR_OVERLAP, {"sequences[1]", "out", "sequences[0]'s k "}, with([](World &w, kvl_view &) {
             w.pair[1].out = w.pool.data() + w.pool.size() - 32;
         })},
    };
}

// A call over a view of tiles, in spans or in blocks.
auto tiles_with(kvl_status (World::*call)(), void (World::*use)(), std::function<void(World &, kvl_view &)> spoil) {
    return [=](World &w) {
        (w.*use)();
        w.pair[0].len = w.pair[1].len = w.view.len;
        spoil(w, w.view);
        return (w.*call)();
    };
}

Failures failures_of_tiles(kvl_status (World::*call)()) {
    const auto with = [=](auto use, auto spoil) { return tiles_with(call, use, spoil); };
    const auto spans = &World::use_tiles, blocks = &World::use_blocks_of_tiles;
    return {
        {"a flag beside that of tiles",
         KVL_ERROR_FLAGS,
         {"view[0]", "flags", "0x3", "0x1"},
         with(spans, [](World &, kvl_view &v) { v.flags = 3; })},
        {"a span before the last of no whole tiles",
         KVL_ERROR_LENGTH,
         {"view[0]: spans[0]: n_tokens is 63", "with tiles", "multiple of 64"},
         with(spans, [](World &w, kvl_view &) { w.tile_spans[0].n_tokens = 63; })},
        {"blocks of a quarter of a tile",
         KVL_ERROR_LENGTH,
         {"view[0]: block_tokens is 16", "with tiles", "multiple of 64"},
         with(blocks, [](World &, kvl_view &v) { v.block_tokens = 16; })},
        {"blocks of no whole tiles",
         KVL_ERROR_LENGTH,
         {"view[0]: block_tokens is 100", "with tiles", "multiple of 64"},
         with(blocks, [](World &, kvl_view &v) { v.block_tokens = 100; })},
        {"len over the spans of tiles",
         KVL_ERROR_LENGTH,
         {"view[0]", "len is 193", "192"},
         with(spans, [](World &, kvl_view &v) { v.len = 193; })},
        {"tiles null",
         KVL_ERROR_NULL,
         {"view[0]: spans[1]: k is null"},
         with(spans, [](World &w, kvl_view &) { w.tile_spans[1].k = nullptr; })},
        {"a span of tiles off a cache line",
         KVL_ERROR_ALIGNMENT,
         {"view[0]: spans[1]: k is ", "a tile must be aligned to 64 bytes"},
         with(spans, [](World &w, kvl_view &) { w.tile_spans[1].k = w.tiles.data() + 8; })},
        {"a pool of tiles off a cache line",
         KVL_ERROR_ALIGNMENT,
         {"view[0]: spans[0]: k is ", "64"},
         with(blocks, [](World &w, kvl_view &) { w.tile_spans[0].k = w.tiles.data() + 1; })},
        {"out in a tile",
         KVL_ERROR_OVERLAP,
         {"sequences[1]", "out", "sequences[0]'s k "},
         with(spans,
              [](World &w, kvl_view &) { w.pair[1].out = w.tiles.data() + 5 * World::tile_bytes / sizeof(float) - 1; })},
        {"out in a block's tile",
         KVL_ERROR_OVERLAP,
         {"sequences[1]", "out", "sequences[0]'s k "},
         with(blocks, [](World &w, kvl_view &) { w.pair[1].out = w.tiles.data() + w.tiles.size() - 32; })},
    };
}

Failures failures_of_tile_strides(kvl_status (World::*call)()) {
    const auto with = [=](auto use, auto spoil) { return tiles_with(call, use, spoil); };
    const auto spans = &World::use_tiles, blocks = &World::use_blocks_of_tiles;
    return {
        {"tile stride",
         KVL_ERROR_STRIDE,
         {"view[0]", "k_token_stride_bytes is 8191", "8192 bytes", "KVL_MAX_EXTENT_BYTES / 1"},
         with(spans,
              [](World &w, kvl_view &v) {
                  w.tile_spans[0].n_tokens = 128;
                  v.k_token_stride_bytes = World::tile_bytes - 1;
              })},
        {"tile stride beyond an address space",
         KVL_ERROR_STRIDE,
         {"k_token_stride_bytes", "70368744177665", "70368744177664", "KVL_MAX_EXTENT_BYTES / 2"},
         with(spans,
              [](World &w, kvl_view &v) {
                  w.pair[0].len = w.pair[1].len = v.len = 64 + 128;
                  w.tile_spans[0].n_tokens = 64 + 128;
                  v.k_token_stride_bytes = KVL_MAX_EXTENT_BYTES / 2 + 1;
              })},
        {"tile stride of no whole cache lines",
         KVL_ERROR_STRIDE,
         {"view[0]", "k_token_stride_bytes is 8224", "multiple of KVL_TILE_ALIGNMENT, 64"},
         with(spans,
              [](World &w, kvl_view &v) {
                  w.tile_spans[0].n_tokens = 128;
                  v.k_token_stride_bytes = World::tile_bytes + 32;
              })},
        {"tiles' head stride of no whole cache lines",
         KVL_ERROR_STRIDE,
         {"view[0]", "k_head_stride_bytes is 24580", "KVL_TILE_ALIGNMENT"},
         with(spans, [](World &, kvl_view &v) { v.k_head_stride_bytes += 4; })},
        {"tiles' block stride of no whole cache lines",
         KVL_ERROR_STRIDE,
         {"view[0]", "k_block_stride_bytes is 8193", "KVL_TILE_ALIGNMENT"},
         with(blocks, [](World &, kvl_view &v) { v.k_block_stride_bytes += 1; })},
        {"tiles' head stride",
         KVL_ERROR_STRIDE,
         {"view[0]", "k_head_stride_bytes is 32", "8192"},
         with(spans, [](World &, kvl_view &v) { v.k_head_stride_bytes = 32; })},
        {"tiles' block stride",
         KVL_ERROR_STRIDE,
         {"view[0]", "k_block_stride_bytes is 8191", "8192"},
         with(blocks, [](World &, kvl_view &v) { v.k_block_stride_bytes = World::tile_bytes - 1; })},
    };
}

auto lay_out_tiles_with(std::function<void(kvl_layer_desc &, uint32_t &)> spoil) {
    return [=](World &) {
        kvl_layer_desc layer = layer_of(Format::q8);
        uint32_t block_tokens = 64;
        spoil(layer, block_tokens);
        kvl_view view{};
        view.struct_size = sizeof view;
        const std::vector<std::byte> before = bytes_of(view);
        const kvl_status status = kvl_tile_layout(&layer, block_tokens, &view);
        CHECK(bytes_of(view) == before);
        return status;
    };
}

Failures failures_of_tile_layout() {
    const auto with = lay_out_tiles_with;
    using LayerDesc = kvl_layer_desc;
    const auto lay_out = [](const kvl_layer_desc *layer, kvl_view *view) { return kvl_tile_layout(layer, 64, view); };
    return {
        {"a layout of null", KVL_ERROR_NULL, {"layer is null"}, [=](World &w) { return lay_out(nullptr, &w.made_view); }},
        {"a layout to null",
         KVL_ERROR_NULL,
         {"view is null"},
         [=](World &) {
             const kvl_layer_desc layer = layer_of(Format::q8);
             return lay_out(&layer, nullptr);
         }},
        {"a layout's struct_size",
         KVL_ERROR_STRUCT_SIZE,
         {"view: struct_size is 7", std::to_string(sizeof(kvl_view))},
         [=](World &w) {
             const kvl_layer_desc layer = layer_of(Format::q8);
             return lay_out(&layer, &w.made_view);
         }},
        {"a layout's layer", KVL_ERROR_STRUCT_SIZE, {"layer: struct_size is 1"}, with([](LayerDesc &l, uint32_t &) {
             l.struct_size = 1;
         })},
        {"a layout's heads", KVL_ERROR_RANGE, {"layer: n_kv_heads is 0"}, with([](LayerDesc &l, uint32_t &) {
             l.n_kv_heads = 0;
         })},
        {"a layout's head_dim", KVL_ERROR_HEAD_DIM, {"layer: v_head_dim is 1025"}, with([](LayerDesc &l, uint32_t &) {
             l.v_head_dim = 1025;
         })},
        {"a layout's format", KVL_ERROR_FORMAT, {"layer: v_format is 5"}, with([](LayerDesc &l, uint32_t &) {
             l.v_format = 5;
         })},
        {"a layout's rotation", KVL_ERROR_ROTATION, {"layer: k_rotation is 3"}, with([](LayerDesc &l, uint32_t &) {
             l.k_rotation = 3;
         })},
        {"first tokens of tiles in f16", KVL_ERROR_RANGE, {"n_first_f16", "64", "to 0"}, with([](LayerDesc &l, uint32_t &) {
             l.n_first_f16 = 64;
         })},
        {"newest tokens of tiles in f16",
         KVL_ERROR_RANGE,
         {"n_recent_f16", "64", "to 0"},
         with([](LayerDesc &l, uint32_t &) { l.n_recent_f16 = 64; })},
        {"no tokens of a block", KVL_ERROR_RANGE, {"block_tokens is 0", "64"}, with([](LayerDesc &, uint32_t &n) {
             n = 0;
         })},
        {"half a tile of a block",
         KVL_ERROR_RANGE,
         {"block_tokens is 96", "multiple of 64"},
         with([](LayerDesc &, uint32_t &n) { n = 96; })},
    };
}

// A write of two tokens that cross from one block of tiles to another.
auto write_tiles_with(std::function<void(World &, kvl_view &)> spoil) {
    return [=](World &w) {
        w.use_blocks_of_tiles();
        spoil(w, w.view);
        return w.write_tiles(63, 2);
    };
}

Failures failures_of_tile_rows() {
    const auto with = [](size_t k_len, size_t v_len, const float *World::*k, const float *World::*v) {
        return [=](World &w) {
            w.use_blocks_of_tiles();
            return kvl_tiles_write(&w.view, 63, 2, k ? w.*k : nullptr, k_len, v ? w.*v : nullptr, v_len);
        };
    };
    constexpr auto there = &World::first_value;
    return {
        {"a write of no keys", KVL_ERROR_NULL, {"k is null"}, with(32, 32, nullptr, there)},
        {"a write of no values", KVL_ERROR_NULL, {"v is null"}, with(32, 32, there, nullptr)},
        {"a write's k_len", KVL_ERROR_LENGTH, {"k_len is 31", "need 32"}, with(31, 32, there, there)},
        {"a write's v_len", KVL_ERROR_LENGTH, {"v_len is 33", "need 32"}, with(32, 33, there, there)},
        {"keys in the tiles that they are written to",
         KVL_ERROR_OVERLAP,
         {"memory of tiles", "and k is from"},
         with(32, 32, &World::first_of_tiles, there)},
        {"values in them",
         KVL_ERROR_OVERLAP,
         {"memory of tiles", "and v is from"},
         with(32, 32, there, &World::last_of_tiles)},
    };
}

// Of rows with strides and formats: appended, written to tiles, and written by slot.
Failures failures_of_token_rows(kvl_status (*call)(World &, const kvl_rows &)) {
    const auto with = [=](std::function<void(kvl_rows &)> spoil) {
        return [=](World &w) {
            w.use_blocks_of_tiles();
            kvl_rows rows = kvl_rows_init();
            rows.n_tokens = 2;
            rows.k = rows.v = w.values.data();
            spoil(rows);
            return call(w, rows);
        };
    };
    return {
        {"rows' struct_size", KVL_ERROR_STRUCT_SIZE, {"rows: struct_size is 3"}, with([](kvl_rows &r) {
             r.struct_size = 3;
         })},
        {"rows' flags", KVL_ERROR_FLAGS, {"rows: flags is 0x1"}, with([](kvl_rows &r) { r.flags = 1; })},
        {"rows' reserved", KVL_ERROR_FLAGS, {"rows: reserved is 1"}, with([](kvl_rows &r) { r.reserved = 1; })},
        {"rows' n_tokens", KVL_ERROR_RANGE, {"n_tokens is -1"}, with([](kvl_rows &r) { r.n_tokens = -1; })},
        {"rows of no keys", KVL_ERROR_NULL, {"rows: k is null"}, with([](kvl_rows &r) { r.k = nullptr; })},
        {"rows of no values", KVL_ERROR_NULL, {"rows: v is null"}, with([](kvl_rows &r) { r.v = nullptr; })},
        {"rows' k_format", KVL_ERROR_FORMAT, {"rows: k_format is q4"}, with([](kvl_rows &r) { r.k_format = KVL_Q4; })},
        {"rows' v_format", KVL_ERROR_FORMAT, {"rows: v_format is 5"}, with([](kvl_rows &r) { r.v_format = 5; })},
        {"rows' token stride", KVL_ERROR_STRIDE, {"rows: k_token_stride_bytes is 31"}, with([](kvl_rows &r) {
             r.k_token_stride_bytes = 31;
         })},
        {"rows' head stride", KVL_ERROR_STRIDE, {"rows: v_head_stride_bytes is 2"}, with([](kvl_rows &r) {
             r.v_head_stride_bytes = 2;
         })},
    };
}

constexpr int64_t some_slots[] = {64, 65};

Failures failures_of_slots() {
    const auto with = [](std::function<void(World &)> spoil, const int64_t *slots) {
        return [=](World &w) {
            w.use_blocks_of_tiles();
            spoil(w);
            kvl_rows rows = kvl_rows_init();
            rows.n_tokens = 2;
            rows.k = rows.v = w.values.data();
            return kvl_tiles_write_slots(&w.view, slots, &rows);
        };
    };
    static constexpr int64_t outside[] = {-1, 3 * 64};
    const auto nothing = [](World &) {};
    return {
        {"no pool",
         KVL_ERROR_NULL,
         {"pool is null"},
         [](World &) {
             const kvl_rows rows = kvl_rows_init();
             return kvl_tiles_write_slots(nullptr, some_slots, &rows);
         }},
        {"no slots", KVL_ERROR_NULL, {"slots is null"}, with(nothing, nullptr)},
        {"a slot outside of the pool",
         KVL_ERROR_RANGE,
         {"slots[1] is 192", "less than the pool's 192"},
         with(nothing, outside)},
        {"a pool of rows", KVL_ERROR_FLAGS, {"pool: flags is 0x0"}, with([](World &w) { w.view.flags = 0; }, some_slots)},
        {"a pool without blocks",
         KVL_ERROR_RANGE,
         {"pool: block_tokens is 0"},
         with([](World &w) { w.view.block_tokens = 0; }, some_slots)},
        {"a pool of two spans",
         KVL_ERROR_RANGE,
         {"pool: n_spans is 2"},
         with([](World &w) { w.view.n_spans = 2; }, some_slots)},
        {"a pool's block stride",
         KVL_ERROR_STRIDE,
         {"pool: k_block_stride_bytes is 64"},
         with([](World &w) { w.view.k_block_stride_bytes = 64; }, some_slots)},
    };
}

Failures failures_of_merge_batch() {
    const auto with = [](std::function<void(World &, kvl_merge_desc &)> spoil) {
        return [=](World &w) {
            kvl_merge_desc merges[2] = {kvl_merge_desc_init(), kvl_merge_desc_init()};
            for (int i = 0; i < 2; ++i) {
                merges[i].partials = w.list;
                merges[i].n_partials = 2;
                merges[i].out = w.out.data() + 32 * i;
                merges[i].lse = w.lse.data() + 4 * i;
            }
            spoil(w, merges[1]);
            return kvl_merge_batch(w.attention.get(), merges, 2);
        };
    };
    return {
        {"no merges",
         KVL_ERROR_NULL,
         {"merges is null"},
         [](World &w) { return kvl_merge_batch(w.attention.get(), nullptr, 2); }},
        {"a merge's struct_size",
         KVL_ERROR_STRUCT_SIZE,
         {"merges[1]: struct_size is 9"},
         with([](World &, kvl_merge_desc &m) { m.struct_size = 9; })},
        {"a merge's flags", KVL_ERROR_FLAGS, {"merges[1]: flags is 0x2"}, with([](World &, kvl_merge_desc &m) {
             m.flags = 2;
         })},
        {"a merge of nothing", KVL_ERROR_RANGE, {"merges[1]: n_partials is 0"}, with([](World &, kvl_merge_desc &m) {
             m.n_partials = 0;
         })},
        {"a merge's out_format", KVL_ERROR_FORMAT, {"merges[1]: out_format is q4"}, with([](World &, kvl_merge_desc &m) {
             m.out_format = KVL_Q4;
         })},
        {"a merge's stride",
         KVL_ERROR_STRIDE,
         {"merges[1]: out_head_stride_bytes is 8"},
         with([](World &, kvl_merge_desc &m) { m.out_head_stride_bytes = 8; })},
        {"a merge to a partial",
         KVL_ERROR_OVERLAP,
         {"merges[1]: partials[0]: out is"},
         with([](World &w, kvl_merge_desc &m) { m.out = w.list[0].o + 1; })},
    };
}

// Conversions of masks and rows.
Failures failures_of_conversions() {
    return {
        {"boolean bytes' stride",
         KVL_ERROR_STRIDE,
         {"stride_bytes is 9", "a row's 10 bytes"},
         [](World &w) {
             const uint8_t bytes[20] = {};
             return kvl_mask_bits_from_bytes(bytes, 2, 10, 9, w.bits.data());
         }},
        {"boolean bytes that are null",
         KVL_ERROR_NULL,
         {"bytes is null"},
         [](World &w) { return kvl_mask_bits_from_bytes(nullptr, 2, 10, 10, w.bits.data()); }},
        {"a negative number of rows",
         KVL_ERROR_RANGE,
         {"n_rows is -1"},
         [](World &w) {
             const uint8_t bytes[20] = {};
             return kvl_mask_bits_from_bytes(bytes, -1, 10, 10, w.bits.data());
         }},
        {"rows of q8",
         KVL_ERROR_FORMAT,
         {"format is q8"},
         [](World &w) { return kvl_rows_to_f32(KVL_Q8, w.values.data(), 1, 4, 0, w.out.data()); }},
        {"converted rows' stride",
         KVL_ERROR_STRIDE,
         {"stride_bytes is 7", "a row's 8 bytes"},
         [](World &w) { return kvl_rows_to_f32(KVL_F16, w.values.data(), 2, 4, 7, w.out.data()); }},
        {"converted rows that are null",
         KVL_ERROR_NULL,
         {"rows is null"},
         [](World &w) { return kvl_rows_to_f32(KVL_F16, nullptr, 2, 4, 8, w.out.data()); }},
    };
}

Failures failures_of_desc_from_cache() {
    return {
        {"no cache to describe",
         KVL_ERROR_NULL,
         {"cache is null"},
         [](World &) {
             kvl_attention_desc desc = kvl_attention_desc_init();
             return kvl_attention_desc_from_cache(nullptr, 0, 4, &desc);
         }},
        {"a layer to describe",
         KVL_ERROR_LAYER,
         {"layer is 2"},
         [](World &w) {
             kvl_attention_desc desc = kvl_attention_desc_init();
             return kvl_attention_desc_from_cache(w.cache.get(), 2, 4, &desc);
         }},
        {"a description's struct_size",
         KVL_ERROR_STRUCT_SIZE,
         {"desc: struct_size is 0"},
         [](World &w) {
             kvl_attention_desc desc = {};
             return kvl_attention_desc_from_cache(w.cache.get(), 0, 4, &desc);
         }},
    };
}

Failures failures_of_tile_writes() {
    const auto with = write_tiles_with;
    return {
        {"a write to null",
         KVL_ERROR_NULL,
         {"view is null"},
         [](World &w) { return kvl_tiles_write(nullptr, 0, 1, w.values.data(), 16, w.values.data(), 16); }},
        {"a write's struct_size", KVL_ERROR_STRUCT_SIZE, {"view: struct_size is 1"}, with([](World &, kvl_view &v) {
             v.struct_size = 1;
         })},
        {"a write to rows", KVL_ERROR_FLAGS, {"view: flags is 0x0", "KVL_VIEW_TILES"}, with([](World &, kvl_view &v) {
             v.flags = 0;
         })},
        {"a write's flags", KVL_ERROR_FLAGS, {"view: flags is 0x5"}, with([](World &, kvl_view &v) { v.flags = 5; })},
        {"a write's reserved", KVL_ERROR_FLAGS, {"view: reserved is 2"}, with([](World &, kvl_view &v) { v.reserved = 2; })},
        {"a write's heads", KVL_ERROR_RANGE, {"view: n_kv_heads is 0"}, with([](World &, kvl_view &v) {
             v.n_kv_heads = 0;
         })},
        {"a write's v_head_dim", KVL_ERROR_HEAD_DIM, {"view: v_head_dim is 0"}, with([](World &, kvl_view &v) {
             v.v_head_dim = 0;
         })},
        {"a write's format", KVL_ERROR_FORMAT, {"view: k_format is 77"}, with([](World &, kvl_view &v) {
             v.k_format = 77;
         })},
        {"a write's rotation", KVL_ERROR_ROTATION, {"view: v_rotation is 9"}, with([](World &, kvl_view &v) {
             v.v_rotation = 9;
         })},
        {"a write that leaves a rotation open",
         KVL_ERROR_ROTATION,
         {"view: k_rotation is KVL_ROTATION_DEFAULT", "KVL_ROTATION_NONE"},
         with([](World &, kvl_view &v) { v.k_rotation = KVL_ROTATION_DEFAULT; })},
        {"a write's len", KVL_ERROR_RANGE, {"view: len is -1"}, with([](World &, kvl_view &v) { v.len = -1; })},
        {"a write's next len", KVL_ERROR_RANGE, {"view: next: len is 7;", "to 6"}, with([](World &w, kvl_view &v) {
             v.len = 6;
             v.next = &w.made_view;
         })},
    };
}

// And in where it writes.
Failures failures_of_tile_places() {
    const auto with = write_tiles_with;
    return {
        {"a write before the first token",
         KVL_ERROR_RANGE,
         {"first is -1", "0 to 70"},
         [](World &w) {
             w.use_tiles();
             return w.write_tiles(-1, 1);
         }},
        {"a write of less than no token",
         KVL_ERROR_RANGE,
         {"n_tokens is -1", "0 to 7"},
         [](World &w) {
             w.use_tiles();
             return w.write_tiles(63, -1);
         }},
        {"a write beyond the view's tokens",
         KVL_ERROR_RANGE,
         {"n_tokens is 2", "0 to 1"},
         [](World &w) {
             w.use_tiles();
             return w.write_tiles(69, 2);
         }},
        {"a write to tiles off a cache line",
         KVL_ERROR_ALIGNMENT,
         {"view: spans[0]: k is ", "64"},
         with([](World &w, kvl_view &) { w.tile_spans[0].k = w.tiles.data() + 1; })},
        {"a write's stride", KVL_ERROR_STRIDE, {"view: k_block_stride_bytes is 0"}, with([](World &, kvl_view &v) {
             v.k_block_stride_bytes = 0;
         })},
        {"a write's spans", KVL_ERROR_NULL, {"view: spans is null"}, with([](World &, kvl_view &v) { v.spans = nullptr; })},
        {"a write to blocks of no whole tiles",
         KVL_ERROR_LENGTH,
         {"view: block_tokens is 72"},
         with([](World &, kvl_view &v) { v.block_tokens = 72; })},
        {"a write to a block that there is not",
         KVL_ERROR_BLOCK,
         {"view: blocks[1] is 3", "from 0 to 2"},
         with([](World &w, kvl_view &) { w.blocks[1] = 3; })},
        {"a block table in the tiles",
         KVL_ERROR_OVERLAP,
         {"memory of tiles", "view's blocks"},
         with([](World &w, kvl_view &v) {
             v.blocks = reinterpret_cast<const int32_t *>(w.tiles.data());  // all 0
         })},
    };
}

// What is wrong with the second sequence's range.
Failures failures_of_ranges(kvl_status (World::*call)()) {
    const auto with = [=](std::function<void(World &, kvl_range &)> spoil) {
        return [=](World &w) {
            w.pair[1].range = &w.range;
            spoil(w, w.range);
            return (w.*call)();
        };
    };
    return {
        {"range's struct_size", KVL_ERROR_STRUCT_SIZE, {"range", "struct_size", "5"}, with([](World &, kvl_range &r) {
             r.struct_size = 5;
         })},
        {"range's flags", KVL_ERROR_FLAGS, {"range", "flags", "0x2"}, with([](World &, kvl_range &r) { r.flags = 2; })},
        {"range's reserved", KVL_ERROR_FLAGS, {"range", "reserved", "3"}, with([](World &, kvl_range &r) {
             r.reserved = 3;
         })},
        {"len < 0, with a range", KVL_ERROR_RANGE, {"len", "-1", "2147483648"}, with([](World &w, kvl_range &) {
             w.pair[1].len = -1;
         })},
        {"len, with a range", KVL_ERROR_RANGE, {"len", "2147483649"}, with([](World &w, kvl_range &) {
             w.pair[1].len = KVL_MAX_TOKENS + 1;
         })},
        {"range's view_first < 0", KVL_ERROR_RANGE, {"range", "view_first", "-1"}, with([](World &, kvl_range &r) {
             r.view_first = -1;
         })},
        {"range's view_first", KVL_ERROR_RANGE, {"view_first", "2147483646", "2147483645"}, with([](World &, kvl_range &r) {
             r.view_first = KVL_MAX_TOKENS - 2;
         })},
        {"range before its view", KVL_ERROR_RANGE, {"range", "first", "9", "10"}, with([](World &, kvl_range &r) {
             r.first = 9;
         })},
        {"range behind its view", KVL_ERROR_RANGE, {"range", "first", "14", "13"}, with([](World &, kvl_range &r) {
             r.first = 14;
         })},
        {"range's end before its first", KVL_ERROR_RANGE, {"range", "end", "10", "11"}, with([](World &, kvl_range &r) {
             r.end = 10;
         })},
        {"range's end", KVL_ERROR_RANGE, {"range", "end", "14", "13"}, with([](World &, kvl_range &r) { r.end = 14; })},
        {"range's m", KVL_ERROR_NULL, {"range", "m"}, with([](World &, kvl_range &r) { r.out.m = nullptr; })},
        {"range's l", KVL_ERROR_NULL, {"range", "l"}, with([](World &, kvl_range &r) { r.out.l = nullptr; })},
        {"range's o", KVL_ERROR_NULL, {"range", "o"}, with([](World &, kvl_range &r) { r.out.o = nullptr; })},
        {"range without queries", KVL_ERROR_NULL, {"sequence", "q"}, with([](World &w, kvl_range &) {
             w.pair[1].q = nullptr;
         })},
    };
}

// A call whose second sequence has a mask, spoilt.
auto with_mask(kvl_status (World::*call)(), std::function<void(World &, kvl_mask &)> spoil) {
    return [=](World &w) {
        w.pair[1].mask = &w.mask;
        spoil(w, w.mask);
        return (w.*call)();
    };
}

Failures failures_of_mask_strides(kvl_status (World::*call)()) {
    const auto with = [=](auto spoil) { return with_mask(call, spoil); };
    return {
        {"bits' stride", KVL_ERROR_STRIDE, {"mask", "bits_stride_bytes", "4", "8"}, with([](World &w, kvl_mask &m) {
             w.ask_twice();
             m.bits_stride_bytes = 4;
         })},
        {"biases' stride", KVL_ERROR_STRIDE, {"mask", "biases_stride_bytes", "-4", "4"}, with([](World &w, kvl_mask &m) {
             w.ask_twice();
             m.biases_stride_bytes = -4;
         })},
        {"bits' stride beyond an address space",
         KVL_ERROR_STRIDE,
         {"mask: bits_stride_bytes", "4611686018427387904", "140737488355328"},
         with([](World &w, kvl_mask &m) {
             w.ask_twice();
             m.bits_stride_bytes = int64_t{1} << 62;
         })},
        {"bits' head stride", KVL_ERROR_STRIDE, {"mask: bits_head_stride_bytes is 12"}, with([](World &, kvl_mask &m) {
             m.bits_head_stride_bytes = 12;
         })},
        {"biases' head stride", KVL_ERROR_STRIDE, {"mask: biases_head_stride_bytes is 6"}, with([](World &, kvl_mask &m) {
             m.biases_head_stride_bytes = 6;
         })},
    };
}

// What is wrong with the second sequence's mask.
Failures failures_of_masks(kvl_status (World::*call)()) {
    const auto with = [=](auto spoil) { return with_mask(call, spoil); };
    return {
        {"mask's struct_size", KVL_ERROR_STRUCT_SIZE, {"mask", "struct_size", "5"}, with([](World &, kvl_mask &m) {
             m.struct_size = 5;
         })},
        {"mask's flags", KVL_ERROR_FLAGS, {"mask", "flags", "0x2"}, with([](World &, kvl_mask &m) { m.flags = 2; })},
        {"mask's reserved", KVL_ERROR_FLAGS, {"mask", "reserved", "3"}, with([](World &, kvl_mask &m) { m.reserved = 3; })},
        {"short mask", KVL_ERROR_MASK, {"mask", "n_tokens", "2", "3"}, with([](World &, kvl_mask &m) { m.n_tokens = 2; })},
        {"mask of less than none", KVL_ERROR_MASK, {"mask", "n_tokens", "-1", "3"}, with([](World &, kvl_mask &m) {
             m.n_tokens = -1;
         })},
        {"mask that is too long", KVL_ERROR_MASK, {"mask", "n_tokens", "2147483649"}, with([](World &, kvl_mask &m) {
             m.n_tokens = KVL_MAX_TOKENS + 1;
         })},
        {"short mask of a range", KVL_ERROR_MASK, {"mask", "n_tokens", "12", "13"}, with([](World &w, kvl_mask &m) {
             w.pair[1].range = &w.range;
             w.pair[1].len = 20;
             m.n_tokens = 12;
         })},
        {"short mask before a range's end", KVL_ERROR_MASK, {"mask", "n_tokens", "3", "11"}, with([](World &w, kvl_mask &) {
             w.pair[1].range = &w.range;
             w.pair[1].len = 11;
         })},
        {"bits that are not aligned",
         KVL_ERROR_MASK,
         {"sequences[1]: mask: bits are at ", "aligned to 8 bytes"},
         with([](World &w, kvl_mask &m) { m.bits = reinterpret_cast<const uint64_t *>(w.biases.data() + 1); })},
        {"biases that are not aligned",
         KVL_ERROR_MASK,
         {"mask: biases are at ", "aligned to 4 bytes"},
         with([](World &w, kvl_mask &m) {
             m.biases = reinterpret_cast<const float *>(reinterpret_cast<const char *>(w.biases.data()) + 2);
         })},
        {"out in bits",
         KVL_ERROR_OVERLAP,
         {"sequences[0]", "out", "sequences[1]'s mask's bits"},
         with([](World &w, kvl_mask &m) { m.bits = reinterpret_cast<const uint64_t *>(w.out.data() + 30); })},
        {"lse in biases",
         KVL_ERROR_OVERLAP,
         {"sequences[0]", "lse", "sequences[1]'s mask's biases"},
         with([](World &w, kvl_mask &m) {
             w.pair[0].lse = w.biases.data() + 2;
             m.bits = nullptr;
         })},
    };
}

Failures failures_of_merge() {
    const auto with = [](std::function<void(kvl_partial(&)[2])> spoil) {
        return [=](World &w) {
            spoil(w.list);
            return w.merge(2, 1);
        };
    };
    return {
        {"merge without attention",
         KVL_ERROR_NULL,
         {"attention"},
         [](World &w) { return kvl_merge(nullptr, w.list, 2, 1, w.out.data(), w.lse.data()); }},
        {"merge of null",
         KVL_ERROR_NULL,
         {"partials"},
         [](World &w) { return kvl_merge(w.attention.get(), nullptr, 2, 1, w.out.data(), w.lse.data()); }},
        {"merge to null",
         KVL_ERROR_NULL,
         {"out"},
         [](World &w) { return kvl_merge(w.attention.get(), w.list, 2, 1, nullptr, w.lse.data()); }},
        {"merge into a partial",
         KVL_ERROR_OVERLAP,
         {"partials[1]", "o is", "out"},
         [](World &w) {
             w.list[1].o = w.out.data();
             return w.merge(2, 1);
         }},
        {"lse of a merge in a partial",
         KVL_ERROR_OVERLAP,
         {"partials[0]", "l is", "lse"},
         [](World &w) {
             w.list[0].l = w.lse.data();
             return w.merge(2, 1);
         }},
        {"lse of a merge in its out",
         KVL_ERROR_OVERLAP,
         {"out", "lse"},
         [](World &w) { return kvl_merge(w.attention.get(), w.list, 2, 1, w.out.data(), w.out.data() + 1); }},
        {"merge over its partials",
         KVL_ERROR_OVERLAP,
         {"out is", "partials is"},
         [](World &w) {
             const kvl_partial *list = moved_into(w.arena.data(), w.list, 2);
             return kvl_merge(w.attention.get(), list, 2, 1, w.arena.data(), w.lse.data());
         }},
        {"merge of nothing", KVL_ERROR_RANGE, {"n_partials", "0", "1"}, [](World &w) { return w.merge(0, 1); }},
        {"merge for no queries", KVL_ERROR_RANGE, {"n_queries", "0", "1"}, [](World &w) { return w.merge(2, 0); }},
        {"merge for many queries",
         KVL_ERROR_RANGE,
         {"n_queries", "536870912", "536870911"},
         [](World &w) { return w.merge(2, 1u << 29); }},
        {"partial's m", KVL_ERROR_NULL, {"partials[1]", "m is"}, with([](kvl_partial(&p)[2]) { p[1].m = nullptr; })},
        {"partial's l", KVL_ERROR_NULL, {"partials[0]", "l is"}, with([](kvl_partial(&p)[2]) { p[0].l = nullptr; })},
        {"partial's o", KVL_ERROR_NULL, {"partials[1]", "o is"}, with([](kvl_partial(&p)[2]) { p[1].o = nullptr; })},
    };
}

Failures failures_of_merge_partials() {
    const auto with = [](std::function<void(World &, kvl_partial &)> spoil) {
        return [=](World &w) {
            kvl_partial out{w.lse.data(), w.lse.data() + 4, w.out.data()};
            spoil(w, out);
            return kvl_merge_partials(w.attention.get(), w.list, 2, 4, out);
        };
    };
    const auto of = [](uint32_t n_partials, uint32_t n_rows) {
        return [=](World &w) { return kvl_merge_partials(w.attention.get(), w.list, n_partials, n_rows, w.list[0]); };
    };
    return {
        {"merge_partials without attention",
         KVL_ERROR_NULL,
         {"attention"},
         [](World &w) { return kvl_merge_partials(nullptr, w.list, 2, 4, w.list[0]); }},
        {"merge_partials of null",
         KVL_ERROR_NULL,
         {"partials"},
         [](World &w) { return kvl_merge_partials(w.attention.get(), nullptr, 2, 4, w.list[0]); }},
        {"merge_partials of nothing", KVL_ERROR_RANGE, {"n_partials", "0", "1"}, of(0, 4)},
        {"merge_partials of no rows", KVL_ERROR_RANGE, {"n_rows", "0", "1"}, of(2, 0)},
        {"merge_partials of many rows", KVL_ERROR_RANGE, {"n_rows", "2147483648", "2147483647"}, of(2, 1u << 31)},
        {"merge_partials of a partial without l", KVL_ERROR_NULL, {"partials[1]: l is"}, with([](World &w, kvl_partial &) {
             w.list[1].l = nullptr;
         })},
        {"merge_partials to no o", KVL_ERROR_NULL, {"out: o is"}, with([](World &, kvl_partial &out) { out.o = nullptr; })},
        {"merge_partials to one array twice",
         KVL_ERROR_OVERLAP,
         {"out.l is", "out.m is"},
         with([](World &, kvl_partial &out) { out.l = out.m; })},
        {"merge_partials over a partial's next row",
         KVL_ERROR_OVERLAP,
         {"partials[1]: out.o is", "its o is"},
         with([](World &w, kvl_partial &out) { out.o = w.list[1].o + 8; })},
        {"merge_partials over another array",
         KVL_ERROR_OVERLAP,
         {"partials[0]: out.m is", "its l is"},
         with([](World &w, kvl_partial &out) { out.m = w.list[0].l; })},
        {"merge_partials over its partials",
         KVL_ERROR_OVERLAP,
         {"out.o is", "partials is"},
         [](World &w) {
             const kvl_partial *list = moved_into(w.arena.data(), w.list, 2);
             return kvl_merge_partials(w.attention.get(), list, 2, 4, {w.lse.data(), w.lse.data() + 4, w.arena.data()});
         }},
    };
}

// Arrays and descriptors that the call reads, in its workspace, which is left as it was.
Failures failures_of_arrays_in_workspace(kvl_status (World::*call)(void *, size_t)) {
    const auto with = [=](std::function<void(World &, std::byte *)> move) {
        return [=](World &w) {
            kvlane::Workspace memory(w.workspace.size());
            auto *const first = static_cast<std::byte *>(memory.data());
            std::memset(first, 0, memory.size());
            move(w, first + 64);
            const std::vector<std::byte> before(first, first + memory.size());
            const kvl_status status = (w.*call)(memory.data(), memory.size());
            CHECK(std::equal(before.begin(), before.end(), first));
            return status;
        };
    };
    return {
        {"sequences in the workspace",
         KVL_ERROR_OVERLAP,
         {"workspace", "and sequences is"},
         with([](World &w, std::byte *at) { w.sequences = moved_into(at, w.pair, 2); })},
        {"a view in the workspace",
         KVL_ERROR_OVERLAP,
         {"workspace", "sequences[1]'s view is"},
         with([](World &w, std::byte *at) { w.pair[1].view = moved_into(at, &w.view, 1); })},
        {"a chain's second view in the workspace",
         KVL_ERROR_OVERLAP,
         {"view[1]: ", "workspace", "sequences[0]'s view is"},
         with([](World &w, std::byte *at) {
             kvl_view *const second = moved_into(at, &w.view, 1);
             second->len = 1;
             w.span.n_tokens = w.view.len - 1;
             second->spans = &w.rows->view().spans[0];
             w.view.next = second;
         })},
        {"spans in the workspace",
         KVL_ERROR_OVERLAP,
         {"view[0]: ", "workspace", "sequences[0]'s view's spans"},
         with([](World &w, std::byte *at) { w.view.spans = moved_into(at, w.view.spans, 1); })},
        {"blocks in the workspace",
         KVL_ERROR_OVERLAP,
         {"view[0]: ", "workspace", "sequences[0]'s view's blocks"},
         with([](World &w, std::byte *at) {
             w.use_blocks();
             w.pair[0].len = w.pair[1].len = w.view.len;
             w.view.blocks = moved_into(at, w.view.blocks, 2);
         })},
        {"a range in the workspace",
         KVL_ERROR_OVERLAP,
         {"workspace", "sequences[1]'s range is"},
         with([](World &w, std::byte *at) { w.pair[1].range = moved_into(at, &w.range, 1); })},
        {"a mask in the workspace",
         KVL_ERROR_OVERLAP,
         {"workspace", "sequences[1]'s mask is"},
         with([](World &w, std::byte *at) { w.pair[1].mask = moved_into(at, &w.mask, 1); })},
        {"a mask's bits in the workspace",
         KVL_ERROR_OVERLAP,
         {"workspace", "sequences[1]'s mask's bits"},
         with([](World &w, std::byte *at) {
             w.mask.bits = moved_into(at, w.bits.data(), w.bits.size());
             w.pair[1].mask = &w.mask;
         })},
        {"a mask's biases in the workspace",
         KVL_ERROR_OVERLAP,
         {"workspace", "sequences[1]'s mask's biases"},
         with([](World &w, std::byte *at) {
             w.mask.biases = moved_into(at, w.biases.data(), w.biases.size());
             w.pair[1].mask = &w.mask;
         })},
        {"keys in the workspace",
         KVL_ERROR_OVERLAP,
         {"view[0]: ", "workspace", "sequences[0]'s k "},
         with([](World &w, std::byte *at) { w.span.k = at; })},
    };
}

// Where a call works: both forms of it.
Failures failures_of_workspace(kvl_status (World::*call)(void *, size_t)) {
    return {
        {"workspace null", KVL_ERROR_NULL, {"workspace"}, [=](World &w) { return (w.*call)(nullptr, w.workspace.size()); }},
        {"workspace misaligned",
         KVL_ERROR_WORKSPACE_ALIGNMENT,
         {"workspace", "64"},
         [=](World &w) { return (w.*call)(static_cast<std::byte *>(w.workspace.data()) + 32, w.workspace.size()); }},
        {"workspace in an out",
         KVL_ERROR_OVERLAP,
         {"workspace", "may overlap nothing", "sequences[1]'s out"},
         [=](World &w) {
             w.pair[1].out = static_cast<float *>(w.workspace.data());
             return (w.*call)(w.workspace.data(), w.workspace.size());
         }},
        {"workspace in q",
         KVL_ERROR_OVERLAP,
         {"workspace", "may overlap nothing", "sequences[0]'s q"},
         [=](World &w) {
             w.pair[0].q = static_cast<float *>(w.workspace.data()) + 4;
             return (w.*call)(w.workspace.data(), w.workspace.size());
         }},
        {"workspace too small",
         KVL_ERROR_WORKSPACE_SIZE,
         {"workspace_bytes"},
         [=](World &w) { return (w.*call)(w.workspace.data(), w.workspace.size() - 1); }},
        {"no workspace",
         KVL_ERROR_WORKSPACE_SIZE,
         {"workspace_bytes", "0"},
         [=](World &w) { return (w.*call)(w.workspace.data(), 0); }},
    };
}

// 2^22 chunks of 2^16 KV heads for 2^22 blocks of 128 queries, of each of five sequences; of memory that is not there, and
// not looked at.
kvl_status begin_with_most_items(World &w) {
    constexpr uint32_t n_heads = KVL_MAX_HEADS;
    const kvlane::Attention attention({.n_query_heads = n_heads, .n_kv_heads = n_heads, .head_dim = 1});
    kvl_view view = w.view;
    view.n_kv_heads = n_heads;
    view.head_dim = view.v_head_dim = 1;
    view.k_format = view.v_format = KVL_F16;
    view.k_token_stride_bytes = view.k_head_stride_bytes = 2;
    view.v_token_stride_bytes = view.v_head_stride_bytes = 2;
    view.len = KVL_MAX_TOKENS;
    const kvl_span span{w.values.data(), w.values.data(), view.len};
    view.spans = &span;
    kvl_sequence sequence = w.pair[0];
    sequence.view = &view;
    sequence.len = view.len;
    sequence.n_queries = uint32_t{1} << 29;
    const std::vector<kvl_sequence> sequences(5, sequence);
    return kvl_attend_begin(attention.get(), sequences.data(), 5, w.workspace.data(), w.workspace.size(), 1, &w.n_tasks);
}

Failures failures_of_calls() {
    return {
        {"attend without attention",
         KVL_ERROR_NULL,
         {"attention"},
         [](World &w) { return kvl_attend(nullptr, w.pair, 2, w.workspace.data(), w.workspace.size(), nullptr); }},
        {"attend to null",
         KVL_ERROR_NULL,
         {"sequences"},
         [](World &w) {
             return kvl_attend(w.attention.get(), nullptr, 1, w.workspace.data(), w.workspace.size(), nullptr);
         }},
        {"executor without parallel_for",
         KVL_ERROR_NULL,
         {"executor", "parallel_for"},
         [](World &w) {
             const kvl_executor executor{nullptr, nullptr, 1};
             return kvl_attend(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), &executor);
         }},
        {"executor without threads",
         KVL_ERROR_RANGE,
         {"executor", "n_threads", "0", "1"},
         [](World &w) {
             const kvl_executor executor{run_in_place, nullptr, 0};
             return kvl_attend(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), &executor);
         }},
        {"executor of many threads",
         KVL_ERROR_RANGE,
         {"executor", "n_threads", "65537", "65536"},
         [](World &w) {
             const kvl_executor executor{run_in_place, nullptr, KVL_MAX_TASKS + 1};
             return kvl_attend(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), &executor);
         }},
        {"executor of more threads than the workspace is for",
         KVL_ERROR_WORKSPACE_SIZE,
         {"workspace_bytes"},
         [](World &w) {
             const kvl_executor executor{run_in_place, nullptr, n_workers + 1};
             return kvl_attend(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), &executor);
         }},
        {"begin for no tasks",
         KVL_ERROR_RANGE,
         {"max_tasks", "0", "1"},
         [](World &w) {
             return kvl_attend_begin(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), 0, &w.n_tasks);
         }},
        {"begin for many tasks",
         KVL_ERROR_RANGE,
         {"max_tasks", "65537", "65536"},
         [](World &w) {
             return kvl_attend_begin(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), KVL_MAX_TASKS + 1,
                                     &w.n_tasks);
         }},
        {"begin with too many items to count",
         KVL_ERROR_RANGE,
         {"sequences[3]", "work items", "4611686018427387904"},
         begin_with_most_items},
        {"begin without attention",
         KVL_ERROR_NULL,
         {"attention"},
         [](World &w) {
             return kvl_attend_begin(nullptr, w.pair, 2, w.workspace.data(), w.workspace.size(), 1, &w.n_tasks);
         }},
    };
}

Failures failures_of_call_memory() {
    return {
        {"out in the sequences",
         KVL_ERROR_OVERLAP,
         {"sequences[1]'s out", "and sequences is"},
         [](World &w) {
             w.pair[1].out = w.arena.data() + 16;
             const kvl_sequence *pair = moved_into(w.arena.data(), w.pair, 2);
             return kvl_attend(w.attention.get(), pair, 2, w.workspace.data(), w.workspace.size(), nullptr);
         }},
        {"n_tasks in out",
         KVL_ERROR_OVERLAP,
         {"sequences[0]'s out", "n_tasks"},
         [](World &w) {
             w.pair[0].out = w.arena.data();
             return kvl_attend_begin(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), 1,
                                     reinterpret_cast<uint32_t *>(w.arena.data() + 3));
         }},
        {"n_tasks in blocks",
         KVL_ERROR_OVERLAP,
         {"n_tasks", "sequences[0]'s view's blocks"},
         [](World &w) {
             w.use_blocks();
             w.pair[0].len = w.pair[1].len = w.view.len;
             return kvl_attend_begin(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), 1,
                                     reinterpret_cast<uint32_t *>(&w.blocks[1]));
         }},
        {"n_tasks in a view",
         KVL_ERROR_OVERLAP,
         {"n_tasks", "sequences[0]'s view is"},
         [](World &w) {
             return kvl_attend_begin(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), 1,
                                     &w.view.n_blocks);
         }},
        {"n_tasks in the sequences",
         KVL_ERROR_OVERLAP,
         {"n_tasks", "and sequences is"},
         [](World &w) {
             return kvl_attend_begin(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), 1,
                                     &w.pair[1].n_queries);
         }},
        {"n_tasks in the workspace",
         KVL_ERROR_OVERLAP,
         {"workspace", "n_tasks"},
         [](World &w) {
             return kvl_attend_begin(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), 1,
                                     static_cast<uint32_t *>(w.workspace.data()));
         }},
        {"begin without n_tasks",
         KVL_ERROR_NULL,
         {"n_tasks"},
         [](World &w) {
             return kvl_attend_begin(w.attention.get(), w.pair, 2, w.workspace.data(), w.workspace.size(), 1, nullptr);
         }},
    };
}

Failures failures_of_small_calls() {
    return {
        {"task of null", KVL_ERROR_NULL, {"workspace"}, [](World &) { return kvl_attend_run_task(nullptr, 0); }},
        {"task of no call",
         KVL_ERROR_WORKSPACE_STATE,
         {"workspace", "kvl_attend_begin"},
         [](World &w) { return kvl_attend_run_task(w.workspace.data(), 0); }},
        {"finish of null", KVL_ERROR_NULL, {"workspace"}, [](World &) { return kvl_attend_finish(nullptr); }},
        {"finish of no call",
         KVL_ERROR_WORKSPACE_STATE,
         {"workspace", "kvl_attend_begin"},
         [](World &w) { return kvl_attend_finish(w.workspace.data()); }},
        {"bytes without attention",
         KVL_ERROR_NULL,
         {"attention"},
         [](World &w) { return kvl_attend_bytes(nullptr, w.pair, 2, &w.n_bytes); }},
        {"bytes of null",
         KVL_ERROR_NULL,
         {"sequences"},
         [](World &w) { return kvl_attend_bytes(w.attention.get(), nullptr, 2, &w.n_bytes); }},
        {"bytes to null",
         KVL_ERROR_NULL,
         {"bytes"},
         [](World &w) { return kvl_attend_bytes(w.attention.get(), w.pair, 2, nullptr); }},
        {"format of null", KVL_ERROR_NULL, {"name"}, [](World &w) { return kvl_format_from_name(nullptr, &w.format); }},
        {"format to null", KVL_ERROR_NULL, {"format"}, [](World &) { return kvl_format_from_name("f16", nullptr); }},
        {"format with a long name",
         KVL_ERROR_FORMAT,
         {"xxx...\"", "f32 f16 bf16 q8 q4"},
         [](World &w) { return kvl_format_from_name(std::string(1000, 'x').c_str(), &w.format); }},
        {"format that is none", KVL_ERROR_FORMAT, {"f17"}, [](World &w) { return kvl_format_from_name("f17", &w.format); }},
        {"isa to null", KVL_ERROR_NULL, {"name"}, [](World &) { return kvl_isa_in_force(nullptr); }},
    };
}

constexpr auto all_failures_of_sequences = {failures_of_sequences,     failures_of_rows,     failures_of_views,
                                            failures_of_spans,         failures_of_overlaps, failures_of_arrays_in_out,
                                            failures_of_arrays_in_lse, failures_of_ranges,   failures_of_masks,
                                            failures_of_mask_strides,  failures_of_blocks,   failures_of_tiles,
                                            failures_of_tile_strides};

Failures all_failures() {
    std::vector<Failures> groups{
        failures_of_cache_create(),
        failures_of_layers(),
        failures_of_cache(),
        failures_of_read(kvl_cache_read_k),
        failures_of_read(kvl_cache_read_v),
        failures_of_attention_create(),
        failures_of_rules(),
        failures_of_workspace_size(),
        failures_of_merge(),
        failures_of_workspace(&World::attend_in),
        failures_of_workspace(&World::begin_in),
        failures_of_arrays_in_workspace(&World::attend_in),
        failures_of_arrays_in_workspace(&World::begin_in),
        failures_of_tile_layout(),
        failures_of_tile_rows(),
        failures_of_token_rows(
            [](World &w, const kvl_rows &rows) { return kvl_cache_append_rows(w.cache.get(), 1, &rows); }),
        failures_of_token_rows([](World &w, const kvl_rows &rows) { return kvl_tiles_write_rows(&w.view, 0, &rows); }),
        failures_of_token_rows(
            [](World &w, const kvl_rows &rows) { return kvl_tiles_write_slots(&w.view, some_slots, &rows); }),
        failures_of_slots(),
        failures_of_merge_batch(),
        failures_of_merge_partials(),
        failures_of_conversions(),
        failures_of_desc_from_cache(),
        failures_of_tile_writes(),
        failures_of_tile_places(),
        failures_of_calls(),
        failures_of_call_memory(),
        failures_of_small_calls()};
    for (const auto call : {&World::attend, &World::begin}) {
        for (const auto failures : all_failures_of_sequences) {
            groups.push_back(failures(call));
        }
    }
    Failures all;
    for (const Failures &some : groups) {
        all.insert(all.end(), some.begin(), some.end());
    }
    return all;
}

}  // namespace

TEST_CASE("a failing call has its status and its text, and changes nothing") {
    for (const Failure &failure : all_failures()) {
        CAPTURE(failure.what);
        World world;
        const World::State before = world.state();
        CHECK(failure.call(world) == failure.status);
        const std::string text = kvl_last_error();
        for (const std::string &said : failure.says) {
            CAPTURE(said);
            CAPTURE(text);
            CHECK(text.find(said) != std::string::npos);
        }
        // Outputs are sorted in the workspace, where nothing else was found in that.
        World::State after = world.state();
        const bool is_sorted =
            failure.status == KVL_ERROR_OVERLAP && !text.starts_with("workspace") && !text.starts_with("n_tasks");
        after.workspace = is_sorted ? before.workspace : after.workspace;
        CHECK(after == before);
    }
}

TEST_CASE("counting a call's bytes fails as the call does, but for overlaps: it writes no output") {
    for (const auto failures : all_failures_of_sequences) {
        for (const Failure &failure : failures(&World::count_bytes)) {
            CAPTURE(failure.what);
            World world;
            const bool is_overlap = failure.status == KVL_ERROR_OVERLAP;
            CHECK(failure.call(world) == (is_overlap ? KVL_OK : failure.status));
            CHECK((world.n_bytes == 7) == !is_overlap);
        }
    }
}

TEST_CASE("every status can be provoked") {
    std::set<kvl_status> provoked{KVL_OK, KVL_ERROR_ISA, KVL_ERROR_TASK, KVL_ERROR_PLAN, KVL_ERROR_NUMA};  // in other tests
    for (const Failure &failure : all_failures()) {
        provoked.insert(failure.status);
    }
    for (int i = 0; std::string(kvl_status_name(kvl_status(i))) != "unknown status"; ++i) {
        CAPTURE(kvl_status_name(kvl_status(i)));
        CHECK(provoked.count(kvl_status(i)) == 1);
    }
}

TEST_CASE("layer_info refuses a descriptor that is too small") {
    World world;
    world.info.struct_size = 8;
    const World::State before = world.state();
    CHECK(kvl_cache_layer_info(world.cache.get(), 0, &world.info) == KVL_ERROR_STRUCT_SIZE);
    CHECK(world.state() == before);
}

TEST_CASE("a refused append leaves the pending token as it was") {
    World world;
    const std::vector<float> k = world.cache.read_k(0);
    REQUIRE(world.append(0, 1) == KVL_ERROR_APPEND_TWICE);
    REQUIRE(world.append(1, 1) == KVL_OK);
    REQUIRE(kvl_cache_advance(world.cache.get(), 1) == KVL_OK);
    CHECK(test::same_bits(world.cache.read_k(0), k));
}

TEST_CASE("a task out of range runs nothing") {
    World world;
    REQUIRE(world.begin() == KVL_OK);
    const World::State before = world.state();
    CHECK(kvl_attend_run_task(world.workspace.data(), world.n_tasks) == KVL_ERROR_TASK);
    CHECK(std::string(kvl_last_error()).find("task is 3; the call has 3") != std::string::npos);
    CHECK(world.state() == before);
}

TEST_CASE("a task run again is refused, and does not stand in for another") {
    World world;
    REQUIRE(world.begin() == KVL_OK);
    REQUIRE(kvl_attend_run_task(world.workspace.data(), 0) == KVL_OK);
    CHECK(kvl_attend_run_task(world.workspace.data(), 0) == KVL_ERROR_TASK);
    CHECK(std::string(kvl_last_error()).find("task is 0; it was run already") != std::string::npos);
    CHECK(kvl_attend_finish(world.workspace.data()) == KVL_ERROR_TASK);
}

TEST_CASE("finish before all tasks ran is refused, and the call goes on") {
    World world;
    REQUIRE(world.attend() == KVL_OK);
    const std::vector<float> expected = world.out;
    std::fill(world.out.begin(), world.out.end(), 0.0f);
    REQUIRE(world.begin() == KVL_OK);
    for (uint32_t task = 0; task < world.n_tasks; ++task) {
        CHECK(kvl_attend_finish(world.workspace.data()) == KVL_ERROR_TASK);
        CHECK(std::string(kvl_last_error()).find(std::to_string(world.n_tasks - task) + " of") != std::string::npos);
        CHECK(kvl_attend_run_task(world.workspace.data(), task) == KVL_OK);
    }
    CHECK(kvl_attend_finish(world.workspace.data()) == KVL_OK);
    CHECK(test::same_bits(world.out, expected));
    CHECK(kvl_attend_finish(world.workspace.data()) == KVL_ERROR_WORKSPACE_STATE);
}

TEST_CASE("the C++ classes throw the status and its text") {
    try {
        kvlane::Attention({.n_query_heads = 3, .n_kv_heads = 2, .head_dim = 8});
        FAIL("nothing was thrown");
    } catch (const kvlane::Error &error) {
        CHECK(error.status() == KVL_ERROR_HEADS);
        CHECK(std::string(error.what()).find("n_query_heads is 3") != std::string::npos);
    }
    World world;
    CHECK_THROWS_AS(world.cache.append(1, std::vector<float>(17), std::vector<float>(16)), kvlane::Error);
    CHECK_THROWS_AS(kvlane::Cache(0, kvlane::Layer{.n_kv_heads = 1, .head_dim = 1}), kvlane::Error);
    CHECK_THROWS_AS(kvlane::format_from_name("f17"), kvlane::Error);
}

TEST_CASE("every thread has an error text of its own") {
    REQUIRE(kvl_cache_clear(nullptr) == KVL_ERROR_NULL);
    std::string other = "?";
    std::thread([&] { other = kvl_last_error(); }).join();
    CHECK(other.empty());
    CHECK(std::string(kvl_last_error()).find("cache is null") != std::string::npos);
}

TEST_CASE("rows of q8 or q4 are refused: they are stored as tiles alone") {
    for (const Format format : {Format::q8, Format::q4}) {
        for (const bool of_keys : {true, false}) {
            const Format k_format = of_keys ? format : Format::f16, v_format = of_keys ? Format::f16 : format;
            kvlane::Cache cache(1, {1, 8, 8, k_format, v_format}, 4);
            test::fill_random(cache, 2, 1);
            const kvlane::Attention attention({1, 1, 8, 8, k_format, v_format});
            kvlane::Workspace workspace = attention.workspace(1, 4);
            kvl_view view = cache.view(0);
            const std::vector<float> q(8, 1.0f);
            std::vector<float> out(8, 7.0f);
            const kvl_sequence sequence = kvlane::Sequence{.view = &view, .len = 2, .q = q.data(), .out = out.data()};
            const auto attend = [&] {
                return kvl_attend(attention.get(), &sequence, 1, workspace.data(), workspace.size(), nullptr);
            };
            view.flags = 0;
            CHECK(attend() == KVL_ERROR_FORMAT);
            const std::string text = kvl_last_error(), name = test::name_of(format);
            CHECK(text.find((of_keys ? "k_format is " : "v_format is ") + name) != std::string::npos);
            CHECK(text.find("rows must be f32, f16 or bf16, and " + name + " needs KVL_VIEW_TILES") != std::string::npos);
            CHECK(out == std::vector<float>(8, 7.0f));
            view.flags = KVL_VIEW_TILES;
            CHECK(attend() == KVL_OK);
        }
    }
}

TEST_CASE("a scale, slopes and sink logits may be as large as f32 is") {
    constexpr float most = std::numeric_limits<float>::max();
    const std::vector<float> slopes{most / KVL_MAX_TOKENS / 2}, logits{most};
    CHECK_NOTHROW(kvlane::Attention({.n_query_heads = 1, .n_kv_heads = 1, .head_dim = 8, .scale = most}));
    CHECK_NOTHROW(kvlane::Attention({.n_query_heads = 1, .n_kv_heads = 1, .head_dim = 8, .alibi_slopes = slopes}));
    CHECK_NOTHROW(kvlane::Attention({.n_query_heads = 1, .n_kv_heads = 1, .head_dim = 8, .sink_logits = logits}));
}

TEST_CASE("memory that only looks wrong is allowed") {
    World w;
    w.use_blocks();
    w.pair[0].len = w.pair[1].len = w.view.len;
    CHECK(w.attend() == KVL_OK);  // values that are the keys
    std::swap(w.pair[0].out, w.pair[1].out);
    w.pair[0].lse = w.pair[1].lse = nullptr;
    CHECK(w.attend() == KVL_OK);  // outputs in any order
    w.blocks[1] = -1;
    w.view.len = w.pair[0].len = w.pair[1].len = 16;
    CHECK(w.attend() == KVL_OK);  // a block of no visible token
    w.blocks[0] = 0;
    w.view.k_block_stride_bytes = w.view.v_block_stride_bytes = 0;
    CHECK(w.attend() == KVL_OK);  // strides between what there is one of
    w.view.len = w.pair[0].len = w.pair[1].len = 1;
    w.view.k_token_stride_bytes = w.view.v_token_stride_bytes = 0;
    CHECK(w.attend() == KVL_OK);
    w.view.len = w.pair[0].len = w.pair[1].len = 0;
    w.view.spans = nullptr;
    w.view.n_spans = 7;
    w.view.blocks = nullptr;
    CHECK(w.attend() == KVL_OK);  // of a view without tokens, everything that says where they are
}

TEST_CASE("tiles that only look wrong are allowed") {
    World w;
    w.use_tiles();
    w.pair[0].len = w.pair[1].len = w.view.len;
    w.tile_spans[0].v = w.out.data();  // what rows alone have
    w.view.v_token_stride_bytes = w.view.v_head_stride_bytes = w.view.v_block_stride_bytes = -1;
    CHECK(w.attend() == KVL_OK);
    w.tile_spans[1].n_tokens = 6;  // the newest tile of a part of its tokens
    CHECK(w.attend() == KVL_OK);
    w.tile_spans[0].n_tokens = 71;  // or any span that all visible tokens are in
    CHECK(w.attend() == KVL_OK);
    w.pair[1].out = w.tiles.data() + 5 * World::tile_bytes / sizeof(float);  // an output in a tile of no visible token
    CHECK(w.attend() == KVL_OK);
    w.tile_spans[0].n_tokens = 64;
    w.view.k_token_stride_bytes = -1;  // strides between tiles of which every run has one
    CHECK(w.attend() == KVL_OK);
}

TEST_CASE("an output may not overlap the last query's row of a mask") {
    World w;
    w.ask_twice();
    w.workspace = w.attention.workspace(2, 4, 2, n_workers);
    w.pair[1].mask = &w.mask;
    CHECK(w.begin() == KVL_OK);
    w.pair[0].lse = w.biases.data() + 5;
    CHECK(w.begin() == KVL_ERROR_OVERLAP);
    w.mask.biases_stride_bytes = 0;  // the first one's row then
    CHECK(w.begin() == KVL_OK);
}

TEST_CASE("an output overlaps that of any other sequence, in whatever order they stand") {
    World w;
    std::vector<float> outs(4 * 32);
    for (const std::vector<size_t> &places : std::vector<std::vector<size_t>>{
             {0, 32, 64, 96}, {96, 64, 32, 0}, {32, 96, 0, 64}, {0, 64, 96, 1}, {96, 0, 32, 95}, {0, 96, 64, 31}}) {
        std::vector<kvl_sequence> sequences;
        for (const size_t place : places) {
            sequences.push_back(w.pair[0]);
            sequences.back().out = &outs[place];
            sequences.back().lse = nullptr;
        }
        const bool overlaps = places.back() % 32 != 0;
        CAPTURE(places.back());
        kvlane::Workspace workspace = w.attention.workspace(4, 4);
        CHECK(kvl_attend(w.attention.get(), sequences.data(), 4, workspace.data(), workspace.size(), nullptr) ==
              (overlaps ? KVL_ERROR_OVERLAP : KVL_OK));
    }
}

// Reads its input as a sequence of calls of the C ABI with hostile arguments. Buffers are always as long as the shape
// that was named says, to the byte; all else may be wrong. An error must leave the cache's length as it was, finite input
// must give finite output, which is the oracle's where nothing is quantized, and a call over several sequences, in memory of
// the caller's own, in tasks of any order, must give each the bits that it has alone over the cache.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "../kernels/planes.hpp"
#include "fuzz_counts.hpp"
#include "kvlane/kvlane.hpp"
#include "oracle.hpp"

FuzzCounts fuzz_counts;

namespace {

void require(bool condition, const char *what) {
    if (!condition) {
        std::fprintf(stderr, "broken: %s; the last error is \"%s\"\n", what, kvl_last_error());
        std::abort();
    }
}

// The bytes of the input, one after another, and zeros when they are spent.
class Input {
public:
    Input(const uint8_t *data, size_t size) : data_(data), left_(size) {}
    bool is_spent() const { return left_ == 0; }

    uint8_t byte() {
        if (is_spent()) {
            return 0;
        }
        --left_;
        return *data_++;
    }

    template <class T>
    T any() {
        std::array<uint8_t, sizeof(T)> bytes;
        for (uint8_t &b : bytes) {
            b = byte();
        }
        T value;
        std::memcpy(&value, bytes.data(), sizeof value);
        return value;
    }

    bool one_in(int n) { return byte() % n == n - 1; }

    // Mostly from least to most, now and then anything.
    template <class T>
    T around(T least, T most) {
        return one_in(16) ? any<T>() : static_cast<T>(least + any<uint16_t>() % (most - least + 1));
    }

    // Mostly short, now and then of several vectors.
    uint32_t dim(uint32_t least) { return one_in(8) ? around(71u, 300u) : around(least, 70u); }
    uint32_t group() { return 1 + byte() % (one_in(8) ? 40 : 9); }

    template <class T>
    void shuffle(std::vector<T> &values) {
        for (size_t i = values.size(); i > 1; --i) {
            std::swap(values[i - 1], values[any<uint16_t>() % i]);
        }
    }

    // Never one that promises memory behind the descriptor.
    size_t struct_size(size_t right) {
        const size_t size = one_in(24) ? any<size_t>() : right;
        return size > right && size <= KVL_MAX_STRUCT_SIZE ? size % right : size;
    }
    uint32_t flags(uint32_t known) { return one_in(24) ? any<uint32_t>() : byte() & known; }

    template <class T>
    T *pointer(T *right) {
        return one_in(24) ? nullptr : right;
    }

private:
    const uint8_t *data_;
    size_t left_;
};

constexpr int64_t most_tokens = 1100;  // three chunks
constexpr uint32_t most_queries = 40;
constexpr int64_t tile_tokens = kvlane::panel::tile_tokens;
constexpr uint32_t last_format = KVL_Q4;
constexpr size_t most_values = 1 << 17;      // of one append
constexpr uint64_t most_bytes = 1 << 25;     // of a cache's tokens, when it is full
constexpr uint32_t most_in_query = 1 << 16;  // elements of the queries, or outputs, of one token

// The calls' world: at most two caches and an attention object, with buffers that are long enough for their shapes.
class World {
public:
    explicit World(Input input) : input_(input) {}
    ~World() {
        kvl_cache_destroy(cache_);
        kvl_cache_destroy(copy_);
        kvl_attention_destroy(attention_);
    }

    void run() {
        using Step = void (World::*)();
        constexpr Step steps[] = {&World::create_cache,
                                  &World::create_attention,
                                  &World::append,
                                  &World::append,
                                  &World::append_to_all,
                                  &World::append_to_all,
                                  &World::fill,
                                  &World::fill,
                                  &World::advance,
                                  &World::truncate,
                                  &World::copy,
                                  &World::read,
                                  &World::attend,
                                  &World::attend,
                                  &World::attend,
                                  &World::attend_by_hand,
                                  &World::spoilt_view,
                                  &World::attend_in_parts,
                                  &World::attend_to_blocks,
                                  &World::write_tiles,
                                  &World::attend_elsewhere,
                                  &World::attend_elsewhere};
        while (!input_.is_spent()) {
            (this->*steps[input_.byte() % std::size(steps)])();
            check_invariants();
        }
    }

private:
    void check_invariants() const {
        for (const kvl_cache *cache : {cache_, copy_}) {
            require(kvl_cache_len(cache) >= 0 && kvl_cache_len(cache) <= kvl_cache_max_tokens(cache), "len is in its range");
            for (uint32_t layer = 0; layer < kvl_cache_n_layers(cache); ++layer) {
                require(info_of(cache, layer).len >= kvl_cache_len(cache), "a layer has the cache's tokens");
            }
        }
    }

    static kvl_layer_info info_of(const kvl_cache *cache, uint32_t layer) {
        kvl_layer_info info{};
        info.struct_size = sizeof info;
        require(kvl_cache_layer_info(cache, layer, &info) == KVL_OK, "a layer describes itself");
        return info;
    }

    // Runs a call that changes the cache; where it fails, no layer may have changed its length.
    template <class Call>
    kvl_status guarded(Call call) {
        std::vector<int64_t> lens = lens_of(cache_);
        const kvl_status status = call();
        if (status != KVL_OK) {
            require(lens == lens_of(cache_), "an error leaves the lengths as they were");
            require(*kvl_last_error() != 0, "an error has a text");
        }
        return status;
    }

    static std::vector<int64_t> lens_of(const kvl_cache *cache) {
        std::vector<int64_t> lens{kvl_cache_len(cache)};
        for (uint32_t layer = 0; layer < kvl_cache_n_layers(cache); ++layer) {
            lens.push_back(info_of(cache, layer).len);
        }
        return lens;
    }

    // Address space that could be had, but that an emulator would keep account of page by page.
    static bool is_too_much(const kvl_cache_desc &desc, const kvl_layer_desc (&layers)[3]) {
        double entry = 0;
        for (const kvl_layer_desc &layer : layers) {
            entry = std::max(entry, 1.0 * layer.n_kv_heads * (layer.head_dim + std::max(layer.head_dim, layer.v_head_dim)));
        }
        const double bytes = 4.0 * entry * desc.n_layers * static_cast<double>(std::max<int64_t>(desc.max_tokens, 131072));
        return bytes > 4e9 && bytes < 1e15;
    }

    void create_cache() {
        kvl_layer_desc layers[3];
        const int32_t nodes[4] = {0, input_.around(-1, 1), 0, -1};
        for (kvl_layer_desc &layer : layers) {
            layer = {.struct_size = input_.struct_size(sizeof layer),
                     .flags = input_.one_in(4) ? input_.flags(KVL_LAYER_ESTIMATE_K_OFFSET) : 0,
                     .n_kv_heads = input_.around(1u, 4u),
                     .head_dim = input_.dim(1),
                     .v_head_dim = input_.dim(0),
                     .k_format = input_.around(0u, last_format),
                     .v_format = input_.around(0u, last_format),
                     .k_rotation = input_.around(0u, 2u),
                     .v_rotation = input_.around(0u, 2u),
                     .n_first_f16 = input_.one_in(2) ? 0 : input_.around<int64_t>(0, 70),
                     .n_recent_f16 = input_.one_in(2) ? 0 : input_.around<int64_t>(0, 70),
                     .k_offset = nullptr,
                     .numa_nodes = layer.n_kv_heads <= 4 && input_.one_in(8) ? nodes : nullptr};
            if (input_.one_in(4) && layer.n_kv_heads <= 4 && layer.head_dim <= k_offset_.size() / 4) {
                layer.k_offset = k_offset_.data();
            }
        }
        const uint32_t n_layers = input_.around(1u, 3u);
        const kvl_cache_desc desc{input_.struct_size(sizeof desc),
                                  input_.flags(1),
                                  n_layers,
                                  input_.pointer(layers),
                                  n_layers <= 3 && input_.one_in(2) ? n_layers : 1,
                                  0,
                                  input_.around<int64_t>(0, most_tokens)};
        if (is_too_much(desc, layers)) {
            return;
        }
        kvl_cache *made = nullptr;
        const kvl_status status = kvl_cache_create(input_.pointer(&desc), &made);
        require((status == KVL_OK) == (made != nullptr), "a cache is made or an error given");
        if (made && is_small(made)) {
            std::swap(cache_, made);
            is_rough_ = false;
        }
        kvl_cache_destroy(made);
    }

    // What is kept for later calls: copies of its tokens are to fit in memory, and a walk through its layers in time.
    static bool is_small(const kvl_cache *cache) {
        if (kvl_cache_n_layers(cache) > 3) {
            return false;
        }
        uint64_t bytes_per_token = 0;
        for (uint32_t layer = 0; layer < kvl_cache_n_layers(cache); ++layer) {
            bytes_per_token += info_of(cache, layer).bytes_per_token;
        }
        return bytes_per_token <= most_bytes / static_cast<uint64_t>(kvl_cache_max_tokens(cache));
    }

    // Of up to 4 heads of up to 256 elements.
    const std::vector<float> k_offset_ = test_offsets(1024);

    static std::vector<float> test_offsets(size_t n) {
        std::vector<float> offsets(n);
        for (size_t i = 0; i < n; ++i) {
            offsets[i] = static_cast<float>(i % 7) - 3;
        }
        return offsets;
    }

    kvl_layer_desc small_layer() {
        return {.struct_size = sizeof(kvl_layer_desc),
                .flags = 0,
                .n_kv_heads = 1u + input_.byte() % 2,
                .head_dim = input_.one_in(8) ? 71u + input_.byte() % 60 : 1u + input_.byte() % 40,
                .v_head_dim = 0,
                .k_format = input_.byte() % (last_format + 1),
                .v_format = input_.byte() % (last_format + 1),
                .k_rotation = 0,
                .v_rotation = 0,
                .n_first_f16 = 0,
                .n_recent_f16 = 0,
                .k_offset = nullptr,
                .numa_nodes = nullptr};
    }

    static kvl_cache *cache_of(const kvl_layer_desc &layer) {
        const kvl_cache_desc desc{sizeof desc, 0, 1, &layer, 1, 0, most_tokens};
        kvl_cache *made = nullptr;
        require(kvl_cache_create(&desc, &made) == KVL_OK, "a right cache is made");
        return made;
    }

    // A cache of small rows that is full, and an attention that fits it: what several chunks take.
    void fill() {
        const kvl_layer_desc layer = small_layer();
        kvl_cache *made = cache_of(layer);
        std::swap(cache_, made);
        kvl_cache_destroy(made);
        const size_t row = size_t{layer.n_kv_heads} * layer.head_dim;
        const int64_t n_tokens =
            std::min<int64_t>(most_tokens - input_.any<uint16_t>() % most_tokens, static_cast<int64_t>(most_values / row));
        const size_t len = static_cast<size_t>(n_tokens) * row;
        const float *from = input_.one_in(8) ? rough_values().data() : values().data();
        require(kvl_cache_append(cache_, 0, n_tokens, from, len, from, len) == KVL_OK, "right tokens are appended");
        is_rough_ = from != values().data();
        create_attention();
    }

    void create_attention() {
        static constexpr float of_heads[64] = {0.5f, 0.25f, -1};
        kvl_attention_desc desc{.struct_size = input_.struct_size(sizeof desc),
                                .flags = input_.flags(0),
                                .n_query_heads = input_.around(1u, 12u),
                                .n_kv_heads = input_.around(1u, 4u),
                                .head_dim = input_.dim(1),
                                .v_head_dim = input_.dim(0),
                                .k_format = input_.around(0u, last_format),
                                .v_format = input_.around(0u, last_format),
                                .scale = input_.one_in(4) ? input_.any<float>() : 0.125f,
                                .k_rotation = input_.around(0u, 2u),
                                .v_rotation = input_.around(0u, 2u),
                                .window = input_.one_in(2) ? 0 : input_.around<int64_t>(0, 200),
                                .n_sink_tokens = input_.one_in(2) ? 0 : input_.around<int64_t>(0, 100),
                                .alibi_slopes = input_.one_in(4) ? of_heads : nullptr,
                                .sink_logits = input_.one_in(4) ? of_heads : nullptr,
                                .softcap = input_.one_in(4) ? input_.any<float>() : 0,
                                .precision = input_.around(0u, 2u)};
        if (kvl_cache_n_layers(cache_) > 0 && !input_.one_in(4)) {
            const kvl_layer_info info = info_of(cache_, 0);
            desc.n_kv_heads = info.n_kv_heads > 1 && input_.one_in(8) ? info.n_kv_heads - 1 : info.n_kv_heads;
            desc.n_query_heads = desc.n_kv_heads * input_.group();
            desc.head_dim = info.head_dim;
            desc.v_head_dim = info.v_head_dim;
            desc.k_format = info.k_format;
            desc.v_format = info.v_format;
            desc.k_rotation = info.k_rotation;
            desc.v_rotation = info.v_rotation;
        }
        if (desc.n_query_heads > std::size(of_heads)) {
            desc.alibi_slopes = desc.sink_logits = nullptr;
        }
        kvl_attention *made = nullptr;
        const kvl_status status = kvl_attention_create(input_.pointer(&desc), &made);
        require((status == KVL_OK) == (made != nullptr), "an attention object is made or an error given");
        desc.v_head_dim = desc.v_head_dim ? desc.v_head_dim : desc.head_dim;
        // Calls of one that is kept have queries and outputs of its size.
        if (made && desc.n_query_heads <= most_in_query / std::max(desc.head_dim, desc.v_head_dim)) {
            desc_ = desc;
            std::swap(attention_, made);
        }
        kvl_attention_destroy(made);
    }

    kvl_status append_some(uint32_t layer, int64_t n_tokens) {
        size_t k_len = 16, v_len = 16;
        if (layer < kvl_cache_n_layers(cache_) && n_tokens > 0 && n_tokens <= most_tokens) {
            const kvl_layer_info info = info_of(cache_, layer);
            k_len = static_cast<size_t>(n_tokens) * info.k_entry_size;
            v_len = static_cast<size_t>(n_tokens) * info.v_entry_size;
        }
        if (k_len > most_values || v_len > most_values) {
            return KVL_ERROR_LENGTH;
        }
        k_len = input_.one_in(16) ? input_.any<size_t>() : k_len;
        const bool is_rough = input_.one_in(32);
        const float *from = is_rough ? rough_values().data() : values().data();
        const kvl_status status = guarded([&] {
            return kvl_cache_append(input_.pointer(cache_), layer, n_tokens, input_.pointer(from), k_len,
                                    input_.pointer(from), v_len);
        });
        is_rough_ |= is_rough && status == KVL_OK;
        return status;
    }

    void append() { append_some(input_.around(0u, 2u), input_.around<int64_t>(1, 40)); }

    void append_to_all() {
        const int64_t n_tokens = input_.around<int64_t>(1, input_.one_in(2) ? 300 : 40);
        bool all = true;
        for (uint32_t layer = 0; layer < kvl_cache_n_layers(cache_); ++layer) {
            all &= append_some(layer, n_tokens) == KVL_OK;
        }
        const int64_t len = kvl_cache_len(cache_);
        if (cache_ && all) {
            require(kvl_cache_advance(cache_, n_tokens) == KVL_OK, "advance commits what every layer has");
            require(kvl_cache_len(cache_) == len + n_tokens, "advance adds the tokens");
        }
    }

    void advance() {
        const int64_t n_tokens = input_.around<int64_t>(0, 40);
        guarded([&] { return kvl_cache_advance(input_.pointer(cache_), n_tokens); });
    }

    void truncate() {
        const int64_t len = input_.around<int64_t>(0, most_tokens);
        if (guarded([&] { return kvl_cache_truncate(cache_, len); }) == KVL_OK) {
            require(kvl_cache_len(cache_) == len, "truncate leaves the length that was asked for");
        }
    }

    void copy() {
        kvl_cache *made = nullptr;
        if (kvl_cache_copy(input_.pointer(cache_), &made) == KVL_OK) {
            require(lens_of(made) == lens_of(cache_), "a copy has the lengths of its source");
            std::swap(copy_, made);
            copy_is_rough_ = is_rough_;
            kvl_cache_destroy(made);
        }
        if (input_.one_in(2)) {
            std::swap(cache_, copy_);
            std::swap(is_rough_, copy_is_rough_);
        }
    }

    void read() {
        const uint32_t layer = input_.around(0u, 2u);
        const int64_t first = input_.around<int64_t>(0, most_tokens);
        const int64_t n_tokens = input_.around<int64_t>(0, 12);
        size_t len = 16;
        if (layer < kvl_cache_n_layers(cache_) && n_tokens >= 0 && n_tokens <= 12) {
            len = static_cast<size_t>(n_tokens) * info_of(cache_, layer).k_entry_size;
        }
        std::vector<float> out(len);
        const kvl_status status = kvl_cache_read_k(cache_, layer, first, n_tokens, input_.pointer(out.data()), len);
        if (status == KVL_OK && !is_rough_) {
            require_finite(out);
        }
    }

    class Elsewhere;

    // A sequence over the cache, or over its tokens' rows, with correct buffers, and the workspace for it.
    struct Call {
        uint32_t layer;
        std::unique_ptr<Elsewhere> rows;
        kvl_view view;
        size_t q_row, out_row;
        std::vector<float> q, out, lse, biases;
        std::vector<uint64_t> bits;
        kvl_mask mask;
        kvl_sequence sequence;
        std::unique_ptr<kvlane::Workspace> workspace;
    };

    bool make_call(Call &call) {
        call.view.struct_size = sizeof call.view;
        call.layer = input_.around(0u, 2u);
        if (!attention_ || kvl_cache_view(cache_, call.layer, &call.view) != KVL_OK) {
            return false;
        }
        if (Elsewhere::can_be_rows(call.view) && input_.one_in(2)) {
            call.rows = Elsewhere::straight_rows(input_, call.view);
            call.view = call.rows->view();
        }
        const uint32_t n_queries = input_.one_in(2) ? 0 : input_.byte() % (most_queries + 1);
        const size_t n_heads = size_t{desc_.n_query_heads} * std::max(1u, n_queries);
        call.q_row = desc_.head_dim + input_.byte() % 3u;  // with a gap behind each row
        call.out_row = desc_.v_head_dim + input_.byte() % 3u;
        call.q.assign(n_heads * call.q_row, 0.5f);
        call.out.assign(n_heads * call.out_row, 7);
        call.lse.assign(n_heads, 7);
        call.sequence = kvlane::Sequence{
            .view = input_.pointer(&call.view),
            .len = input_.around<int64_t>(0, 255),
            .n_queries = n_queries,
            .q = input_.pointer(call.q.data()),
            .out = input_.pointer(call.out.data()),
            .lse = input_.pointer(call.lse.data()),
            .causal_offset = input_.one_in(2) ? input_.around<int64_t>(-60, 255) : 0,
            .q_token_stride_bytes = static_cast<int64_t>(desc_.n_query_heads * call.q_row * sizeof(float)),
            .q_head_stride_bytes = static_cast<int64_t>(call.q_row * sizeof(float)),
            .out_token_stride_bytes = static_cast<int64_t>(desc_.n_query_heads * call.out_row * sizeof(float)),
            .out_head_stride_bytes = static_cast<int64_t>(call.out_row * sizeof(float))};
        call.sequence.struct_size = input_.struct_size(sizeof(kvl_sequence));
        call.sequence.flags = input_.flags(KVL_SEQUENCE_NON_CAUSAL | KVL_SEQUENCE_KV_HEADS);
        call.sequence.first_kv_head = input_.one_in(4) ? input_.around(0u, 1u) : 0;
        if (!input_.one_in(4)) {
            call.sequence.len = call.view.len;
        }
        if (input_.one_in(2)) {
            make_mask(call);
        }
        size_t bytes = 0;
        require(kvl_attention_workspace_size(attention_, 1, most_tokens, most_queries, 3, &bytes) == KVL_OK,
                "a workspace has a size");
        call.workspace = std::make_unique<kvlane::Workspace>(bytes);
        std::memset(call.workspace->data(), 0, bytes);
        return true;
    }

    // Rows as long as the mask says they are; behind each other, or one for all.
    void make_mask(Call &call) {
        const int64_t n_tokens = input_.one_in(4) ? input_.byte() : sum(call.sequence.len, input_.byte() % 9);
        const auto n_words = static_cast<size_t>(std::clamp<int64_t>(n_tokens, 0, 2 * most_tokens) + 63) / 64;
        const size_t n_queries = std::max(1u, call.sequence.n_queries);
        call.bits.resize(n_queries * n_words);
        call.biases.resize(n_queries * n_words * 64);
        for (uint64_t &word : call.bits) {
            word = uint64_t{input_.byte()} * 0x0102040810204081;
        }
        for (float &bias : call.biases) {
            bias = input_.one_in(3) ? -INFINITY : 1;
        }
        call.mask = kvlane::Mask{
            .bits = input_.one_in(3) ? nullptr : call.bits.data(),
            .biases = input_.one_in(2) ? nullptr : call.biases.data(),
            .n_tokens = n_tokens,
            .bits_stride_bytes = input_.one_in(4) ? 0 : static_cast<int64_t>(8 * n_words) - input_.one_in(16),
            .biases_stride_bytes = input_.one_in(4) ? 0 : static_cast<int64_t>(256 * n_words) - input_.one_in(16)};
        call.mask.struct_size = input_.struct_size(sizeof(kvl_mask));
        call.mask.flags = input_.flags(0);
        call.sequence.mask = &call.mask;
    }

    void check_call(const Call &call, kvl_status status) const {
        if (status != KVL_OK) {
            require(all_are(call.out, 7) && all_are(call.lse, 7), "an error leaves the outputs as they were");
        } else if (is_tame()) {
            require_finite(call.out);
        }
    }

    // Whether the cache holds numbers alone, of which the attention makes scores that are none too large.
    bool is_tame() const { return !is_rough_ && std::fabs(desc_.scale) <= 1; }

    // Of tokens [n, n_kv_heads, dim], the KV heads that the attention reads.
    void keep_heads(std::vector<float> &tokens, uint32_t n_kv_heads, uint32_t dim, uint32_t first) const {
        if (n_kv_heads == desc_.n_kv_heads) {
            return;
        }
        const size_t entry = size_t{n_kv_heads} * dim, kept = size_t{desc_.n_kv_heads} * dim;
        for (size_t t = 0; t < tokens.size() / entry; ++t) {
            std::copy_n(&tokens[t * entry + size_t{first} * dim], kept, &tokens[t * kept]);
        }
        tokens.resize(tokens.size() / entry * kept);
    }

    // The newest query's output, where arithmetic is exact, and what is read is what it sees: not so beside tokens in f16,
    // some of which are stored in q8 or q4 too.
    void check_against_oracle(const Call &call) const {
        const kvl_sequence &s = call.sequence;
        const bool is_scaled = desc_.k_format >= KVL_Q8 || desc_.v_format >= KVL_Q8;
        if (!is_tame() || s.struct_size != sizeof s ||
            (is_scaled && (desc_.precision != KVL_PRECISION_EXACT || s.view->next)) || s.len == 0) {
            return;
        }
        const auto n_tokens = static_cast<size_t>(s.len);
        const uint32_t n_kv_heads = s.view->n_kv_heads;
        std::vector<float> k(n_tokens * n_kv_heads * desc_.head_dim), v(n_tokens * n_kv_heads * desc_.v_head_dim);
        require(kvl_cache_read_k(cache_, call.layer, 0, s.len, k.data(), k.size()) == KVL_OK, "keys can be read");
        require(kvl_cache_read_v(cache_, call.layer, 0, s.len, v.data(), v.size()) == KVL_OK, "values can be read");
        keep_heads(k, n_kv_heads, desc_.head_dim, s.first_kv_head);
        keep_heads(v, n_kv_heads, desc_.v_head_dim, s.first_kv_head);
        const size_t last = std::max(1u, s.n_queries) - 1, n_heads = desc_.n_query_heads;
        oracle::Rules rules{.window = desc_.window,
                            .n_sink_tokens = desc_.n_sink_tokens,
                            .softcap = desc_.softcap,
                            .alibi_slopes = desc_.alibi_slopes,
                            .sink_logits = desc_.sink_logits,
                            .is_causal = !(s.flags & KVL_SEQUENCE_NON_CAUSAL),
                            .offset = s.causal_offset};
        if (s.mask && s.mask->bits) {
            rules.bits = s.mask->bits + last * static_cast<size_t>(last > 0 ? s.mask->bits_stride_bytes : 0) / 8;
        }
        if (s.mask && s.mask->biases) {
            rules.biases = s.mask->biases + last * static_cast<size_t>(last > 0 ? s.mask->biases_stride_bytes : 0) / 4;
        }
        const double scale = desc_.scale != 0 ? desc_.scale : 1 / std::sqrt(static_cast<double>(desc_.head_dim));
        const oracle::Answer want = oracle::attend(desc_.n_kv_heads, desc_.n_query_heads / desc_.n_kv_heads, desc_.head_dim,
                                                   desc_.v_head_dim, s.len, scale, call.q.data(), k.data(), v.data(), rules);
        double error = 0, norm = static_cast<double>(want.out.size()) * 1e-4;
        for (size_t i = 0; i < want.out.size(); ++i) {
            const size_t row = last * n_heads + i / desc_.v_head_dim;
            error += std::pow(call.out[row * call.out_row + i % desc_.v_head_dim] - want.out[i], 2);
            norm += want.out[i] * want.out[i];
        }
        require(std::sqrt(error / norm) <= 1e-3, "the output is the oracle's");
        ++fuzz_counts.oracle;
        fuzz_counts.scaled_oracle += is_scaled;
    }

    void attend() {
        Call call;
        if (make_call(call)) {
            const size_t bytes = input_.one_in(8) ? input_.byte() : call.workspace->size();
            const kvl_status status =
                kvl_attend(attention_, &call.sequence, 1, input_.pointer(call.workspace->data()), bytes, nullptr);
            check_call(call, status);
            if (status == KVL_OK) {
                check_against_oracle(call);
            }
        }
    }

    void attend_by_hand() {
        Call call;
        if (!make_call(call)) {
            return;
        }
        void *workspace = call.workspace->data();
        require(kvl_attend_run_task(workspace, input_.byte()) == KVL_ERROR_WORKSPACE_STATE, "no task without a call");
        uint32_t n_tasks = 0;
        const kvl_status status =
            kvl_attend_begin(attention_, &call.sequence, 1, workspace, call.workspace->size(), 3, &n_tasks);
        if (status == KVL_OK) {
            require(kvl_attend_run_task(workspace, n_tasks + input_.byte()) == KVL_ERROR_TASK, "no task behind the last");
            for (uint32_t task = n_tasks; task-- > 0;) {
                require(kvl_attend_finish(workspace) == KVL_ERROR_TASK, "no end before the last task");
                require(kvl_attend_run_task(workspace, task) == KVL_OK, "a task runs");
            }
            require(kvl_attend_finish(workspace) == KVL_OK, "a call ends");
        }
        check_call(call, status);
    }

    // The sequence in two ranges, which may be wrong, merged.
    void attend_in_parts() {
        Call call;
        if (!make_call(call)) {
            return;
        }
        const uint32_t n_queries = std::max(1u, call.sequence.n_queries);
        kvlane::Partial partials[] = {{n_queries, desc_.n_query_heads, desc_.v_head_dim},
                                      {n_queries, desc_.n_query_heads, desc_.v_head_dim}};
        kvl_partial list[2];
        const int64_t view_first = input_.one_in(2) ? 0 : input_.around<int64_t>(0, 600);
        const int64_t cut = sum(view_first, input_.around<int64_t>(0, call.view.len));
        call.sequence.len = std::min<int64_t>(most_tokens, sum(call.sequence.len, view_first));
        bool is_whole = true;
        for (int i = 0; i < 2; ++i) {
            list[i] = partials[i].get();
            const kvl_range range{input_.struct_size(sizeof range),
                                  input_.flags(0),
                                  input_.flags(0),
                                  view_first,
                                  i == 0 ? view_first : cut,
                                  i == 0 ? cut : sum(view_first, call.view.len),
                                  {input_.pointer(list[i].m), input_.pointer(list[i].l), input_.pointer(list[i].o)}};
            call.sequence.range = &range;
            is_whole &=
                kvl_attend(attention_, &call.sequence, 1, call.workspace->data(), call.workspace->size(), nullptr) == KVL_OK;
        }
        const uint32_t n_partials = input_.byte() % 3;
        if (input_.one_in(2)) {
            kvl_merge_partials(attention_, input_.pointer(list), n_partials, n_queries * desc_.n_query_heads,
                               {list[1].m, input_.pointer(list[1].l), list[1].o});
        }
        const kvl_status status = kvl_merge(attention_, input_.pointer(list), n_partials, n_queries,
                                            input_.pointer(call.out.data()), input_.pointer(call.lse.data()));
        if (is_whole || status != KVL_OK) {
            check_call(call, status);
        }
    }

    // A view whose plain fields are garbage and whose pointers are not: it may be refused, or be right by chance. A shape
    // that fits the attention, but is not that of the memory, is a lie that no check can find: then nothing is read.
    void spoilt_view() {
        Call call;
        if (!make_call(call)) {
            return;
        }
        kvl_view next{};
        if (call.view.next) {
            next = *call.view.next;
            call.view.next = &next;
        }
        kvl_view &view = call.view.next && input_.one_in(2) ? next : call.view;
        const uint32_t field = input_.byte() % 10;
        uint32_t *const fields[] = {&view.flags,      &view.n_kv_heads, &view.head_dim,
                                    &view.v_head_dim, &view.k_format,   &view.v_format};
        const bool spoils_shape = field < std::size(fields);
        if (spoils_shape) {
            *fields[field] = input_.any<uint32_t>();
        } else if (field < 8) {
            view.len = std::max(input_.any<int64_t>(), field == 6 ? view.len : INT64_MIN);
        } else {
            (field == 8 ? view.n_overlap : view.n_recent) = input_.any<int64_t>();
        }
        uint64_t bytes = 0;
        const kvl_status counted = kvl_attend_bytes(attention_, &call.sequence, 1, &bytes);
        if (spoils_shape && counted == KVL_OK) {
            return;
        }
        const kvl_status status =
            kvl_attend(attention_, &call.sequence, 1, call.workspace->data(), call.workspace->size(), nullptr);
        if (call.sequence.len <= most_tokens) {
            require(counted == status, "what counts a call's bytes refuses what the call refuses");
        }
        check_call(call, status);
    }

    // The first view's one straight run, as blocks of its span in any order: indices may be wrong, and strides too short.
    void attend_to_blocks() {
        Call call;
        if (!make_call(call) || call.view.n_spans != 1 || call.view.next) {
            return;
        }
        kvl_view &view = call.view;
        std::array<int32_t, 8> blocks;
        for (int32_t &block : blocks) {
            block = input_.one_in(16) ? input_.any<int32_t>() : input_.byte() % 4;
        }
        view.blocks = input_.pointer(blocks.data());
        view.n_blocks = static_cast<uint32_t>(blocks.size());
        const bool are_whole_tiles = kvlane::has_tiles(view) && !input_.one_in(8);
        view.block_tokens = input_.one_in(16) ? input_.any<uint32_t>()
                            : are_whole_tiles ? tile_tokens * (1u + input_.byte() % 2)
                                              : 16 + input_.byte() % 40;
        view.len = call.sequence.len = input_.around<int64_t>(0, 200);
        kvl_span moved = *view.spans;
        const bool is_off = kvlane::has_tiles(view) && input_.one_in(16);
        if (is_off) {
            moved.k = static_cast<const std::byte *>(moved.k) + 1 + input_.byte() % (KVL_TILE_ALIGNMENT - 1);
            view.spans = &moved;
        }
        kvlane::for_each_plane(view, [&](const kvlane::ViewPlane &plane) {
            view.*plane.block_stride =
                input_.one_in(16) ? input_.byte() - 100 : view.*plane.token_stride * view.block_tokens / plane.tokens;
        });
        uint64_t bytes = 0;
        const kvl_status counted = kvl_attend_bytes(attention_, &call.sequence, 1, &bytes);
        const kvl_status status =
            kvl_attend(attention_, &call.sequence, 1, call.workspace->data(), call.workspace->size(), nullptr);
        require(!is_off || view.len == 0 || status != KVL_OK, "tiles off a cache line are refused");
        require(call.sequence.len > most_tokens || counted == status,
                "what counts a call's bytes refuses what the call refuses");
        if (status != KVL_OK) {
            check_call(call, status);
        }
    }

    // The tokens of a cache's view, whose one span they are in, in memory of their own: a chain of views that begin at
    // multiples of 64 tokens, of tiles or of rows, each in spans or in blocks, any distance apart.
    class Elsewhere {
    public:
        Elsewhere(Input &input, const kvl_view &source) : source_(source) {
            std::vector<int64_t> cuts{0};
            for (int64_t cut = tile_tokens; cut < source.len; cut += tile_tokens) {
                if (input.one_in(6)) {
                    cuts.push_back(cut);
                }
            }
            views_.resize(cuts.size(), source);
            for (size_t i = 0; i < cuts.size(); ++i) {
                const int64_t end = i + 1 < cuts.size() ? cuts[i + 1] : source.len;
                kvl_view &view = views_[i];
                view.len = source.len - cuts[i];
                view.next = i + 1 < cuts.size() ? &views_[i + 1] : nullptr;
                view.flags = can_be_rows(source) && input.one_in(2) ? 0 : source.flags;
                space_rows(input, view, most_in_run);
                input.one_in(2) ? move_to_blocks(input, view, cuts[i], end) : move_to_spans(input, view, cuts[i], end);
            }
        }

        // All rows in one span.
        static std::unique_ptr<Elsewhere> straight_rows(Input &input, const kvl_view &source) {
            std::unique_ptr<Elsewhere> rows(new Elsewhere(source));
            kvl_view &view = rows->views_.emplace_back(source);
            view.flags = 0;
            rows->space_rows(input, view, source.len);
            rows->spans_.push_back({rows->span_of(view, std::max<int64_t>(1, source.len), 1)});
            rows->copy_tokens(0, view, rows->spans_[0][0], 0, source.len);
            view.spans = rows->spans_[0].data();
            return rows;
        }

        static bool can_be_rows(const kvl_view &source) {
            const bool is_straight = !source.next && source.n_spans == 1;
            return is_straight && source.k_format < KVL_Q8 && source.v_format < KVL_Q8;
        }

        const kvl_view &view() const { return views_.front(); }
        bool has_rows() const {
            return std::any_of(views_.begin(), views_.end(), [](const kvl_view &v) { return !kvlane::has_tiles(v); });
        }
        bool has_tiles() const { return std::any_of(views_.begin(), views_.end(), kvlane::has_tiles); }

    private:
        static constexpr int64_t most_in_run = 4 * tile_tokens;

        explicit Elsewhere(const kvl_view &source) : source_(source) {}

        static int64_t rows_of(const kvlane::ViewPlane &plane, int64_t n_tokens) {
            return (n_tokens + plane.tokens - 1) / plane.tokens;
        }

        // Rows or tiles of a token one behind the other, or those of a head.
        static void space_rows(Input &input, kvl_view &view, int64_t run_tokens) {
            const bool is_token_major = input.one_in(2);
            kvlane::for_each_plane(view, [&](const kvlane::ViewPlane &plane) {
                const int64_t row = kvlane::panel::round_up(plane.row_bytes(view) + input.byte() % 33,
                                                            static_cast<int64_t>(plane.alignment));
                const int64_t of_head = row * rows_of(plane, run_tokens);
                view.*plane.token_stride = is_token_major ? row * view.n_kv_heads : row;
                view.*plane.head_stride = is_token_major ? row : of_head;
                view.*plane.block_stride = of_head * view.n_kv_heads;
            });
        }

        // Memory of a run of n tokens in as many blocks, none of which is larger than it must be, full of NaN.
        kvl_span span_of(const kvl_view &view, int64_t n_tokens, int64_t n_blocks) {
            kvl_span span{nullptr, nullptr, n_tokens * n_blocks};
            kvlane::for_each_plane(view, [&](const kvlane::ViewPlane &plane) {
                const int64_t bytes = (n_blocks - 1) * (view.*plane.block_stride) +
                                      (int64_t{view.n_kv_heads} - 1) * (view.*plane.head_stride) +
                                      (rows_of(plane, n_tokens) - 1) * (view.*plane.token_stride) + plane.row_bytes(view);
                const kvlane::Workspace &memory = memory_.emplace_back(static_cast<size_t>(bytes));
                std::memset(memory.data(), 0xff, memory.size());
                span.*plane.first = memory.data();
            });
            return span;
        }

        // Source tokens from first on.
        void copy_tokens(int64_t first, const kvl_view &view, const kvl_span &span, int64_t block, int64_t n_tokens) {
            kvlane::for_each_plane(view, [&](const kvlane::ViewPlane &plane) {
                for (uint32_t head = 0; head < view.n_kv_heads; ++head) {
                    for (int64_t t = 0; t < n_tokens; t += plane.tokens) {
                        const std::byte *tile = kvlane::tile_of(source_, *source_.spans, head, first + t);
                        auto *const row = const_cast<std::byte *>(plane.row(view, span, head, t, block));
                        if (kvlane::has_tiles(view)) {
                            std::memcpy(row, tile, static_cast<size_t>(plane.row_bytes(view)));
                        } else {
                            copy_row(tile, static_cast<int>((first + t) % tile_tokens), plane.first == &kvl_span::k, row);
                        }
                    }
                }
            });
        }

        // A token's row out of its tile.
        void copy_row(const std::byte *tile, int token, bool keys, std::byte *row) const {
            namespace panel = kvlane::panel;
            const panel::TileLayout layout =
                panel::tile_layout(source_.k_format, source_.head_dim, source_.v_format, source_.v_head_dim);
            const kvl_format format = keys ? source_.k_format : source_.v_format;
            const size_t bytes = format == KVL_F32 ? 4 : 2;
            const auto dim = static_cast<int>(keys ? source_.head_dim : source_.v_head_dim);
            for (int d = 0; d < dim; ++d) {
                const int k = keys ? d : token, column = keys ? token : d;
                const std::byte *panels = keys ? tile : tile + layout.v_panels;
                const int64_t panel_bytes = keys ? layout.k_panel_bytes : layout.v_panel_bytes;
                std::memcpy(
                    row + static_cast<size_t>(d) * bytes,
                    panels + column / panel::columns * panel_bytes + panel::offset(format, k, column % panel::columns),
                    bytes);
            }
        }

        // Runs of tiles are of whole ones, but for the last.
        void move_to_spans(Input &input, kvl_view &view, int64_t first, int64_t end) {
            std::vector<kvl_span> &spans = spans_.emplace_back();
            for (int64_t t = first, n; t < end; t += n) {
                n = std::min(end - t, kvlane::has_tiles(view) ? tile_tokens * (1 + input.byte() % 4)
                                                              : int64_t{1} + input.byte() % 200);
                spans.push_back(span_of(view, n, 1));
                copy_tokens(t, view, spans.back(), 0, n);
            }
            view.spans = spans.data();
            view.n_spans = static_cast<uint32_t>(spans.size());
        }

        void move_to_blocks(Input &input, kvl_view &view, int64_t first, int64_t end) {
            const int64_t n = kvlane::has_tiles(view) ? tile_tokens * (1 + input.byte() % 2) : 16 + input.byte() % 50;
            std::vector<int32_t> &blocks = blocks_.emplace_back();
            for (int64_t t = first; t < end; t += n) {
                blocks.push_back(static_cast<int32_t>(blocks.size()));
            }
            if (blocks.empty()) {
                blocks.push_back(0);
            }
            input.shuffle(blocks);
            std::vector<kvl_span> &spans = spans_.emplace_back();
            spans.push_back(span_of(view, n, static_cast<int64_t>(blocks.size())));
            for (size_t i = 0; i < blocks.size() && first < end; ++i, first += n) {
                copy_tokens(first, view, spans.back(), blocks[i], std::min(n, end - first));
            }
            view.spans = spans.data();
            view.n_spans = 1;
            view.blocks = blocks.data();
            view.n_blocks = static_cast<uint32_t>(blocks.size());
            view.block_tokens = static_cast<uint32_t>(n);
        }

        const kvl_view source_;
        std::vector<kvl_view> views_;
        std::vector<std::vector<kvl_span>> spans_;
        std::vector<std::vector<int32_t>> blocks_;
        std::vector<kvlane::Workspace> memory_;
    };

    // A pool of tiles of the caller's, all ones before they are written, and the cache that it is compared with.
    struct Pool {
        Pool(Input &input, const kvl_layer_desc &layer, uint32_t block_tokens, int64_t len)
            : blocks(static_cast<size_t>((len + block_tokens - 1) / block_tokens)),
              view(layout(layer, block_tokens)),
              memory(blocks.size() * static_cast<size_t>(view.k_block_stride_bytes)),
              span{memory.data(), nullptr, static_cast<int64_t>(blocks.size()) * block_tokens} {
            std::memset(memory.data(), 0xff, memory.size());
            std::iota(blocks.begin(), blocks.end(), 0);
            input.shuffle(blocks);
            view.len = len;
            view.spans = &span;
            view.n_spans = 1;
            view.blocks = blocks.data();
            view.n_blocks = static_cast<uint32_t>(blocks.size());
        }
        Pool(const Pool &) = delete;

        static kvl_view layout(const kvl_layer_desc &layer, uint32_t block_tokens) {
            kvl_view view{};
            view.struct_size = sizeof view;
            require(kvl_tile_layout(&layer, block_tokens, &view) == KVL_OK, "right tiles have a layout");
            return view;
        }

        std::vector<std::byte> bytes() const {
            const auto *first = static_cast<const std::byte *>(memory.data());
            return {first, first + memory.size()};
        }

        bool holds_tokens_of(const kvl_cache *cache) const {
            kvl_view stored{};
            stored.struct_size = sizeof stored;
            require(kvl_cache_view(cache, 0, &stored) == KVL_OK, "a layer has a view");
            const auto tile_bytes = static_cast<size_t>(view.k_token_stride_bytes);
            for (uint32_t head = 0; head < view.n_kv_heads; ++head) {
                for (int64_t t = 0; t < view.len; t += tile_tokens) {
                    const int32_t block = blocks[static_cast<size_t>(t / view.block_tokens)];
                    const std::byte *tile = kvlane::tile_of(view, span, head, t % view.block_tokens, block);
                    if (std::memcmp(tile, kvlane::tile_of(stored, *stored.spans, head, t), tile_bytes) != 0) {
                        return false;
                    }
                }
            }
            return true;
        }

        std::vector<int32_t> blocks;
        kvl_view view;
        kvlane::Workspace memory;
        kvl_span span;
    };

    // Tokens that are written to tiles of the caller's, in pieces, have the bytes of a cache's tiles; a write that fails
    // leaves them as they are.
    void write_tiles() {
        kvl_layer_desc layer = small_layer();
        layer.v_head_dim = 1u + input_.byte() % 40;
        layer.k_rotation = input_.byte() % 3;
        layer.v_rotation = input_.byte() % 3;
        const int64_t len = 1 + input_.any<uint16_t>() % 300;
        Pool pool(input_, layer, KVL_TILE_TOKENS * (1u + input_.byte() % 2), len);
        const float *from = input_.one_in(8) ? rough_values().data() : values().data();
        const size_t k_entry = size_t{layer.n_kv_heads} * layer.head_dim,
                     v_entry = size_t{layer.n_kv_heads} * layer.v_head_dim;
        for (int64_t t = 0, n; t < len; t += n) {
            n = std::min<int64_t>(len - t, 1 + input_.byte());
            const auto first = static_cast<size_t>(t), n_rows = static_cast<size_t>(n);
            require(kvl_tiles_write(&pool.view, t, n, from + first * k_entry, n_rows * k_entry, from + first * v_entry,
                                    n_rows * v_entry) == KVL_OK,
                    "right tokens are written");
        }
        kvl_cache *cache = cache_of(layer);
        const auto n_rows = static_cast<size_t>(len);
        require(kvl_cache_append(cache, 0, len, from, n_rows * k_entry, from, n_rows * v_entry) == KVL_OK,
                "right tokens are appended");
        require(pool.holds_tokens_of(cache), "tiles have the bytes of a cache's");
        kvl_cache_destroy(cache);
        ++fuzz_counts.written;
        spoilt_write(pool, k_entry, v_entry);
    }

    // A write of a few tokens, some of whose numbers and pointers are wrong; but for the shape, a lie about which no check
    // can find.
    void spoilt_write(Pool &pool, size_t k_entry, size_t v_entry) {
        const std::vector<std::byte> before = pool.bytes();
        kvl_view &view = pool.view;
        const int64_t first = input_.around<int64_t>(0, view.len), n = input_.around<int64_t>(0, 9);
        const auto n_rows = static_cast<size_t>(std::clamp<int64_t>(n, 0, 9));
        view.struct_size = input_.struct_size(view.struct_size);
        view.flags = input_.one_in(16) ? input_.any<uint32_t>() : view.flags;
        view.spans = input_.pointer(view.spans);
        view.blocks = input_.pointer(view.blocks);
        view.len = input_.one_in(16) ? input_.any<int64_t>() : view.len;
        view.n_blocks = input_.one_in(16) ? input_.byte() % (view.n_blocks + 1) : view.n_blocks;
        view.k_block_stride_bytes -= input_.one_in(16) ? input_.byte() : 0;
        pool.blocks.back() = input_.one_in(16) ? input_.any<int32_t>() : pool.blocks.back();
        const bool is_off = input_.one_in(16);
        pool.span.k = static_cast<const std::byte *>(pool.span.k) + (is_off ? 1 + input_.byte() % 63 : 0);
        const kvl_status status =
            kvl_tiles_write(input_.pointer(&view), first, n, input_.pointer(values().data()),
                            input_.one_in(16) ? input_.any<size_t>() : n_rows * k_entry, values().data(), n_rows * v_entry);
        require(status == KVL_OK || pool.bytes() == before, "an error leaves the tiles as they were");
        require(status != KVL_OK || !is_off || view.len == 0, "tiles off a cache line are refused");
    }

    // Runs tasks in any order, and one of them twice.
    static void run_shuffled(void *input, uint32_t n_tasks, void (*task)(void *, uint32_t), void *context) {
        std::vector<uint32_t> order(n_tasks);
        for (uint32_t i = 0; i < n_tasks; ++i) {
            order[i] = i;
        }
        static_cast<Input *>(input)->shuffle(order);
        for (const uint32_t i : order) {
            task(context, i);
        }
        if (n_tasks > 0) {
            task(context, order.front());
        }
    }

    // One of the sequences of a call, and what it is to give.
    struct Asked {
        kvl_sequence sequence;
        std::vector<float> q, out, lse, expected_out, expected_lse;
        std::vector<uint64_t> bits;
        kvl_mask mask;
    };

    void ask(Asked &asked, const kvl_view &straight, int64_t len) {
        const auto n_queries = static_cast<uint32_t>(std::min<int64_t>(len, 1 + input_.byte() % 6));
        const size_t n_rows = size_t{desc_.n_query_heads} * std::max(1u, n_queries);
        asked.q.resize(n_rows * desc_.head_dim);
        for (size_t i = 0; i < asked.q.size(); ++i) {
            asked.q[i] = static_cast<float>((i * 7 + n_rows) % 13) * 0.125f - 0.75f;
        }
        asked.out.assign(n_rows * desc_.v_head_dim, 7);
        asked.lse.assign(n_rows, 7);
        asked.expected_out = asked.out;
        asked.expected_lse = asked.lse;
        const auto n_words = static_cast<size_t>(len + 63) / 64;
        asked.bits.resize(std::max(1u, n_queries) * n_words);
        for (uint64_t &word : asked.bits) {
            word = uint64_t{input_.byte()} * 0x0102040810204081;
        }
        asked.mask =
            kvlane::Mask{.bits = asked.bits.data(), .n_tokens = len, .bits_stride_bytes = static_cast<int64_t>(8 * n_words)};
        asked.sequence = kvlane::Sequence{.view = &straight,
                                          .len = len,
                                          .n_queries = n_queries,
                                          .q = asked.q.data(),
                                          .out = asked.expected_out.data(),
                                          .lse = asked.expected_lse.data(),
                                          .mask = input_.one_in(3) ? &asked.mask : nullptr};
    }

    kvl_status attend_to(const std::vector<kvl_sequence> &sequences, const kvl_executor *executor) {
        size_t bytes = 0;
        require(kvl_attention_workspace_size(attention_, static_cast<uint32_t>(sequences.size()), most_tokens, 6, 3,
                                             &bytes) == KVL_OK,
                "a workspace has a size");
        const kvlane::Workspace workspace(bytes);
        std::memset(workspace.data(), 0xff, bytes);
        return kvl_attend(attention_, sequences.data(), static_cast<uint32_t>(sequences.size()), workspace.data(), bytes,
                          executor);
    }

    void attend_elsewhere() {
        kvl_view straight{};
        straight.struct_size = sizeof straight;
        if (!attention_ || kvl_cache_view(cache_, input_.around(0u, 2u), &straight) != KVL_OK || straight.next ||
            straight.n_spans != 1) {
            return;
        }
        std::vector<Asked> all(1 + input_.byte() % 3);
        std::vector<std::unique_ptr<Elsewhere>> memory;
        std::vector<kvl_sequence> together;
        for (Asked &asked : all) {
            const int64_t most = straight.len + 1;
            ask(asked, straight,
                input_.one_in(3) ? input_.any<uint16_t>() % most
                                 : straight.len - input_.byte() % std::min<int64_t>(most, 9));
            if (attend_to({asked.sequence}, nullptr) != KVL_OK) {
                return;  // it does not fit the attention
            }
            // Of all tokens, so that those that come behind may begin with the same memory.
            if (memory.empty() || input_.one_in(2)) {
                memory.push_back(std::make_unique<Elsewhere>(input_, straight));
            }
            together.push_back(asked.sequence);
            together.back().view = &memory.back()->view();
            together.back().out = asked.out.data();
            together.back().lse = asked.lse.data();
        }
        const kvl_executor executor{run_shuffled, &input_, 3};
        require(attend_to(together, input_.one_in(4) ? nullptr : &executor) == KVL_OK,
                "what is right elsewhere is right here");
        for (const Asked &asked : all) {
            require(are_alike(asked.out, asked.expected_out) && are_alike(asked.lse, asked.expected_lse),
                    "a sequence has the bits that it has alone over the cache");
            fuzz_counts.chunks += asked.sequence.len > KVL_CHUNK_TOKENS;
        }
        uint64_t together_bytes = 0, alone_bytes = 0;
        kvl_attend_bytes(attention_, together.data(), static_cast<uint32_t>(together.size()), &together_bytes);
        for (const kvl_sequence &alone : together) {
            uint64_t bytes = 0;
            kvl_attend_bytes(attention_, &alone, 1, &bytes);
            alone_bytes += bytes;
        }
        fuzz_counts.shared += together_bytes < alone_bytes;
        fuzz_counts.chains += memory.front()->view().next != nullptr;
        fuzz_counts.rows += memory.front()->has_rows();
        fuzz_counts.tiles += memory.front()->has_tiles();
        fuzz_counts.long_heads += desc_.head_dim > 70;
        fuzz_counts.large_groups += desc_.n_query_heads / desc_.n_kv_heads > 12;
        fuzz_counts.rough += is_rough_;
    }

    // Wraps where it is too large.
    static int64_t sum(int64_t a, int64_t b) {
        return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    }

    // Bit by bit, but for those of a NaN: which of several NaNs an operation gives depends on the CPU.
    static bool are_alike(const std::vector<float> &a, const std::vector<float> &b) {
        return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
            return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y) || (std::isnan(x) && std::isnan(y));
        });
    }

    static bool all_are(const std::vector<float> &values, float expected) {
        for (const float value : values) {
            if (value != expected) {
                return false;
            }
        }
        return true;
    }

    static void require_finite(const std::vector<float> &values) {
        for (const float value : values) {
            require(std::isfinite(value), "finite input gives finite output");
        }
    }

    static const std::vector<float> &values() {
        static const std::vector<float> made = [] {
            std::vector<float> v(most_values);
            for (size_t i = 0; i < v.size(); ++i) {
                v[i] = static_cast<float>(i % 17) * 0.25f - 2;
            }
            return v;
        }();
        return made;
    }

    // With infinities of either sign and NaN in between.
    static const std::vector<float> &rough_values() {
        static const std::vector<float> made = [] {
            std::vector<float> v = values();
            for (size_t i = 5; i < v.size(); i += 41) {
                v[i] = i % 3 == 0 ? INFINITY : i % 3 == 1 ? -INFINITY : NAN;
            }
            return v;
        }();
        return made;
    }

    Input input_;
    bool is_rough_ = false;       // whether NaN or infinity was appended to cache_,
    bool copy_is_rough_ = false;  // and to copy_
    kvl_cache *cache_ = nullptr;
    kvl_cache *copy_ = nullptr;
    kvl_attention *attention_ = nullptr;
    kvl_attention_desc desc_{};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    World(Input(data, size)).run();
    return 0;
}

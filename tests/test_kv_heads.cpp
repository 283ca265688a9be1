// Calls that read a range of a view's KV heads: together they have the bits of one call for all heads.

#include <doctest/doctest.h>

#include "answers.hpp"

using kvlane::Attention;
using kvlane::Cache;
using kvlane::Format;
using kvlane::Geometry;
using kvlane::Sequence;

namespace {

using Floats = std::vector<float>;

constexpr uint32_t n_kv_heads = 6, group = 2, head_dim = 32, n_queries = 3;
constexpr int64_t len = 700;

// Of n KV heads from `first` on: their own slopes and sinks of all heads'.
Geometry geometry(Format format, const Floats &slopes, const Floats &sinks, uint32_t first, uint32_t n) {
    return {.n_query_heads = n * group,
            .n_kv_heads = n,
            .head_dim = head_dim,
            .k_format = format,
            .v_format = format,
            .alibi_slopes = std::span(slopes).subspan(size_t{first} * group, size_t{n} * group),
            .sink_logits = std::span(sinks).subspan(size_t{first} * group, size_t{n} * group)};
}

// The outputs and lse of all heads [n_queries, n_query_heads, head_dim], which calls fill in.
struct Heads {
    Floats q = test::random_values(size_t{n_queries} * n_kv_heads * group * head_dim, 3);
    Floats out = Floats(q.size()), lse = Floats(size_t{n_queries} * n_kv_heads * group);

    // Of a call that reads KV heads from `first` on.
    Sequence sequence(const kvl_view &view, uint32_t first) {
        constexpr int64_t row = head_dim * sizeof(float), heads = n_kv_heads * group;
        const size_t head = size_t{first} * group;
        return {.view = &view,
                .len = len,
                .n_queries = n_queries,
                .q = &q[head * head_dim],
                .out = &out[head * head_dim],
                .lse = &lse[head],
                .q_token_stride_bytes = heads * row,
                .out_token_stride_bytes = heads * row,
                .lse_token_stride_bytes = heads * int64_t{sizeof(float)},
                .is_kv_head_range = true,
                .first_kv_head = first};
    }
};

Cache cache_of(Format format) {
    static const Floats offset = test::random_values(size_t{n_kv_heads} * head_dim, 5);
    const bool is_scaled = test::is_scaled(format);
    Cache cache(1,
                {.n_kv_heads = n_kv_heads,
                 .head_dim = head_dim,
                 .k_format = format,
                 .v_format = format,
                 .n_recent_f16 = is_scaled ? 64 : 0,
                 .k_offset = is_scaled ? offset.data() : nullptr},
                len, KVL_CACHE_NO_HUGE_PAGES);
    test::fill_random(cache, len, 1);
    return cache;
}

void attend(const Attention &attention, std::span<const kvl_sequence> sequences) {
    kvlane::Workspace workspace = attention.workspace(static_cast<uint32_t>(sequences.size()), len, n_queries);
    attention.attend(sequences, workspace);
}

}  // namespace

TEST_CASE("determinism: calls for ranges of a cache's KV heads have the bits of one call for all") {
    const Floats slopes = test::random_values(size_t{n_kv_heads} * group, 8), sinks = test::random_values(slopes.size(), 9);
    for (const Format format : test::all_formats()) {  // q8 and q4 in chains of views, with key offsets
        CAPTURE(test::name_of(format));
        const Cache cache = cache_of(format);
        const kvl_view view = cache.view(0);
        Heads whole, parts;
        const kvl_sequence all = whole.sequence(view, 0);
        attend(Attention(geometry(format, slopes, sinks, 0, n_kv_heads)), std::span(&all, 1));
        for (const auto &[first, n] : {std::pair{0u, 1u}, {1u, 3u}, {4u, 2u}}) {
            const kvl_sequence some = parts.sequence(view, first);
            attend(Attention(geometry(format, slopes, sinks, first, n)), std::span(&some, 1));
        }
        CHECK(test::same_bits(parts.out, whole.out));
        CHECK(test::same_bits(parts.lse, whole.lse));
    }
}

TEST_CASE("determinism: the same for a caller's rows, in one run and in blocks") {
    const Floats slopes = test::random_values(size_t{n_kv_heads} * group, 8), sinks = test::random_values(slopes.size(), 9);
    constexpr uint32_t block_tokens = 16, n_blocks = (len + block_tokens - 1) / block_tokens;
    constexpr int64_t row = head_dim * sizeof(float), token = n_kv_heads * row;
    const Floats k = test::random_values(size_t{n_blocks} * block_tokens * n_kv_heads * head_dim, 1);
    const Floats v = test::random_values(k.size(), 2);
    const kvl_span span{k.data(), v.data(), n_blocks * block_tokens};
    std::vector<int32_t> blocks(n_blocks);
    for (uint32_t i = 0; i < n_blocks; ++i) {
        blocks[i] = static_cast<int32_t>((i + 5) % n_blocks);
    }
    for (const bool is_paged : {false, true}) {
        CAPTURE(is_paged);
        const kvl_view view = kvlane::View{.n_kv_heads = n_kv_heads,
                                           .head_dim = head_dim,
                                           .k_format = Format::f32,
                                           .v_format = Format::f32,
                                           .len = len,
                                           .spans = std::span(&span, 1),
                                           .k_token_stride_bytes = token,
                                           .k_head_stride_bytes = row,
                                           .v_token_stride_bytes = token,
                                           .v_head_stride_bytes = row,
                                           .blocks = std::span(blocks).first(is_paged ? n_blocks : 0),
                                           .block_tokens = is_paged ? block_tokens : 0,
                                           .k_block_stride_bytes = block_tokens * token,
                                           .v_block_stride_bytes = block_tokens * token};
        Heads whole, parts;
        const kvl_sequence all = whole.sequence(view, 0);
        attend(Attention(geometry(Format::f32, slopes, sinks, 0, n_kv_heads)), std::span(&all, 1));
        for (const auto &[first, n] : {std::pair{0u, 2u}, {2u, 4u}}) {
            const kvl_sequence some = parts.sequence(view, first);
            attend(Attention(geometry(Format::f32, slopes, sinks, first, n)), std::span(&some, 1));
        }
        CHECK(test::same_bits(parts.out, whole.out));
    }
}

TEST_CASE("prefix: sequences of one call that read different KV heads of one view share no tokens") {
    const Floats none(size_t{n_kv_heads} * group);
    const Cache cache = cache_of(Format::f16);
    const kvl_view view = cache.view(0);
    const Attention attention(geometry(Format::f16, none, none, 0, 2));
    Heads alone, together;
    std::vector<kvl_sequence> sequences;
    for (const uint32_t first : {0u, 2u, 4u}) {
        const kvl_sequence one = alone.sequence(view, first);
        attend(attention, std::span(&one, 1));
        sequences.push_back(together.sequence(view, first));
    }
    attend(attention, sequences);
    CHECK(test::same_bits(together.out, alone.out));
    uint64_t of_one, of_all;
    kvlane::check(kvl_attend_bytes(attention.get(), sequences.data(), 1, &of_one));
    kvlane::check(kvl_attend_bytes(attention.get(), sequences.data(), 3, &of_all));
    CHECK(of_all == 3 * of_one);
}

TEST_CASE("plan: the range of KV heads is the plan's") {
    const Floats none(size_t{n_kv_heads} * group);
    const Cache cache = cache_of(Format::f16);
    const kvl_view view = cache.view(0);
    const Attention attention(geometry(Format::f16, none, none, 0, 2));
    Heads heads;
    const kvl_sequence planned = heads.sequence(view, 2), other = heads.sequence(view, 4);
    kvlane::Workspace workspace = attention.workspace(1, len, n_queries);
    attention.plan(std::span(&planned, 1), workspace);
    CHECK(kvl_attend_planned(workspace.data(), &planned, 1, nullptr) == KVL_OK);
    CHECK(kvl_attend_planned(workspace.data(), &other, 1, nullptr) == KVL_ERROR_PLAN);
    CHECK(std::string(kvl_last_error()) == "sequences[0]: first_kv_head is 4; the plan has 2");
}

TEST_CASE("errors: a range of KV heads that the view lacks, and one that is not flagged") {
    const Floats none(size_t{n_kv_heads} * group);
    const Cache cache = cache_of(Format::f16);
    const kvl_view view = cache.view(0);
    const Attention attention(geometry(Format::f16, none, none, 0, 2));
    Heads heads;
    kvlane::Workspace workspace = attention.workspace(1, len, n_queries);
    const auto fails = [&](const kvl_sequence &s, kvl_status status, const std::string &text) {
        CHECK(kvl_attend(attention.get(), &s, 1, workspace.data(), workspace.size(), nullptr) == status);
        CHECK(std::string(kvl_last_error()) == text);
    };
    kvl_sequence sequence = heads.sequence(view, 5);
    fails(sequence, KVL_ERROR_RANGE, "sequences[0]: view[0]: first_kv_head is 5; it must be from 0 to 4");
    sequence.flags = 0;
    fails(sequence, KVL_ERROR_GEOMETRY, "sequences[0]: view[0]: n_kv_heads is 6; the attention object has 2");
    sequence.flags = KVL_SEQUENCE_KV_HEADS;
    sequence.reserved = 1;
    fails(sequence, KVL_ERROR_FLAGS, "sequences[0]: reserved is 1; it must be 0");
    sequence.reserved = 0;
    kvl_view narrow = view;
    narrow.n_kv_heads = 1;
    sequence.view = &narrow;
    fails(sequence, KVL_ERROR_RANGE, "sequences[0]: view[0]: n_kv_heads is 1; it must be from 2 to 65536");
}

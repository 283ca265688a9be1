#pragma once

// The tokens, and so the chunks, visible to a call's queries: by causal order or without it, window, sink tokens,
// range and mask.

#include <algorithm>
#include <bit>

#include "../mask.hpp"
#include "../view.hpp"
#include "sequence.hpp"

namespace kvlane {

inline int64_t chunks_to(int64_t len) { return (len + chunk_tokens - 1) / chunk_tokens; }

// Tokens at positions [first, end); none if end <= first.
struct Tokens {
    int64_t first;
    int64_t end;

    int64_t n() const { return std::max<int64_t>(0, end - first); }
    int64_t first_chunk() const { return first / chunk_tokens; }
    int64_t end_chunk() const { return n() > 0 ? chunks_to(end) : first_chunk(); }
    uint64_t word(int64_t position) const { return low_bits(end - position) & ~low_bits(first - position); }
    Tokens within(const Tokens &other) const { return {std::max(first, other.first), std::min(end, other.end)}; }
};

// Tokens visible to a query: those up to its own, and the sink tokens if they are separate from these.
struct Visible {
    Tokens sinks;
    Tokens window;

    // A chunk that holds tokens of both counts as a sink chunk.
    int64_t window_chunk() const { return std::max(window.first_chunk(), sinks.end_chunk()); }
    int64_t sink_chunks() const { return sinks.end_chunk() - sinks.first_chunk(); }
    int64_t n_chunks() const {
        return std::max<int64_t>(1, sink_chunks() + std::max<int64_t>(0, window.end_chunk() - window_chunk()));
    }
    Tokens chunk(int64_t i) const {
        const int64_t index = i < sink_chunks() ? sinks.first_chunk() + i : window_chunk() + i - sink_chunks();
        return {index * chunk_tokens, (index + 1) * chunk_tokens};
    }
    // Number of visible tokens at positions [first, first + n).
    int64_t count(int64_t first, int64_t n) const {
        return sinks.within({first, first + n}).n() + window.within({first, first + n}).n();
    }
    // Visible tokens among the 64 from a position on, one bit per token.
    uint64_t word(int64_t first) const { return sinks.word(first) | window.word(first); }
    // Index, among the chunks with visible tokens, of the chunk that begins at a position.
    int64_t index_of(int64_t position) const {
        const int64_t index = position / chunk_tokens;
        return index < sinks.end_chunk() ? index - sinks.first_chunk() : sink_chunks() + index - window_chunk();
    }
};

inline Tokens requested_of(const Sequence &s) { return s.range ? Tokens{s.range->first, s.range->end} : Tokens{0, s.len}; }

inline int64_t view_first_of(const Sequence &s) { return s.range ? s.range->view_first : 0; }

// One past the last position that the query at a position sees, as far as there are tokens.
inline int64_t visible_end(const kvl_attention &a, const Sequence &s, int64_t position) {
    const int64_t end = s.is_causal ? position + 1 : a.window > 0 ? position + a.window : KVL_MAX_TOKENS;
    return std::clamp<int64_t>(end, 0, s.len);
}

// Tokens of the requested range visible to any query from the one at position `first` to the one at position `last`.
inline Visible visible_to(const kvl_attention &a, const Sequence &s, int64_t first, int64_t last) {
    const int64_t begin = a.window > 0 ? std::max<int64_t>(0, first + 1 - a.window) : 0, end = visible_end(a, s, last);
    const Tokens requested = requested_of(s);
    const bool is_one_run = begin <= a.n_sink_tokens;
    return {Tokens{0, is_one_run ? 0 : std::min(end, a.n_sink_tokens)}.within(requested),
            Tokens{is_one_run ? 0 : begin, end}.within(requested)};
}

// Tokens visible to any of the sequence's queries.
inline Visible visible_to_any(const kvl_attention &a, const Sequence &s) {
    return visible_to(a, s, s.position(0), s.position(s.n_queries - 1));
}

// Number of tokens that any query reads of one KV head, of a view that begins at position `view_first`.
inline int64_t count_visible(const kvl_attention &a, const Sequence &s, const kvl_view &view, int64_t view_first,
                             uint32_t kv_head) {
    const int64_t n = own_tokens(view);
    if (!s.mask && view.n_overlap == 0 && n == tokens_before_next(view)) {
        return visible_to_any(a, s).count(view_first, n);
    }
    const uint32_t first_head = kv_head * a.group, n_heads = s.mask && differs_by_head(*s.mask) ? a.group : 1;
    const Tokens requested = Tokens{view_first, view_first + n}.within(requested_of(s)).within({0, s.len});
    int64_t seen = 0;
    for (int64_t position = requested.first; position < requested.end; position += word_tokens) {
        const auto in_word = static_cast<int>(std::min<int64_t>(requested.end - position, word_tokens));
        uint64_t by_any = 0;
        for (uint32_t query = 0; query < s.n_queries; ++query) {
            const int64_t at = s.position(query);
            const ReadTokens read = read_tokens(view, view_first, at);
            uint64_t unmasked_by_any = s.mask ? 0 : low_bits(in_word);
            for (uint32_t head = 0; s.mask && head < n_heads; ++head) {
                unmasked_by_any |= unmasked(*s.mask, query, first_head + head, position, in_word);
            }
            by_any |=
                visible_to(a, s, at, at).word(position) & Tokens{read.first, read.end}.word(position) & unmasked_by_any;
        }
        seen += std::popcount(by_any);
    }
    return seen;
}

// Maximum number of chunks visible, even in part, to n_queries consecutive queries, at any length up to max_len.
inline int64_t max_chunks_of_queries(const kvl_attention &a, int64_t max_len, uint32_t n_queries, bool is_causal) {
    const int64_t window = (is_causal ? a.window : 2 * a.window - 1) + n_queries - 1;
    const int64_t all_seen = a.window > 0 ? std::min(max_len, a.n_sink_tokens + window) : max_len;
    const int64_t sliding =
        max_len > all_seen ? chunks_to(a.n_sink_tokens) + (window + 2 * chunk_tokens - 2) / chunk_tokens : 0;
    return std::max({int64_t{1}, chunks_to(all_seen), std::min(sliding, chunks_to(max_len))});
}

// max_chunks_of_queries for one block of the queries.
inline int64_t max_chunks_of_block(const kvl_attention &a, int64_t max_len, uint32_t n_queries, bool is_causal) {
    return max_chunks_of_queries(a, max_len, std::min(a.block_queries, n_queries), is_causal);
}

inline uint32_t blocks_of(const kvl_attention &a, uint32_t n_queries) {
    return a.block_queries > 1 ? (n_queries - 1) / a.block_queries + 1 : n_queries;
}

// Queries [first, first + n) of a sequence.
struct Block {
    uint32_t first;
    uint32_t n;
};

inline Block block_of(const kvl_attention &a, const Sequence &s, uint32_t block) {
    const uint32_t first = block * a.block_queries;
    return {first, std::min(a.block_queries, s.n_queries - first)};
}

inline Visible visible_to(const kvl_attention &a, const Sequence &s, const Block &block) {
    return visible_to(a, s, s.position(block.first), s.position(block.first + block.n - 1));
}

}  // namespace kvlane

#pragma once

// The tokens, and so the chunks, visible to a call's queries: by causal order, window, sink tokens, range and mask.

#include <algorithm>
#include <bit>

#include "../mask.hpp"
#include "../view.hpp"
#include "attention.hpp"
#include "validate.hpp"

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

inline Tokens asked_of(const kvl_sequence &s) { return s.range ? Tokens{s.range->first, s.range->end} : Tokens{0, s.len}; }

inline int64_t view_first_of(const kvl_sequence &s) { return s.range ? s.range->view_first : 0; }

// Tokens of the requested range visible to any query from the one with `from` tokens to the one with `len` tokens.
inline Visible visible_to(const kvl_attention &a, const kvl_sequence &s, int64_t from, int64_t len) {
    const int64_t first = a.window > 0 ? from - a.window : 0;
    const Tokens asked = asked_of(s);
    const bool is_one_run = first <= a.n_sink_tokens;
    return {Tokens{0, is_one_run ? 0 : a.n_sink_tokens}.within(asked), Tokens{is_one_run ? 0 : first, len}.within(asked)};
}

// Tokens visible to any of the sequence's queries.
inline Visible visible_to_any(const kvl_attention &a, const kvl_sequence &s) {
    return visible_to(a, s, s.len - (queries_of(s) - 1), s.len);
}

// Number of tokens that any of the queries reads from a view that begins at position `first`.
inline int64_t count_seen(const kvl_attention &a, const kvl_sequence &s, const kvl_view &view, int64_t first) {
    const uint32_t n_queries = queries_of(s);
    const int64_t n = own_tokens(view);
    if (!s.mask && view.n_overlap == 0 && n == tokens_before_next(view)) {
        return visible_to_any(a, s).count(first, n);
    }
    const Tokens asked = Tokens{first, first + n}.within(asked_of(s)).within({0, s.len});
    int64_t seen = 0;
    for (int64_t position = asked.first; position < asked.end; position += word_tokens) {
        const auto in_word = static_cast<int>(std::min<int64_t>(asked.end - position, word_tokens));
        uint64_t by_any = 0;
        for (uint32_t query = 0; query < n_queries; ++query) {
            const int64_t len = s.len - (n_queries - 1 - query);
            const ReadTokens read = read_tokens(view, first, len - 1);
            const uint64_t shown = s.mask ? unmasked(*s.mask, query, position, in_word) : low_bits(in_word);
            by_any |= visible_to(a, s, len, len).word(position) & Tokens{read.first, read.end}.word(position) & shown;
        }
        seen += std::popcount(by_any);
    }
    return seen;
}

// Maximum number of chunks visible, even in part, to n_queries consecutive queries, at any length up to max_len.
inline int64_t max_chunks_of_queries(const kvl_attention &a, int64_t max_len, uint32_t n_queries) {
    const int64_t window = a.window + n_queries - 1;
    const int64_t all_seen = a.window > 0 ? std::min(max_len, a.n_sink_tokens + window) : max_len;
    const int64_t sliding =
        max_len > all_seen ? chunks_to(a.n_sink_tokens) + (window + 2 * chunk_tokens - 2) / chunk_tokens : 0;
    return std::max({int64_t{1}, chunks_to(all_seen), std::min(sliding, chunks_to(max_len))});
}

// max_chunks_of_queries for one block of the queries.
inline int64_t max_chunks_of_block(const kvl_attention &a, int64_t max_len, uint32_t n_queries) {
    return max_chunks_of_queries(a, max_len, std::min(a.block_queries, n_queries));
}

inline uint32_t blocks_of(const kvl_attention &a, uint32_t n_queries) {
    return a.block_queries > 1 ? (n_queries - 1) / a.block_queries + 1 : n_queries;
}

// Queries [first, first + n) of a sequence; the last of them is at position len - 1.
struct Block {
    uint32_t first;
    uint32_t n;
    int64_t len;
};

inline Block block_of(const kvl_attention &a, const kvl_sequence &s, uint32_t block) {
    const uint32_t first = block * a.block_queries;
    const uint32_t n = std::min(a.block_queries, queries_of(s) - first);
    return {first, n, s.len - (queries_of(s) - (first + n))};
}

inline Visible visible_to(const kvl_attention &a, const kvl_sequence &s, const Block &block) {
    return visible_to(a, s, block.len - (block.n - 1), block.len);
}

}  // namespace kvlane

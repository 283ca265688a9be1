// A call: (sequence, KV head, chunk, block of queries) units in that order, each a task but what another sequence's reads.
// The last unit of a (sequence, KV head, block) to end merges its partials, in chunk order whoever merges, so that bits do
// not depend on who ran what.

#include "attend.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdio>
#include <new>
#include <span>
#include <utility>

#include "error.hpp"
#include "gate.hpp"
#include "mask.hpp"
#include "overlaps.hpp"
#include "planes.hpp"
#include "registry.hpp"
#include "sharing.hpp"
#include "validate.hpp"

using namespace kvlane;

namespace {

// What a sequence reads together with others, which follow each other: the first of them reads for all.
struct Share {
    int64_t n_chunks;      // whole ones from position 0 on; 0: none
    uint32_t leader;       // sequence,
    uint32_t end;          // and the one behind the last
    uint32_t first_query;  // of this one among those of all
    uint32_t n_queries;    // of all
    Query *queries;
};

// Where a chunk begins in memory: a token of a view, which is in a run that begins with another of its tokens.
struct Place {
    const kvl_view *view;
    int64_t token;
    int64_t run_first;
    uint32_t run;
};

enum UnitState : uint8_t { not_run, running, done };

// At the start of a workspace. Behind it: the first unit, the first partial and the first place of every sequence and their
// ends, what each shares, and the queries that do; the chunks that each (sequence, KV head, block of queries) still waits
// for, the states of units, where chunks begin, and the partials, with the floats of these. Before all that is written, the
// sequences' outputs are sorted where it will lie.
struct Call {
    uint64_t magic;
    const kvl_attention *attention;
    const kvl_sequence *sequences;
    uint32_t n_sequences;
    uint32_t n_units;
    uint32_t max_queries;  // of a sequence
    uint32_t *first_unit;
    uint32_t *first_partial;
    uint32_t *first_place;
    Share *shares;
    uint32_t *chunks_left;
    uint8_t *unit_states;
    Place *places;
    kvl_partial *partials;
};

constexpr uint64_t call_magic = 0x6b766c616e653031;
constexpr size_t alignment = KVL_WORKSPACE_ALIGNMENT;
constexpr uint64_t max_units = INT32_MAX;

constexpr uint64_t aligned(uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

int64_t chunks_to(int64_t len) { return (len + chunk_tokens - 1) / chunk_tokens; }

// Tokens at positions [first, end); none where these cross.
struct Tokens {
    int64_t first;
    int64_t end;

    int64_t n() const { return std::max<int64_t>(0, end - first); }
    int64_t first_chunk() const { return first / chunk_tokens; }
    int64_t end_chunk() const { return n() > 0 ? chunks_to(end) : first_chunk(); }
    uint64_t word(int64_t position) const { return low_bits(end - position) & ~low_bits(first - position); }
    Tokens within(const Tokens &other) const { return {std::max(first, other.first), std::min(end, other.end)}; }
};

// Tokens that a query sees: the first ones, where others lie between, and those up to its own.
struct Visible {
    Tokens sinks;
    Tokens window;

    // A chunk that holds some of both is one of the sinks'.
    int64_t window_chunk() const { return std::max(window.first_chunk(), sinks.end_chunk()); }
    int64_t sink_chunks() const { return sinks.end_chunk() - sinks.first_chunk(); }
    int64_t n_chunks() const {
        return std::max<int64_t>(1, sink_chunks() + std::max<int64_t>(0, window.end_chunk() - window_chunk()));
    }
    Tokens chunk(int64_t i) const {
        const int64_t index = i < sink_chunks() ? sinks.first_chunk() + i : window_chunk() + i - sink_chunks();
        return {index * chunk_tokens, (index + 1) * chunk_tokens};
    }
    // Of the tokens at positions [first, first + n).
    int64_t count(int64_t first, int64_t n) const {
        return sinks.within({first, first + n}).n() + window.within({first, first + n}).n();
    }
    // Of the 64 tokens from a position on, a bit each.
    uint64_t word(int64_t first) const { return sinks.word(first) | window.word(first); }
    // Which of the chunks, of those that have some, the one is that begins at a position.
    int64_t index_of(int64_t position) const {
        const int64_t index = position / chunk_tokens;
        return index < sinks.end_chunk() ? index - sinks.first_chunk() : sink_chunks() + index - window_chunk();
    }
};

Tokens asked_of(const kvl_sequence &s) { return s.range ? Tokens{s.range->first, s.range->end} : Tokens{0, s.len}; }

int64_t view_first_of(const kvl_sequence &s) { return s.range ? s.range->view_first : 0; }

// What queries see together, at the ends of from to len tokens, of those that are asked about.
Visible visible_to(const kvl_attention &a, const kvl_sequence &s, int64_t from, int64_t len) {
    const int64_t first = a.window > 0 ? from - a.window : 0;
    const Tokens asked = asked_of(s);
    const bool is_one_run = first <= a.n_sink_tokens;
    return {Tokens{0, is_one_run ? 0 : a.n_sink_tokens}.within(asked), Tokens{is_one_run ? 0 : first, len}.within(asked)};
}

// What any of its queries sees.
Visible visible_to_any(const kvl_attention &a, const kvl_sequence &s) {
    return visible_to(a, s, s.len - (queries_of(s) - 1), s.len);
}

// Of the tokens of a view that begins at position `first`, those that any of the queries reads from it.
int64_t count_seen(const kvl_attention &a, const kvl_sequence &s, const kvl_view &view, int64_t first) {
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

// The most chunks that so many queries that follow each other see some of, at any length up to max_len.
int64_t max_chunks_of_queries(const kvl_attention &a, int64_t max_len, uint32_t n_queries) {
    const int64_t window = a.window + n_queries - 1;
    const int64_t all_seen = a.window > 0 ? std::min(max_len, a.n_sink_tokens + window) : max_len;
    const int64_t sliding =
        max_len > all_seen ? chunks_to(a.n_sink_tokens) + (window + 2 * chunk_tokens - 2) / chunk_tokens : 0;
    return std::max({int64_t{1}, chunks_to(all_seen), sliding});
}

// The same of a block of them.
int64_t max_chunks_of_block(const kvl_attention &a, int64_t max_len, uint32_t n_queries) {
    return max_chunks_of_queries(a, max_len, std::min(a.block_queries, n_queries));
}

uint32_t blocks_of(const kvl_attention &a, uint32_t n_queries) {
    return a.block_queries > 1 ? (n_queries - 1) / a.block_queries + 1 : n_queries;
}

// Queries [first, first + n) of a sequence, the last of which sees so many tokens.
struct Block {
    uint32_t first;
    uint32_t n;
    int64_t len;
};

Block block_of(const kvl_attention &a, const kvl_sequence &s, uint32_t block) {
    const uint32_t first = block * a.block_queries;
    const uint32_t n = std::min(a.block_queries, queries_of(s) - first);
    return {first, n, s.len - (queries_of(s) - (first + n))};
}

Visible visible_to(const kvl_attention &a, const kvl_sequence &s, const Block &block) {
    return visible_to(a, s, block.len - (block.n - 1), block.len);
}

// The same for all blocks of a sequence; units beyond a block's own chunks have nothing to do.
int64_t n_chunks_of(const kvl_attention &a, const kvl_sequence &s) {
    if (queries_of(s) == 1) {
        return visible_to(a, s, s.len, s.len).n_chunks();
    }
    const Tokens asked = asked_of(s).within({0, s.len});
    return std::clamp<int64_t>(asked.end_chunk() - asked.first_chunk(), 1, max_chunks_of_block(a, s.len, queries_of(s)));
}

// More than are allowed where they are too many to count.
uint64_t n_partials_of(const kvl_attention &a, const kvl_sequence &s) {
    const uint64_t of_block = static_cast<uint64_t>(n_chunks_of(a, s)) * a.n_kv_heads;
    return std::min(of_block, max_units + 1) * blocks_of(a, queries_of(s));
}

// Rows of one unit's partial, where no sequence has more queries; and its floats: m and l of the rows, each padded to a
// cache line, and o.
uint32_t partial_rows(const kvl_attention &a, uint32_t max_queries) {
    return a.group * std::min(a.block_queries, max_queries);
}
int64_t partial_floats(const kvl_attention &a, uint32_t rows) {
    return 2 * partial_stride(rows) + rows * partial_stride(a.v_head_dim);
}

// Offsets of the workspace's parts, and its size. What a call sorts its outputs in first is where the rest lies later.
struct Layout {
    uint64_t first_unit;
    uint64_t first_partial;
    uint64_t first_place;
    uint64_t shares;
    uint64_t queries;
    uint64_t chunks_left;
    uint64_t unit_states;
    uint64_t places;
    uint64_t partials;
    uint64_t floats;
    uint64_t bytes;
};

// Counters of chunks left that there is room for, for each sequence.
uint64_t merges_of(const kvl_attention &a, uint32_t max_queries) {
    return uint64_t{a.n_kv_heads} * blocks_of(a, max_queries);
}

Layout layout_of(const kvl_attention &a, uint32_t n_sequences, uint32_t max_queries, uint64_t n_places,
                 uint64_t n_partials) {
    Layout layout;
    uint64_t end = 0;
    const auto take = [&](uint64_t n, size_t element_bytes) { return std::exchange(end, end + aligned(n * element_bytes)); };
    take(1, sizeof(Call));
    layout.first_unit = take(uint64_t{n_sequences} + 1, sizeof(uint32_t));
    layout.first_partial = take(uint64_t{n_sequences} + 1, sizeof(uint32_t));
    layout.first_place = take(uint64_t{n_sequences} + 1, sizeof(uint32_t));
    layout.shares = take(n_sequences, sizeof(Share));
    layout.queries = take(uint64_t{n_sequences} * std::min(max_queries, a.block_queries), sizeof(Query));
    layout.chunks_left = take(n_sequences * merges_of(a, max_queries), sizeof(uint32_t));
    layout.unit_states = take(n_partials, sizeof(uint8_t));
    layout.places = take(n_places, sizeof(Place));
    layout.partials = take(n_partials, sizeof(kvl_partial));
    layout.floats = take(n_partials, static_cast<size_t>(partial_floats(a, partial_rows(a, max_queries))) * sizeof(float));
    layout.bytes = std::max(end, aligned(uint64_t{n_sequences} * max_outputs * sizeof(Output)));
    return layout;
}

kvl_status check_units(uint64_t n_units) {
    return n_units <= max_units ? KVL_OK
                                : fail(KVL_ERROR_RANGE, "the call has %" PRIu64 " tasks; at most %" PRIu64 " are allowed",
                                       n_units, max_units);
}

kvl_status check_partial(const kvl_partial &partial, uint32_t index) {
    const char *const null = !partial.m ? "m" : !partial.l ? "l" : !partial.o ? "o" : nullptr;
    return null ? fail(KVL_ERROR_NULL, "partials[%u]: %s is null; it must point to something", index, null) : KVL_OK;
}

kvl_status check_workspace(const void *workspace, uint64_t bytes, uint64_t needed) {
    KVLANE_TRY(check_not_null(workspace, "workspace"));
    if (reinterpret_cast<uintptr_t>(workspace) % alignment != 0) {
        return fail(KVL_ERROR_WORKSPACE_ALIGNMENT, "workspace is at %p; it must be aligned to %zu bytes", workspace,
                    alignment);
    }
    return bytes >= needed
               ? KVL_OK
               : fail(KVL_ERROR_WORKSPACE_SIZE, "workspace_bytes is %" PRIu64 "; this call needs %" PRIu64, bytes, needed);
}

kvl_status begun_call(void *workspace, Call *&call) {
    KVLANE_TRY(check_not_null(workspace, "workspace"));
    call = static_cast<Call *>(workspace);
    return call->magic == call_magic
               ? KVL_OK
               : fail(KVL_ERROR_WORKSPACE_STATE, "workspace at %p holds no call; kvl_attend_begin makes one", workspace);
}

Query query_of(const kvl_attention &a, const kvl_sequence &s, uint32_t query) {
    return {s.q + uint64_t{query} * a.n_query_heads * a.head_dim, s.len - (queries_of(s) - query)};
}

// What sequences share, and the queries that do.
void lay_out_shares(Call &call, Query *queries) {
    const kvl_attention &a = *call.attention;
    for (uint32_t first = 0; first < call.n_sequences;) {
        const Sharers sharers = sharers_from(a, call.sequences, call.n_sequences, first);
        Query *const of_first = queries;
        for (uint32_t s = first; s < sharers.end; ++s) {
            call.shares[s] = {sharers.n_chunks, first, sharers.end, static_cast<uint32_t>(queries - of_first), 0, of_first};
            for (uint32_t i = 0; sharers.n_chunks > 0 && i < queries_of(call.sequences[s]); ++i) {
                *queries++ = query_of(a, call.sequences[s], i);
            }
        }
        for (uint32_t s = first; s < sharers.end; ++s) {
            call.shares[s].n_queries = static_cast<uint32_t>(queries - of_first);
        }
        first = sharers.end;
    }
}

// The first of a sequence's partials of a KV head.
kvl_partial *partials_of(const Call &call, uint32_t sequence, uint32_t kv_head) {
    const uint32_t of_sequence = call.first_partial[sequence + 1] - call.first_partial[sequence];
    return call.partials + call.first_partial[sequence] + uint64_t{of_sequence / call.attention->n_kv_heads} * kv_head;
}

// Where a sequence's partials are: what is shared has room for the rows of all, at the leader's.
float *lay_out_partials(const Call &call, uint32_t sequence, float *floats) {
    const kvl_attention &a = *call.attention;
    const Share &share = call.shares[sequence];
    const uint32_t own_rows = partial_rows(a, call.max_queries);
    for (uint32_t kv_head = 0; kv_head < a.n_kv_heads; ++kv_head) {
        kvl_partial *partials = partials_of(call, sequence, kv_head);
        const int64_t n_partials = partials_of(call, sequence, kv_head + 1) - partials;
        for (int64_t i = 0; i < n_partials; ++i) {
            if (i < share.n_chunks && share.leader != sequence) {
                partials[i] = partials_of(call, share.leader, kv_head)[i];
                continue;
            }
            const uint32_t rows = i < share.n_chunks ? a.group * share.n_queries : own_rows;
            const int64_t padded_rows = partial_stride(rows);
            partials[i] = {floats, floats + padded_rows, floats + 2 * padded_rows};
            floats += partial_floats(a, rows);
        }
    }
    return floats;
}

// The first of a sequence's chunks that are its own units.
int64_t first_chunk_of(const Call &call, uint32_t sequence) {
    const Share &share = call.shares[sequence];
    return share.leader == sequence ? 0 : share.n_chunks;
}

// Goes on to a position that the views hold.
void move_to(Place &place, int64_t &view_first, int64_t position) {
    while (position - view_first >= own_tokens(*place.view)) {
        view_first += tokens_before_next(*place.view);
        place = {place.view->next, 0, 0, 0};
    }
    place.token = position - view_first;
    int64_t in_run = place.token - place.run_first;
    place.run = run_of(*place.view, place.run, in_run);
    place.run_first = place.token - in_run;
}

// Where the chunks begin that any query sees some of: in one pass over the views and their runs. Returns how many there are.
uint32_t lay_out_places(const kvl_attention &a, const kvl_sequence &s, Place *places) {
    const Visible visible = visible_to_any(a, s);
    const int64_t first = asked_of(s).first;
    Place place{s.view, 0, 0, 0};
    int64_t view_first = view_first_of(s);
    const int64_t n_chunks = visible.n_chunks();
    for (int64_t i = 0; i < n_chunks; ++i) {
        const int64_t position = std::max(first, visible.chunk(i).first);
        if (position < visible.window.end) {  // else it has no tokens
            move_to(place, view_first, position);
        }
        places[i] = place;
    }
    return static_cast<uint32_t>(n_chunks);
}

void lay_out(const kvl_attention &a, const kvl_sequence *sequences, uint32_t n_sequences, uint32_t max_queries,
             const Layout &layout, void *workspace) {
    auto *base = static_cast<std::byte *>(workspace);
    auto *call = new (workspace) Call{call_magic,
                                      &a,
                                      sequences,
                                      n_sequences,
                                      0,
                                      max_queries,
                                      reinterpret_cast<uint32_t *>(base + layout.first_unit),
                                      reinterpret_cast<uint32_t *>(base + layout.first_partial),
                                      reinterpret_cast<uint32_t *>(base + layout.first_place),
                                      reinterpret_cast<Share *>(base + layout.shares),
                                      reinterpret_cast<uint32_t *>(base + layout.chunks_left),
                                      reinterpret_cast<uint8_t *>(base + layout.unit_states),
                                      reinterpret_cast<Place *>(base + layout.places),
                                      reinterpret_cast<kvl_partial *>(base + layout.partials)};
    lay_out_shares(*call, reinterpret_cast<Query *>(base + layout.queries));
    const uint64_t merges = merges_of(a, max_queries);
    uint32_t unit = 0, partial = 0, place = 0;
    for (uint32_t s = 0; s < n_sequences; ++s) {
        uint32_t *left = call->chunks_left + s * merges;
        call->first_unit[s] = unit;
        call->first_partial[s] = partial;
        call->first_place[s] = place;
        place += lay_out_places(a, sequences[s], call->places + place);
        std::fill_n(left, merges, 0u);
        std::fill_n(left, uint64_t{a.n_kv_heads} * blocks_of(a, queries_of(sequences[s])),
                    static_cast<uint32_t>(n_chunks_of(a, sequences[s])));
        const auto n_partials = static_cast<uint32_t>(n_partials_of(a, sequences[s]));
        partial += n_partials;
        unit += n_partials - static_cast<uint32_t>(first_chunk_of(*call, s)) * a.n_kv_heads;
    }
    call->first_unit[n_sequences] = call->n_units = unit;
    call->first_partial[n_sequences] = partial;
    call->first_place[n_sequences] = place;
    std::fill_n(call->unit_states, unit, uint8_t{not_run});
    auto *floats = reinterpret_cast<float *>(base + layout.floats);
    for (uint32_t s = 0; s < n_sequences; ++s) {
        floats = lay_out_partials(*call, s, floats);
    }
}

// stride: partials from one chunk of the block to its next.
void merge_block(const kvl_attention &a, const kvl_sequence &s, const Share &share, uint32_t kv_head, const Block &block,
                 const kvl_partial *partials, uint32_t stride, int64_t n_chunks) {
    const uint64_t head = uint64_t{block.first} * a.n_query_heads + uint64_t{kv_head} * a.group;
    const auto from_head = [&](float *rows, uint64_t dim) { return rows ? rows + head * dim : nullptr; };
    const kvl_partial whole = s.range ? s.range->out : kvl_partial{};
    a.kernels->merge({.partials = partials,
                      .stride = stride,
                      .n_partials = n_chunks,
                      .n_shared = share.n_chunks,
                      .shared_row = static_cast<int>(a.group * share.first_query),
                      .o_stride = partial_stride(a.v_head_dim),
                      .n_queries = static_cast<int>(block.n),
                      .group = static_cast<int>(a.group),
                      .v_head_dim = a.v_head_dim,
                      .query_stride = a.n_query_heads,
                      .out = s.range ? nullptr : from_head(s.out, a.v_head_dim),
                      .lse = from_head(s.lse, 1),
                      .whole = {from_head(whole.m, 1), from_head(whole.l, 1), from_head(whole.o, a.v_head_dim)},
                      .rotates_out = a.v_rotation == KVL_ROTATION_HADAMARD,
                      .sinks = a.sink_logits && !s.range ? &a.sink_logits[uint64_t{kv_head} * a.group] : nullptr});
}

const Place &place_of(const Call &call, uint32_t sequence, const Tokens &chunk) {
    const Visible visible = visible_to_any(*call.attention, call.sequences[sequence]);
    return call.places[call.first_place[sequence] + visible.index_of(chunk.first)];
}

// queries: of the block that begins with first_query, or of several sequences, where there is no mask.
void decode_unit(const Call &call, uint32_t sequence, uint32_t kv_head, std::span<const Query> queries, uint32_t first_query,
                 const Visible &visible, const Tokens &chunk, const kvl_partial &out) {
    const kvl_attention &a = *call.attention;
    const kvl_sequence &s = call.sequences[sequence];
    const Tokens all{asked_of(s).first, visible.window.end};
    const Tokens tokens = all.within(chunk);
    // A chunk that its queries see none of may begin where no query sees any.
    const Place place = tokens.n() > 0 ? place_of(call, sequence, chunk) : Place{s.view, 0, 0, 0};
    a.kernels->attend_chunk({.kernels = a.kernels,
                             .view = place.view,
                             .kv_head = kv_head,
                             .first = place.token,
                             .run = place.run,
                             .run_first = place.run_first,
                             .n_tokens = tokens.n(),
                             .queries = queries.data(),
                             .first_element = int64_t{kv_head} * a.group * a.head_dim,
                             .n_queries = static_cast<int>(queries.size()),
                             .group = static_cast<int>(a.group),
                             .out = out,
                             .rotates_q = a.k_rotation == KVL_ROTATION_HADAMARD,
                             .k_numbers = a.k_numbers,
                             .v_numbers = a.v_numbers,
                             .scale = a.scale,
                             .softcap = a.softcap,
                             .slopes = a.slopes ? &a.slopes[uint64_t{kv_head} * a.group] : nullptr,
                             .position = tokens.first,
                             .window = a.window > 0 ? a.window : KVL_MAX_TOKENS,
                             .n_sink_tokens = a.n_sink_tokens,
                             .mask = s.mask,
                             .first_query = first_query});
}

void decode_own(const Call &call, uint32_t sequence, uint32_t kv_head, const Block &block, const Visible &visible,
                const Tokens &chunk, const kvl_partial &out) {
    Query queries[max_rows];
    for (uint32_t i = 0; i < block.n; ++i) {
        queries[i] = query_of(*call.attention, call.sequences[sequence], block.first + i);
    }
    decode_unit(call, sequence, kv_head, {queries, block.n}, block.first, visible, chunk, out);
}

void decode_shared(const Call &call, uint32_t leader, uint32_t kv_head, const Tokens &chunk, const kvl_partial &out) {
    const Share &share = call.shares[leader];
    const Visible all{{0, 0}, {0, call.sequences[leader].len}};
    decode_unit(call, leader, kv_head, {share.queries, share.n_queries}, 0, all, chunk, out);
}

// One of the chunks that a sequence's block of queries waits for is done.
void finish_chunk(const Call &call, uint32_t sequence, uint32_t kv_head, uint32_t index) {
    const kvl_attention &a = *call.attention;
    const kvl_sequence &s = call.sequences[sequence];
    const uint32_t n_blocks = blocks_of(a, queries_of(s));
    const uint64_t merge = sequence * merges_of(a, call.max_queries) + kv_head * n_blocks + index;
    std::atomic_ref<uint32_t> chunks_left(call.chunks_left[merge]);
    if (chunks_left.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const Block block = block_of(a, s, index);
        merge_block(a, s, call.shares[sequence], kv_head, block, partials_of(call, sequence, kv_head) + index, n_blocks,
                    visible_to(a, s, block).n_chunks());
    }
}

void run_unit(const Call &call, uint32_t unit) {
    const kvl_attention &a = *call.attention;
    const uint32_t *next = std::upper_bound(call.first_unit, call.first_unit + call.n_sequences, unit);
    const auto sequence = static_cast<uint32_t>(next - call.first_unit) - 1;
    const kvl_sequence &s = call.sequences[sequence];
    const Share &share = call.shares[sequence];
    const auto first_chunk = static_cast<uint32_t>(first_chunk_of(call, sequence));
    const auto n_chunks = static_cast<uint32_t>(n_chunks_of(a, s)) - first_chunk;
    const uint32_t n_blocks = blocks_of(a, queries_of(s));
    const uint32_t of_sequence = unit - call.first_unit[sequence];
    const uint32_t kv_head = of_sequence / (n_chunks * n_blocks);
    const uint32_t of_head = of_sequence - kv_head * n_chunks * n_blocks;
    const uint32_t chunk = first_chunk + (n_blocks == 1 ? of_head : of_head / n_blocks);
    const uint32_t index = of_head - (chunk - first_chunk) * n_blocks;
    const Block block = block_of(a, s, index);
    const Visible visible = visible_to(a, s, block);
    const kvl_partial &out = partials_of(call, sequence, kv_head)[chunk * n_blocks + index];
    if (chunk < share.n_chunks) {
        decode_shared(call, sequence, kv_head, visible.chunk(chunk), out);
        for (uint32_t other = sequence + 1; other < share.end; ++other) {
            finish_chunk(call, other, kv_head, 0);
        }
    } else if (chunk < visible.n_chunks()) {
        decode_own(call, sequence, kv_head, block, visible, visible.chunk(chunk), out);
    }
    finish_chunk(call, sequence, kv_head, index);
}

kvl_status check_done(Call &call) {
    uint32_t n_left = 0, n_running = 0;
    for (uint32_t unit = 0; unit < call.n_units; ++unit) {
        const uint8_t state = std::atomic_ref(call.unit_states[unit]).load(std::memory_order_acquire);
        n_left += state == not_run;
        n_running += state == running;
    }
    return n_left == 0 && n_running == 0
               ? KVL_OK
               : fail(KVL_ERROR_TASK,
                      "%u of the call's %u tasks were not run and %u are still running; each must be run once", n_left,
                      call.n_units, n_running);
}

// Ends a call, whether the executor returns or throws: its gate is closed first, so that no task is in it and none comes.
class Ending {
public:
    Ending(Call &call, Gate *gate) : call_(call), gate_(gate) {}
    Ending(const Ending &) = delete;
    Ending &operator=(const Ending &) = delete;
    ~Ending() {
        if (gate_) {
            gate_->close();
        }
        call_.magic = 0;
    }

private:
    Call &call_;
    Gate *gate_;
};

// On the executor, or on the calling thread where there is none, or no gate for it.
void run_tasks(Call &call, const kvl_executor &executor) {
    Gate *const gate = executor.parallel_for ? Gate::open(&call) : nullptr;
    const Ending ending(call, gate);
    if (gate) {
        executor.parallel_for(executor.pool, call.n_units, Gate::run_task, gate->ticket());
        return;
    }
    for (uint32_t task = 0; task < call.n_units; ++task) {
        (void)kvl_attend_run_task(&call, task);
    }
}

// Whether the visible values are what keys begin with.
bool values_are_keys(const kvl_view &view) {
    if (has_tiles(view) || view.k_format != view.v_format || view.v_head_dim > view.head_dim) {
        return false;
    }
    bool are_keys = true;
    int64_t left = own_tokens(view);
    for (uint32_t i = 0; are_keys && left > 0; ++i) {
        const Run run = run_at(view, i);
        const int64_t n = std::min(left, run.n_tokens);
        are_keys = n == 0 || same_rows(view, run, k_plane, view, run, v_plane, n);
        left -= n;
    }
    return are_keys;
}

// Of one KV head's key and value, padding not counted.
int64_t read_bytes(const kvl_view &view) {
    const auto of = [](kvl_format format, uint32_t dim) {
        return format::row_bytes(format, dim) + format::entry_bytes(format, dim);
    };
    const int64_t of_key = of(view.k_format, view.head_dim);
    return values_are_keys(view) ? of_key : of_key + of(view.v_format, view.v_head_dim);
}

kvl_status check_each(const float *values, uint32_t n, bool (*is_allowed)(float), const char *name, const char *allowed) {
    for (uint32_t i = 0; values && i < n; ++i) {
        if (!is_allowed(values[i])) {
            return fail(KVL_ERROR_RULE, "%s[%u] is %g; it must be %s", name, i, values[i], allowed);
        }
    }
    return KVL_OK;
}

kvl_status check_rules(const kvl_attention_desc &desc) {
    KVLANE_TRY(check_range(desc.window, 0, KVL_MAX_TOKENS, "window"));
    KVLANE_TRY(check_range(desc.n_sink_tokens, 0, desc.window == 0 ? 0 : KVL_MAX_TOKENS,
                           desc.window == 0 ? "n_sink_tokens, without a window," : "n_sink_tokens"));
    if (!(desc.softcap == 0 || (desc.softcap >= 1e-38f && desc.softcap <= 1e38f))) {
        return fail(KVL_ERROR_RULE, "softcap is %g; it must be 0, or from 1e-38 to 1e38", desc.softcap);
    }
    KVLANE_TRY(check_each(
        desc.alibi_slopes, desc.n_query_heads, [](float slope) { return std::isfinite(slope * KVL_MAX_TOKENS); },
        "alibi_slopes", "finite, times KVL_MAX_TOKENS too"));
    return check_each(
        desc.sink_logits, desc.n_query_heads, [](float logit) { return logit < INFINITY; }, "sink_logits",
        "less than infinity");
}

kvl_status check_precision(const kvl_attention_desc &desc) {
    if (desc.precision > KVL_PRECISION_FAST) {
        return fail(KVL_ERROR_PRECISION, "precision is %u; it must be KVL_PRECISION_DEFAULT, _EXACT or _FAST, 0 to %d",
                    desc.precision, KVL_PRECISION_FAST);
    }
    return desc.precision != KVL_PRECISION_FAST || (format::is_scaled(desc.k_format) && format::is_scaled(desc.v_format))
               ? KVL_OK
               : fail(KVL_ERROR_PRECISION,
                      "precision is KVL_PRECISION_FAST; it must be another unless both formats are q8 or q4");
}

// The compute type of a format's keys or values: integers of 8 bits where both are integers, the isa multiplies bytes, and
// what this rounds costs less than storing does: not for weights of q8, nor for keys of q8 that a single query head meets,
// which wait for memory anyway. By groups, not rows: bits must not depend on what else is read for.
Numbers numbers_of(const KernelTable &kernels, const kvl_attention_desc &desc, kvl_format format, bool pays_for_q8) {
    const bool all_integers = format::is_scaled(desc.k_format) && format::is_scaled(desc.v_format);
    return desc.precision == KVL_PRECISION_EXACT                                                      ? Numbers::scaled
           : all_integers && kernels.has_byte_products && (pays_for_q8 || format == format::index_q4) ? Numbers::bytes
                                                                                                      : Numbers::words;
}

// Of the numbers in force, where there is a choice.
const char *precision_name(const kvl_attention &a) {
    return !format::is_scaled(a.k_format) && !format::is_scaled(a.v_format) ? ""
           : a.k_numbers == Numbers::scaled                                 ? "/exact"
           : a.k_numbers == Numbers::bytes || a.v_numbers == Numbers::bytes ? "/fast"
                                                                            : "";
}

// Null for null. Throws where there is no memory.
std::unique_ptr<float[]> copy_of(const float *values, uint32_t n) {
    if (!values) {
        return nullptr;
    }
    auto copy = std::make_unique<float[]>(n);
    std::copy_n(values, n, copy.get());
    return copy;
}

}  // namespace

kvl_status kvl_attention_create(const kvl_attention_desc *desc, kvl_attention **attention) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(check_desc(desc, 0, "desc"));
    KVLANE_TRY(check_range(desc->n_kv_heads, 1, KVL_MAX_HEADS, "n_kv_heads"));
    KVLANE_TRY(check_range(desc->n_query_heads, 1, KVL_MAX_HEADS, "n_query_heads"));
    if (desc->n_query_heads % desc->n_kv_heads != 0) {
        return fail(KVL_ERROR_HEADS, "n_query_heads is %u; it must be a multiple of n_kv_heads, %u", desc->n_query_heads,
                    desc->n_kv_heads);
    }
    const uint32_t v_head_dim = desc->v_head_dim ? desc->v_head_dim : desc->head_dim;
    KVLANE_TRY(check_head_dim(desc->head_dim, "head_dim"));
    KVLANE_TRY(check_head_dim(v_head_dim, "v_head_dim"));
    KVLANE_TRY(check_format(desc->k_format, "k_format"));
    KVLANE_TRY(check_format(desc->v_format, "v_format"));
    KVLANE_TRY(check_rotation(desc->k_rotation, "k_rotation"));
    KVLANE_TRY(check_rotation(desc->v_rotation, "v_rotation"));
    KVLANE_TRY(check_precision(*desc));
    KVLANE_TRY(check_rules(*desc));
    const float scale = desc->scale != 0 ? desc->scale : 1 / std::sqrt(static_cast<float>(desc->head_dim));
    if (!std::isfinite(scale)) {
        return fail(KVL_ERROR_SCALE, "scale is %g; it must be finite, or 0 for 1 / sqrt(head_dim)", desc->scale);
    }
    const KernelTable *kernels;
    KVLANE_TRY(kernels_in_force(kernels));
    const uint32_t group = desc->n_query_heads / desc->n_kv_heads;
    const uint32_t rows_of_query = std::clamp(group, 1u, uint32_t{max_rows});
    const uint32_t block_queries = max_rows / rows_of_query;
    std::unique_ptr<kvl_attention> made;
    try {
        made.reset(new kvl_attention{.kernels = kernels,
                                     .n_query_heads = desc->n_query_heads,
                                     .n_kv_heads = desc->n_kv_heads,
                                     .group = group,
                                     .head_dim = desc->head_dim,
                                     .v_head_dim = v_head_dim,
                                     .k_format = desc->k_format,
                                     .v_format = desc->v_format,
                                     .k_rotation = format::rotation_of(desc->k_rotation, desc->k_format, true),
                                     .v_rotation = format::rotation_of(desc->v_rotation, desc->v_format, false),
                                     .k_numbers = numbers_of(*kernels, *desc, desc->k_format, group > 1),
                                     .v_numbers = numbers_of(*kernels, *desc, desc->v_format, false),
                                     .scale = scale,
                                     .window = desc->window,
                                     .n_sink_tokens = desc->n_sink_tokens,
                                     .block_queries = block_queries,
                                     .softcap = desc->softcap,
                                     .slopes = copy_of(desc->alibi_slopes, desc->n_query_heads),
                                     .sink_logits = copy_of(desc->sink_logits, desc->n_query_heads),
                                     .kernel_name = {}});
    } catch (const std::bad_alloc &) {
        return fail(KVL_ERROR_MEMORY, "no memory for an attention object of %u query heads", desc->n_query_heads);
    }
    std::snprintf(made->kernel_name, sizeof made->kernel_name, "%s/%s+%s/group:%u%s", kernels->name,
                  format::names[desc->k_format], format::names[desc->v_format], made->group, precision_name(*made));
    *attention = made.release();
    return KVL_OK;
}

void kvl_attention_destroy(kvl_attention *attention) { delete attention; }

const char *kvl_attention_kernel(const kvl_attention *attention) { return attention ? attention->kernel_name : nullptr; }

kvl_status kvl_attention_workspace_size(const kvl_attention *attention, uint32_t n_sequences, int64_t max_len,
                                        uint32_t max_queries, size_t *bytes) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(check_not_null(bytes, "bytes"));
    KVLANE_TRY(check_range(max_len, 0, KVL_MAX_TOKENS, "max_len"));
    KVLANE_TRY(check_range(max_queries, 1, UINT32_MAX, "max_queries"));
    const uint64_t chunks_of_one =
        static_cast<uint64_t>(max_chunks_of_block(*attention, max_len, max_queries)) * attention->n_kv_heads;
    KVLANE_TRY(check_units(chunks_of_one));
    const uint64_t units_of_one = chunks_of_one * blocks_of(*attention, max_queries);
    KVLANE_TRY(check_units(units_of_one));
    KVLANE_TRY(check_units(units_of_one * n_sequences));
    const uint64_t n_places = static_cast<uint64_t>(max_chunks_of_queries(*attention, max_len, max_queries)) * n_sequences;
    *bytes = layout_of(*attention, n_sequences, max_queries, n_places, units_of_one * n_sequences).bytes;
    return KVL_OK;
}

kvl_status kvl_attend_begin(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                            void *workspace, size_t workspace_bytes, uint32_t *n_tasks) {
    KVLANE_TRY(check_not_null(n_tasks, "n_tasks"));
    KVLANE_TRY(check_sequences(attention, sequences, n_sequences));
    uint64_t n_partials = 0, n_places = 0;
    uint32_t max_queries = 1;
    for (uint32_t i = 0; i < n_sequences; ++i) {
        n_places += static_cast<uint64_t>(visible_to_any(*attention, sequences[i]).n_chunks());
        n_partials += n_partials_of(*attention, sequences[i]);
        max_queries = std::max(max_queries, queries_of(sequences[i]));
        KVLANE_TRY(check_units(n_partials));
    }
    const Layout layout = layout_of(*attention, n_sequences, max_queries, n_places, n_partials);
    KVLANE_TRY(check_workspace(workspace, workspace_bytes, layout.bytes));
    KVLANE_TRY(check_overlaps(*attention, sequences, n_sequences, n_tasks, workspace, layout.bytes,
                              static_cast<Output *>(workspace)));
    lay_out(*attention, sequences, n_sequences, max_queries, layout, workspace);
    *n_tasks = static_cast<Call *>(workspace)->n_units;
    return KVL_OK;
}

kvl_status kvl_attend_run_task(void *workspace, uint32_t task) {
    Call *call;
    KVLANE_TRY(begun_call(workspace, call));
    if (task >= call->n_units) {
        return fail(KVL_ERROR_TASK, "task is %u; the call has %u", task, call->n_units);
    }
    std::atomic_ref state(call->unit_states[task]);
    uint8_t expected = not_run;
    if (!state.compare_exchange_strong(expected, running, std::memory_order_relaxed)) {
        return fail(KVL_ERROR_TASK, "task is %u; it was run already, and each must be once", task);
    }
    run_unit(*call, task);
    state.store(done, std::memory_order_release);
    return KVL_OK;
}

kvl_status kvl_attend_finish(void *workspace) {
    Call *call;
    KVLANE_TRY(begun_call(workspace, call));
    KVLANE_TRY(check_done(*call));
    call->magic = 0;
    return KVL_OK;
}

kvl_status kvl_attend(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences, void *workspace,
                      size_t workspace_bytes, const kvl_executor *executor) {
    const kvl_executor threads = executor ? *executor : kvl_executor{};  // which may lie where the call is laid out
    if (executor && !threads.parallel_for) {
        return check_not_null(nullptr, "executor: parallel_for");
    }
    uint32_t n_tasks;
    KVLANE_TRY(kvl_attend_begin(attention, sequences, n_sequences, workspace, workspace_bytes, &n_tasks));
    Call &call = *static_cast<Call *>(workspace);
    run_tasks(call, threads);
    return check_done(call);
}

kvl_status kvl_merge(const kvl_attention *attention, const kvl_partial *partials, uint32_t n_partials, uint32_t n_queries,
                     float *out, float *lse) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(check_not_null(partials, "partials"));
    KVLANE_TRY(check_range(n_partials, 1, UINT32_MAX, "n_partials"));
    KVLANE_TRY(check_range(n_queries, 1, INT32_MAX / attention->n_query_heads, "n_queries"));
    for (uint32_t i = 0; i < n_partials; ++i) {
        KVLANE_TRY(check_partial(partials[i], i));
    }
    KVLANE_TRY(check_not_null(out, "out"));
    KVLANE_TRY(check_merge_overlaps(*attention, partials, n_partials, n_queries, out, lse));
    attention->kernels->merge({.partials = partials,
                               .stride = 1,
                               .n_partials = n_partials,
                               .n_shared = 0,
                               .shared_row = 0,
                               .o_stride = attention->v_head_dim,
                               .n_queries = static_cast<int>(n_queries),
                               .group = static_cast<int>(attention->n_query_heads),
                               .v_head_dim = attention->v_head_dim,
                               .query_stride = attention->n_query_heads,
                               .out = out,
                               .lse = lse,
                               .whole = {},
                               .rotates_out = attention->v_rotation == KVL_ROTATION_HADAMARD,
                               .sinks = attention->sink_logits.get()});
    return KVL_OK;
}

kvl_status kvl_attend_bytes(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                            uint64_t *bytes) {
    KVLANE_TRY(check_not_null(bytes, "bytes"));
    KVLANE_TRY(check_sequences(attention, sequences, n_sequences));
    uint64_t sum = 0;  // written at the end: bytes may lie in what is read
    Sharers sharers{0, 0};
    for (uint32_t i = 0; i < n_sequences; ++i) {
        const kvl_sequence &s = sequences[i];
        if (i == sharers.end) {
            sharers = sharers_from(*attention, sequences, n_sequences, i);
        } else {  // all but the first find these read
            sum -= static_cast<uint64_t>(sharers.n_chunks * chunk_tokens * s.view->n_kv_heads * read_bytes(*s.view));
        }
        int64_t first = view_first_of(s);
        for (const kvl_view *view = s.view; view; view = view->next) {
            sum += static_cast<uint64_t>(count_seen(*attention, s, *view, first) * view->n_kv_heads * read_bytes(*view));
            first += tokens_before_next(*view);
        }
    }
    *bytes = sum;
    return KVL_OK;
}

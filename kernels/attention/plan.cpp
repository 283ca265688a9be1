#include "plan.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "../error.hpp"
#include "../planes.hpp"
#include "overlaps.hpp"
#include "prefix.hpp"

namespace kvlane {
namespace {

constexpr size_t alignment = KVL_WORKSPACE_ALIGNMENT;
constexpr uint64_t max_units = INT32_MAX;

constexpr uint64_t aligned(uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

// Rows of one unit's partial, where no sequence has more queries; and its floats: m and l of the rows, each padded to a
// cache line, and o.
uint32_t partial_rows(const kvl_attention &a, uint32_t max_queries) {
    return a.group * std::min(a.block_queries, max_queries);
}
int64_t partial_floats(const kvl_attention &a, uint32_t rows) {
    return 2 * partial_stride(rows) + rows * partial_stride(a.v_head_dim);
}

}  // namespace

int64_t n_chunks_of(const kvl_attention &a, const kvl_sequence &s) {
    if (queries_of(s) == 1) {
        return visible_to(a, s, s.len, s.len).n_chunks();
    }
    const Tokens asked = asked_of(s).within({0, s.len});
    return std::clamp<int64_t>(asked.end_chunk() - asked.first_chunk(), 1, max_chunks_of_block(a, s.len, queries_of(s)));
}

uint64_t n_partials_of(const kvl_attention &a, const kvl_sequence &s) {
    const uint64_t of_block = static_cast<uint64_t>(n_chunks_of(a, s)) * a.n_kv_heads;
    return std::min(of_block, max_units + 1) * blocks_of(a, queries_of(s));
}

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

Query query_of(const kvl_attention &a, const kvl_sequence &s, uint32_t query) {
    return {s.q + uint64_t{query} * a.n_query_heads * a.head_dim, s.len - (queries_of(s) - query)};
}

namespace {

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

}  // namespace

kvl_partial *partials_of(const Call &call, uint32_t sequence, uint32_t kv_head) {
    const uint32_t of_sequence = call.first_partial[sequence + 1] - call.first_partial[sequence];
    return call.partials + call.first_partial[sequence] + uint64_t{of_sequence / call.attention->n_kv_heads} * kv_head;
}

int64_t first_chunk_of(const Call &call, uint32_t sequence) {
    const Share &share = call.shares[sequence];
    return share.leader == sequence ? 0 : share.n_chunks;
}

namespace {

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

// Goes on to a position that the views hold.
void move_to(Place &place, int64_t &view_first, int64_t position) {
    while (position - view_first >= own_tokens(*place.view)) {
        view_first += own_tokens(*place.view);
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

}  // namespace

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

}  // namespace kvlane

using namespace kvlane;

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

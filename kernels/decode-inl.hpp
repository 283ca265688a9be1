#pragma once

// One chunk of one KV head: tile by tile, the scores of its rows, the softmax's update, the weighted sum.
//   out = sum over t of 2^(scale * q k[t] - m) v[t], and the (m, l) to merge it by.
// Traffic: every key and value row once for as many rows as there is room for, at most max_tile_rows.

#include <algorithm>
#include <bit>
#include <numeric>
#include <type_traits>

#include "dot-inl.hpp"
#include "rules-inl.hpp"
#include "softmax-inl.hpp"
#include "streams-inl.hpp"
#include "value_weights-inl.hpp"

namespace kvlane {

// Tokens of a turn between keys and values: whole fours, for values that are multiplied as bytes.
template <class Isa, Numbers K>
KVLANE_INLINE int turn_tokens(const DecodeChunk &c, int n_rows) {
    const int64_t row_bytes = row_bytes_of<Plane::keys>(*c.view);
    const int at_once = std::max(4, dot_tokens<Isa>(K, std::min(n_rows, Isa::max_rows)));
    const auto tokens = static_cast<int>(c.plan.turn_bytes / row_bytes / at_once * at_once);
    return tokens < at_once ? at_once : tokens < tile_tokens ? tokens : tile_tokens;
}

static KVLANE_INLINE int tokens_left(int64_t n_tokens, int64_t done, int most) {
    const int64_t left = n_tokens - done;
    return left < 0 ? 0 : left < most ? static_cast<int>(left) : most;
}

// Sums that are kept as integers at a time.
static constexpr int max_sums = 4096;

// Of queries as dots load them, at a time: as much of L1 as 16 rows of latent attention take.
static constexpr int query_bytes = 16 * 576 * sizeof(float);

// What rows need beside their state; one instance lives on the stack.
struct Scratch {
    alignas(64) std::byte queries[query_bytes];
    alignas(64) float row[KVL_MAX_HEAD_DIM + 16];            // zeros follow a row, of one or the other
    alignas(64) int16_t integer_row[KVL_MAX_HEAD_DIM + 32];  // or bytes
    alignas(64) int16_t weights[max_sums];                   // or bytes
    alignas(64) int32_t sums[max_sums];                      // of a tile's weighted values, as o lies
    alignas(64) float key_scales[score_stride];
    alignas(64) float value_shares[2 * KVL_MAX_HEAD_DIM];     // of a tile's tokens; for bytes, of each for every group
    float value_units[KVL_MAX_HEAD_DIM / format::q4::group];  // what sums are to be multiplied by there
    float q_scales[max_tile_rows];
    int32_t starts[max_tile_rows];  // of sums, where keys are multiplied as bytes
    alignas(64) float sum_scales[max_tile_rows];
    alignas(64) float offsets[score_stride];  // of a tile's tokens, from its first one
    alignas(64) float biases[score_stride];   // of them, for a query
    uint64_t unmasked[max_tile_rows][known_tokens / word_tokens + 1];
};

static KVLANE_INLINE int rows_of(const DecodeChunk &c) { return c.n_queries * c.group; }

// Integers that a row's sums have at most: of bytes, of the groups of whole vectors.
template <class Isa>
KVLANE_INLINE int64_t sum_stride(uint32_t v_head_dim) {
    return int64_t{n_nibble_blocks<Isa>(static_cast<int>(v_head_dim))} * nibble_block<Isa>;
}

// Of a tile: o += sum_scale * sums; sums are 0 again.
template <class Isa, Numbers V>
static void add_sums(const DecodeChunk &c, int n_rows, Scratch &scratch, float *o) {
    constexpr bool by_groups = V == Numbers::bytes;
    constexpr int vectors = by_groups ? 4 : 1;  // that are put in order together
    const auto dim = static_cast<int>(c.view->v_head_dim);
    const auto n_sums = by_groups ? static_cast<int>(sum_stride<Isa>(c.view->v_head_dim)) : dim;
    const int64_t step = o_step<Isa>(rows_of(c));
    int32_t *sums = scratch.sums;
    for (int first = 0; first < n_sums; first += vectors * Isa::lanes, sums += (vectors - 1) * n_rows * Isa::lanes) {
        float *to[vectors];  // null: behind the row's end
        typename Isa::Vec unit[vectors];
        unroll<vectors>([&](auto i) __attribute__((always_inline)) {
            int d = first;
            if constexpr (by_groups) {
                d = value_element<Isa>(first + i * Isa::lanes);
            }
            to[i] = d < dim ? o + d / Isa::lanes * step : nullptr;
            unit[i] = Isa::broadcast(by_groups && d < dim ? scratch.value_units[d / format::q4::group] : 1);
        });
        for (int r = 0; r < n_rows; ++r, sums += Isa::lanes) {
            typename Isa::Int32s sum[vectors];
            unroll<vectors>([&](auto i) __attribute__((always_inline)) {
                sum[i] = Isa::load_int32s(sums + i * n_rows * Isa::lanes);
                Isa::store_int32s(sums + i * n_rows * Isa::lanes, Isa::zero_int32s());
            });
            if constexpr (by_groups) {
                Isa::in_order(sum);
            }
            const auto scale = Isa::broadcast(scratch.sum_scales[r]);
            unroll<vectors>([&](auto i) __attribute__((always_inline)) {
                if (to[i]) {
                    float *at = to[i] + r * Isa::lanes;
                    Isa::store(at, Isa::fma(scale * unit[i], Isa::to_float(sum[i]), Isa::load(at)));
                }
            });
        }
    }
}

// The planes of a chunk that rows are worked on by. Scales are walked twice: by tiles, as factors of scores and weights, and
// along with their rows, for what else stands there.
struct Streams {
    Stream<Plane::keys> keys;
    Stream<Plane::values> values;
    Stream<Plane::key_scales> key_scales, key_entries;  // where keys are integers
    Stream<Plane::value_scales> value_scales, value_entries;
};

static Streams streams_of(const DecodeChunk &c, const Unmasked &unmasked) {
    Streams s{stream_of<Plane::keys>(c, unmasked), stream_of<Plane::values>(c, unmasked), {}, {}, {}, {}};
    if (format::is_scaled(c.view->k_format)) {
        s.key_scales = s.key_entries = stream_of<Plane::key_scales>(c, unmasked, 0, c.plan.into);
        ask_for_scales(s.key_scales);
        ask_for_scales(s.key_scales);
    }
    if (format::is_scaled(c.view->v_format)) {
        s.value_scales = s.value_entries = stream_of<Plane::value_scales>(c, unmasked, 0, c.plan.into);
        ask_for_scales(s.value_scales);
        ask_for_scales(s.value_scales);
    }
    return s;
}

// The scales of a run of rows that the stream of rows has just gone past; none where they are floats.
template <Numbers N, Plane P>
KVLANE_INLINE StoredRows entries_of(Stream<P> &s, const StoredRows &run) {
    if constexpr (N != Numbers::floats) {
        return next_run(s.read, run.n);
    } else {
        return {};
    }
}

// Rows that are worked on together: [first, first + n) of the chunk's.
template <class Isa>
struct Rows {
    int first;
    int n;
    float *o;
    RowState<Isa> *state;
    Scratch &scratch;

    KVLANE_INLINE Rows sub(int from, int to) const {
        return {first + from, to - from, o + from * Isa::lanes, state + from, scratch};
    }
};

// Tokens that are worked on together: of at most tile_tokens, those that are visible.
struct Tile {
    int64_t first;     // of all, from the part's first one
    uint64_t visible;  // a bit each
    int n;             // that are set
};
static_assert(tile_tokens == word_tokens);

// The first tile of a part, from that token on, that has a visible token; one of none behind the last.
static Tile next_tile(const DecodeChunk &c, const Unmasked &unmasked, int64_t first) {
    for (; first < c.n_tokens; first += tile_tokens) {
        if (const uint64_t visible = low_bits(c.n_tokens - first) & unmasked.word(c.position + first)) {
            return {first, visible, std::popcount(visible)};
        }
    }
    return {first, 0, 0};
}

// body(i, t) for every visible token of a tile, the i-th of them, t from its first one.
template <class Body>
KVLANE_INLINE void for_each_visible(const Tile &tile, Body &&body) {
    int i = 0;
    for (uint64_t left = tile.visible; left != 0; left &= left - 1) {
        body(i++, std::countr_zero(left));
    }
}

template <class Isa>
static void fill_offsets(const Tile &tile, float *offsets) {
    if (tile.visible != low_bits(tile.n)) {
        return for_each_visible(tile, [&](int i, int t) { offsets[i] = static_cast<float>(t); });
    }
    for (int t = 0; t < tile.n; t += Isa::lanes) {
        Isa::store(offsets + t, Isa::broadcast(static_cast<float>(t)) + Isa::lane_numbers());
    }
}

static const float *biases_of(const DecodeChunk &c, const Tile &tile, int query, float *room) {
    const float *biases = biases_of(*c.mask, c.first_query + query) + c.position + tile.first;
    for_each_visible(tile, [&](int i, int t) { room[i] = bias_in_log2(biases[t]); });
    return room;
}

// What raw scores of a row are multiplied by, beside their keys' scales, into units of log2.
template <Numbers K>
KVLANE_INLINE float factor_of(const DecodeChunk &c, const Scratch &scratch, int r) {
    return K != Numbers::floats ? c.scale * scratch.q_scales[r] : c.scale;
}

// The raw scores of one of the rows become those that rules make of them.
template <class Isa, Numbers K>
static void rule(const DecodeChunk &c, const Tile &tile, const Rows<Isa> &rows, int r, float *scores) {
    Scratch &scratch = rows.scratch;
    const int query = (rows.first + r) / c.group, head = (rows.first + r) % c.group;
    const bool has_biases = c.mask && c.mask->biases;
    apply_rules<Isa, K>(c.rules, {.scores = scores,
                                  .n = tile.n,
                                  .factor = factor_of<K>(c, scratch, r),
                                  .key_scales = scratch.key_scales,
                                  .slope = c.rules.slopes ? c.rules.slopes[head] : 0,
                                  .first = c.position + tile.first - c.queries[query].position,
                                  .offsets = scratch.offsets,
                                  .biases = has_biases ? biases_of(c, tile, query, scratch.biases) : nullptr});
}

// Scores of a tile become weights.
template <class Isa, Numbers K, Numbers V>
static void weigh(const DecodeChunk &c, Streams &streams, const Tile &tile, float *scores, const Rows<Isa> &rows) {
    static_assert(max_tile_rows % Isa::lanes == 0);
    Scratch &scratch = rows.scratch;
    const auto v_head_dim = static_cast<int>(c.view->v_head_dim);
    float sum_scale = 1;
    if constexpr (K != Numbers::floats) {
        next_scales<Isa>(streams.key_scales, tile.n, scratch.key_scales);
    }
    if constexpr (V == Numbers::scaled) {
        next_scales<Isa>(streams.value_scales, tile.n, scratch.value_shares);
    } else if constexpr (V == Numbers::words) {
        sum_scale = next_value_shares<Isa>(streams.value_scales, tile.n, scratch.value_shares);
    } else if constexpr (V == Numbers::bytes) {
        next_group_shares<Isa>(streams.value_scales, tile.n, v_head_dim, scratch.value_shares, scratch.value_units);
    }
    const bool has_rules = has_any(c.rules) || (c.mask && c.mask->biases);
    if (c.rules.slopes) {
        fill_offsets<Isa>(tile, scratch.offsets);
    }
    float m[max_tile_rows];
    const auto tile_row = [&](int r) {
        return TileRow{scores + r * score_stride, tile.n, has_rules ? 1 : factor_of<K>(c, scratch, r)};
    };
    for (int r = 0; r < rows.n; ++r) {
        const TileRow row = tile_row(r);
        const RowSums sums{rows.o + r * Isa::lanes, rows_of(c), v_head_dim};
        if (has_rules) {
            rule<Isa, K>(c, tile, rows, r, row.scores);
            m[r] = take_maximum<Isa, Numbers::floats, V>(row, nullptr, sums, rows.state[r]);
        } else {
            m[r] = take_maximum<Isa, K, V>(row, scratch.key_scales, sums, rows.state[r]);
        }
    }
    if constexpr (are_integers(V)) {
        shares_of_rows<Isa>(m, rows.state, rows.n, scratch.sum_scales);
    }
    for (int r = 0; r < rows.n; ++r) {
        const TileRow row = tile_row(r);
        const float share = are_integers(V) ? scratch.sum_scales[r] : 1;
        to_weights<Isa, V>(row, m[r], share, scratch.value_shares, scratch.weights + r * score_stride, rows.state[r]);
        scratch.sum_scales[r] = sum_scale * share;
        if constexpr (V == Numbers::bytes) {
            constexpr int stride = byte_weights<Isa>();
            weigh_groups<Isa>(row.scores, tile.n, scratch.value_shares, n_nibble_blocks<Isa>(v_head_dim),
                              reinterpret_cast<uint8_t *>(scratch.weights) + r * stride, rows.n * stride);
        }
    }
}

// A query head's row as keys meet it, rotated as they are, and zeros behind it up to a whole vector.
template <class Isa>
static const float *query_of(const DecodeChunk &c, int query_index, int head, float *room) {
    const auto head_dim = static_cast<int>(c.view->head_dim);
    const float *query = c.queries[query_index].q + c.first_element + head * head_dim;
    if (!c.rotates_q && head_dim % Isa::lanes == 0) {
        return query;
    }
    std::copy_n(query, head_dim, room);
    std::fill_n(room + head_dim, Isa::lanes, 0.0f);
    if (c.rotates_q) {
        rotate_row<Isa>(room, head_dim);
    }
    return room;
}

// A row's query as bytes: for keys as they are stored, or side by side.
template <class Isa>
static void lay_out_bytes(kvl_format k_format, const float *query, int head_dim, int r, const Rows<Isa> &rows) {
    using A = KeyArithmetic<Isa, Numbers::bytes>;
    Scratch &scratch = rows.scratch;
    const bool as_stored = rows.n <= Isa::most_queries_as_stored, nibbles = as_stored && format::group_of[k_format] > 0;
    auto *to = reinterpret_cast<int8_t *>(scratch.queries);
    auto *row = as_stored ? reinterpret_cast<int8_t *>(scratch.integer_row) : to + r * A::weight_stride;
    scratch.q_scales[r] = quantize<Isa>(query, head_dim, row);
    if constexpr (multiplies_bytes<Isa, format::q8>()) {
        if (!nibbles) {
            scratch.starts[r] = -Isa::key_bias * std::accumulate(row, row + head_dim, 0);
        }
    }
    if constexpr (Isa::most_queries_as_stored > 0) {
        if (nibbles) {
            lay_out_nibble_query<Isa>(row, head_dim, r, rows.n, reinterpret_cast<NibbleQuery<Isa> *>(to));
        } else if (as_stored) {
            std::fill_n(row + head_dim, vector_bytes<Isa>, int8_t{0});
            lay_out_beside<Arithmetic<Isa, format::q8, Numbers::bytes>, 1>(row, head_dim, r, rows.n, to);
        }
    }
    if (!as_stored) {
        std::fill_n(row + head_dim, -head_dim & 3, int8_t{0});
    }
}

// Lays out the rows' queries for the keys of a part.
template <class Isa, Numbers K>
static void lay_out_queries(const DecodeChunk &c, const Rows<Isa> &rows) {
    using A = KeyArithmetic<Isa, K>;
    using Number = typename A::Number;
    Scratch &scratch = rows.scratch;
    auto *to = reinterpret_cast<Number *>(scratch.queries);
    const auto head_dim = static_cast<int>(c.view->head_dim);
    int index = rows.first / c.group, head = rows.first % c.group;
    for (int r = 0; r < rows.n; ++r) {
        const float *query = query_of<Isa>(c, index, head, scratch.row);
        if (++head == c.group) {
            head = 0;
            ++index;
        }
        if constexpr (K == Numbers::bytes) {
            lay_out_bytes<Isa>(c.view->k_format, query, head_dim, r, rows);
        } else if constexpr (K == Numbers::scaled) {
            std::fill_n(scratch.row + head_dim, Isa::lanes, 0.0f);
            scratch.q_scales[r] = normalize<Isa>(query, head_dim, scratch.row);
            lay_out_query<Isa, K>(scratch.row, head_dim, r, rows.n, to);
        } else if constexpr (K == Numbers::words) {
            std::fill_n(scratch.integer_row + head_dim, A::width, Number{0});
            scratch.q_scales[r] = quantize<Isa>(query, head_dim, scratch.integer_row);
            lay_out_query<Isa, K>(scratch.integer_row, head_dim, r, rows.n, to);
        } else {
            lay_out_query<Isa, K>(query, head_dim, r, rows.n, to);
        }
    }
}

// A run of values, from token t of a tile on, and its weights.
template <class Isa, Numbers V>
KVLANE_INLINE SumRows rows_to_sum(const DecodeChunk &c, Streams &streams, int t, const StoredRows &v, const Ahead &ahead,
                                  const float *weights, const Rows<Isa> &rows) {
    const auto dim = static_cast<int>(c.view->v_head_dim);
    Scratch &scratch = rows.scratch;
    if constexpr (V == Numbers::bytes) {
        return {scratch.weights, rows.n, dim, v, {}, ahead, scratch.sums, rows.n, nullptr, t};
    } else if constexpr (V == Numbers::words) {
        const StoredRows entries = entries_of<V>(streams.value_entries, v);
        return {scratch.weights + t, rows.n, dim, v, entries, ahead, scratch.sums, rows.n};
    } else {
        return {weights + t, rows.n, dim, v, entries_of<V>(streams.value_entries, v), ahead, rows.o, rows_of(c)};
    }
}

// Takes the tokens of one part that are visible into the rows. The keys of a tile are scored before the values of the tile
// before it are summed: what waits for scores then waits for none.
template <class Isa, Numbers K, Numbers V>
void decode_part(const DecodeChunk &c, const Unmasked &unmasked, const Rows<Isa> &rows) {
    Tile next = next_tile(c, unmasked, 0), last{};
    if (next.n == 0) {
        return;
    }
    alignas(64) float scores[2][max_tile_rows * score_stride];
    Scratch &scratch = rows.scratch;
    const auto head_dim = static_cast<int>(c.view->head_dim);
    const DotFn dot = c.kernels->dot->of[c.view->k_format][static_cast<int>(K)];
    const SumFn sum = c.kernels->sum->of[c.view->v_format][static_cast<int>(V)];
    lay_out_queries<Isa, K>(c, rows);
    if constexpr (are_integers(V)) {
        std::fill_n(scratch.sums, rows.n * sum_stride<Isa>(c.view->v_head_dim), 0);
    }
    const int turn = turn_tokens<Isa, K>(c, rows.n);
    Streams streams = streams_of(c, unmasked);
    float *new_scores = scores[0], *weights = scores[1];
    for (; next.n > 0 || last.n > 0; last = next, next = next_tile(c, unmasked, last.first + tile_tokens)) {
        if (last.n > 0) {
            weigh<Isa, K, V>(c, streams, last, weights, rows);
        }
        for (int t = 0; t < std::max(next.n, last.n); t += turn) {
            for_each_run(streams.keys, tokens_left(next.n, t, turn), [&](int i, const StoredRows &k, const Ahead &ahead) {
                dot({scratch.queries, rows.n, head_dim, k, entries_of<K>(streams.key_entries, k), ahead, new_scores + t + i,
                     scratch.starts});
            });
            for_each_run(streams.values, tokens_left(last.n, t, turn), [&](int i, const StoredRows &v, const Ahead &ahead) {
                sum(rows_to_sum<Isa, V>(c, streams, t + i, v, ahead, weights, rows));
            });
        }
        if constexpr (are_integers(V)) {
            if (last.n > 0) {
                add_sums<Isa, V>(c, rows.n, scratch, rows.o);
            }
        }
        std::swap(new_scores, weights);
    }
}

// body(part) for every view that has some of the chunk's tokens, as a chunk of that view's.
template <class Body>
static void for_each_part(const DecodeChunk &c, Body &&body) {
    DecodeChunk left = c;
    for (; left.n_tokens > 0; left.view = left.view->next) {
        const int64_t own = std::min(own_tokens(*left.view) - left.first, left.n_visible);
        DecodeChunk part = left;
        part.n_visible = own;
        part.n_tokens = std::min(own, left.n_tokens);
        body(part);
        left.first = left.run_first = 0;
        left.run = 0;
        left.n_visible -= own;
        left.n_tokens -= part.n_tokens;
        left.position += part.n_tokens;
    }
}

template <Numbers N>
using NumbersConstant = std::integral_constant<Numbers, N>;

// body(constant) with what rows are multiplied in, whose integers, if any, are so.
template <class Isa, class Body>
KVLANE_INLINE void with_integers(bool is_scaled, Numbers numbers, Body &&body) {
    if (!is_scaled) {
        body(NumbersConstant<Numbers::floats>{});
    } else if (numbers == Numbers::bytes) {
        body(NumbersConstant<numbers_of_keys<Isa, format::q4>(Numbers::bytes)>{});
    } else {
        body(NumbersConstant<Numbers::words>{});
    }
}

template <class Body>
KVLANE_INLINE void with_floats(bool is_scaled, Body &&body) {
    is_scaled ? body(NumbersConstant<Numbers::scaled>{}) : body(NumbersConstant<Numbers::floats>{});
}

// body(of keys, of values)
template <class Isa, class Body>
KVLANE_INLINE void with_numbers(const DecodeChunk &c, Body &&body) {
    const bool scaled_keys = format::is_scaled(c.view->k_format), scaled_values = format::is_scaled(c.view->v_format);
    if (c.k_numbers == Numbers::scaled) {
        with_floats(scaled_keys, [&](auto keys) { with_floats(scaled_values, [&](auto values) { body(keys, values); }); });
    } else {
        with_integers<Isa>(scaled_keys, c.k_numbers, [&](auto keys) {
            with_integers<Isa>(scaled_values, c.v_numbers, [&](auto values) { body(keys, values); });
        });
    }
}

// What a query sees of a chunk, by position.
struct Seen {
    int64_t end;  // behind the query's own
    Unmasked unmasked;
};

// words: room for them. first: of the tokens that the query's window holds.
[[gnu::noinline]] static Unmasked unmasked_by(const DecodeChunk &c, int query, int64_t first, uint64_t *words) {
    bool hides = false;
    for (int64_t t = 0; t <= known_tokens; t += word_tokens, ++words) {
        const int64_t position = c.position + t;
        const int n = tokens_left(std::min(c.n_visible, known_tokens), t, word_tokens);
        *words = low_bits(n) & (low_bits(c.n_sink_tokens - position) | ~low_bits(first - position));
        if (c.mask && *words != 0) {
            // What is asked for early may be hidden: biases are 32 times as much to look at.
            const auto seen = t < chunk_tokens ? unmasked : shown_by_bits;
            *words &= seen(*c.mask, c.first_query + query, position, n);
        }
        hides |= *words != low_bits(n);
    }
    return {hides ? words - known_tokens / word_tokens - 1 : nullptr, c.position};
}

static Seen seen_by(const DecodeChunk &c, int query, uint64_t *words) {
    const int64_t end = c.queries[query].position + 1, first = end - c.window;
    const bool may_hide = c.mask || first > std::max(c.position, c.n_sink_tokens);
    return {end, may_hide ? unmasked_by(c, query, first, words) : Unmasked{nullptr, c.position}};
}

// Whether n queries see the same tokens of the part's tile that begins with that one.
[[gnu::noinline]] static bool see_alike(const DecodeChunk &part, const Seen *seen, int n, int64_t first) {
    const auto visible = [&](const Seen &s) {
        const int64_t position = part.position + first;
        return low_bits(std::min(part.n_tokens - first, s.end - position)) & s.unmasked.word(position);
    };
    return std::all_of(seen + 1, seen + n, [&](const Seen &s) { return visible(s) == visible(*seen); });
}

// Tokens [from, to) of the part, as far as they are seen, for some rows.
template <class Isa>
static void decode_tokens(const DecodeChunk &part, int64_t from, int64_t to, const Seen &seen, const Rows<Isa> &rows) {
    DecodeChunk tokens = part;
    tokens.first += from;
    tokens.position += from;
    tokens.n_tokens = std::min(to - from, seen.end - tokens.position);
    tokens.n_visible -= from;
    with_numbers<Isa>(
        part, [&](auto keys, auto values) { decode_part<Isa, keys.value, values.value>(tokens, seen.unmasked, rows); });
}

// Tiles that all of the rows' queries see alike are read once for all, others once for each query: to each row it is as if
// it were alone.
template <class Isa>
static void decode_tiles(const DecodeChunk &part, const Seen *seen, const Rows<Isa> &rows) {
    const int first_query = rows.first / part.group;
    const int n_queries = (rows.first + rows.n - 1) / part.group - first_query + 1;
    if (n_queries == 1) {
        return decode_tokens(part, 0, part.n_tokens, *seen, rows);
    }
    for (int64_t from = 0, to; from < part.n_tokens; from = to) {
        const bool alike = see_alike(part, seen, n_queries, from);
        for (to = from + tile_tokens; to < part.n_tokens && see_alike(part, seen, n_queries, to) == alike;) {
            to += tile_tokens;
        }
        to = std::min(to, part.n_tokens);
        if (alike) {
            decode_tokens(part, from, to, *seen, rows);
            continue;
        }
        for (int i = 0; i < n_queries; ++i) {
            const int row = (first_query + i) * part.group - rows.first;
            decode_tokens(part, from, to, seen[i], rows.sub(std::max(0, row), std::min(rows.n, row + part.group)));
        }
    }
}

// All of a chunk's tokens for rows [row, row + n_rows).
template <class Isa>
void decode_rows(const DecodeChunk &c, int row, int n_rows) {
    RowState<Isa> state[max_tile_rows];
    Scratch scratch;
    const Rows<Isa> rows{row, n_rows, c.out.o + row * Isa::lanes, state, scratch};
    for (int r = 0; r < n_rows; ++r) {
        state[r] = {minus_infinity, Isa::broadcast(0)};
    }
    Seen seen[max_tile_rows];
    for (int query = row / c.group, i = 0; query <= (row + n_rows - 1) / c.group; ++query, ++i) {
        seen[i] = seen_by(c, query, scratch.unmasked[i]);
    }
    for_each_part(c, [&](const DecodeChunk &part) { decode_tiles(part, seen, rows); });
    for (int r = 0; r < n_rows; ++r) {
        c.out.m[row + r] = state[r].m;
        c.out.l[row + r] = Isa::reduce_add(state[r].l);
    }
}

template <class Isa>
void decode_chunk(const DecodeChunk &c) {
    const int n_rows = rows_of(c);
    std::fill_n(c.out.o, n_rows * partial_stride(c.view->v_head_dim), 0.0f);
    bool integer_keys = false, integer_values = false;
    for_each_part(c, [&](const DecodeChunk &part) {
        integer_keys |= format::is_scaled(part.view->k_format) && are_integers(c.k_numbers);
        integer_values |= format::is_scaled(part.view->v_format) && are_integers(c.v_numbers);
    });
    const auto head_dim = static_cast<int>(c.view->head_dim);
    const int of_floats = query_row_bytes<Isa, Numbers::floats>(head_dim);
    const int of_integers = std::max(query_row_bytes<Isa, Numbers::words>(head_dim),
                                     query_row_bytes<Isa, numbers_of_keys<Isa, format::q4>(Numbers::bytes)>(head_dim));
    const int room_for_queries = query_bytes / (integer_keys ? std::max(of_floats, of_integers) : of_floats);
    const auto room_for_sums = static_cast<int>(max_sums / sum_stride<Isa>(c.view->v_head_dim));
    const int room = std::min({max_tile_rows, room_for_queries, integer_values ? room_for_sums : max_tile_rows});
    const int at_once = room > c.group ? room / c.group * c.group : room;
    for (int row = 0; row < n_rows; row += at_once) {
        decode_rows<Isa>(c, row, std::min(n_rows - row, at_once));
    }
}

}  // namespace kvlane

#pragma once

// Attention of a block of query rows, (query, query head) pairs, to one tile:
//
//   S = scale * Q K^T        [rows][64]
//   m' = max(m, max S), P = exp(S - m'), l' = l exp(m - m') + sum P
//   O' = O exp(m - m') + P V  [rows][v_head_dim]

#include <algorithm>
#include <bit>

#include "exp-inl.hpp"
#include "gemm-inl.hpp"
#include "q4_levels.hpp"
#include "quantize-inl.hpp"
#include "score_mods-inl.hpp"
#include "tile_source-inl.hpp"

namespace kvlane {

template <class Isa, class Format, ComputeType N>
using OperandOf =
    std::conditional_t<N == ComputeType::f32, operand::F32<Isa, Format>,
                       std::conditional_t<N == ComputeType::dequantized, operand::F32<Isa, format::q8>,
                                          std::conditional_t<N == ComputeType::i16, operand::I16<Isa>, operand::I8<Isa>>>>;

// Calls body(first, n) for panels [first, first + n) that are packed from rows before they are multiplied: up to `most` at
// once, as many as the staging buffer holds.
template <class Body>
static void for_each_packed(int n_panels, int64_t panel_bytes, int most, Body &&body) {
    const int at_once = static_cast<int>(std::min<int64_t>(most, staging_bytes / panel_bytes));
    for (int first = 0; first < n_panels; first += at_once) {
        body(first, std::min(at_once, n_panels - first));
    }
}

// Scores less the scales of keys: S[r][t] = q[r] . k[t] / key_scales[t]
template <class Isa, class Format, ComputeType N>
void score_tile(const TileSource &source, const LeftOperand &queries, RowBlock &rows) {
    const int64_t multipliers = source.layout.k_scales + panel::multiplier_offset(0, 0);
    using Operand = OperandOf<Isa, Format, N>;
    const auto multiply = [&](int first, int n, const Panels &panels, const Prefetch &next) {
        gemm<Isa, Operand>({.a = static_cast<const typename Operand::Element *>(queries.elements),
                            .lda = queries.ld,
                            .n_rows = rows.n_rows,
                            .panels = panels.at,
                            .panel_bytes = panels.bytes,
                            .n_panels = n,
                            .k = queries.ld,
                            .k_group = queries.group,
                            .c = rows.scores[0] + first * panel::columns,
                            .ldc = panel::tile_tokens,
                            .accumulates = false,
                            .row_scales = queries.scales,
                            .initial_sums = queries.initial_sums,
                            .multipliers = Format::group > 0 ? source.tile + multipliers : nullptr,
                            .prefetch = next});
    };
    const int n_panels = rows.n_tokens / panel::columns;
    const panel::TileLayout &layout = source.layout;
    if (source.tile) {
        return multiply(0, n_panels, stored_panels<Isa, Format, true>(source, 0, n_panels, rows.room),
                        prefetch<Format>(source, rows.n_rows, layout.v_panels, layout.bytes - layout.v_panels));
    }
    if constexpr (!Format::is_scaled) {
        const TileRows &keys = source.rows->keys, &values = source.rows->values;
        const int64_t next_bytes = format::row_bytes(source.view->v_format, source.view->v_head_dim);
        for_each_packed(
            n_panels, layout.k_panel_bytes, panels_at_once<Isa>(std::min(rows.n_rows, Isa::gemm_rows)),
            [&](int first, int n) {
                const RowPrefetch next = prefetch_rows(values, first * panel::columns, n * panel::columns, next_bytes);
                const Panels panels = pack_keys<Isa, Format>(source, keys, first, n, rows.room, next.while_packed);
                multiply(first, n, panels, next.while_multiplied);
            });
    }
}

// Reorders the elements of each granule for operand::I16: first, third, second, fourth.
KVLANE_INLINE void order_i16(int16_t *x, int n) {
    for (int i = 0; i < n; i += operand::i16_granule) {
        std::swap(x[i + 1], x[i + 2]);
    }
}

// The initial accumulator of a product of n bytes.
template <class Isa>
KVLANE_INLINE int32_t initial_sum(const int8_t *x, int n) {
    if constexpr (Isa::panel_offset != 0) {
        return -Isa::panel_offset * Isa::sum_of(x, n);
    }
    return 0;
}

// Multiplies weights by the multipliers of a group of columns, one per token: to f32, or to integers of 16 or 8 bits.
template <class Isa>
static void scale_weights(const std::byte *multipliers, RowBlock &rows) {
    const auto unit = Isa::broadcast(1.0f / q4::one);
    for (int r = 0; r < rows.n_rows; ++r) {
        auto *const to = reinterpret_cast<float *>(rows.group_weights.elements[r]);
        for (int t = 0; t < rows.n_tokens; t += Isa::lanes) {
            Isa::store(to + t, Isa::load(rows.scores[r] + t) * (Isa::load(format::q8{}, multipliers + t) * unit));
        }
    }
}
template <class Isa, ComputeType N>
static void scale_integer_weights(const std::byte *multipliers, RowBlock &rows) {
    constexpr int bits = N == ComputeType::i16 ? 16 : 8, unit = 1 << (bits - 8), n = panel::tile_tokens;
    GroupWeights &group = rows.group_weights;
    alignas(64) int16_t factors[n], products[n];
    std::transform(multipliers, multipliers + n, factors,
                   [](std::byte b) { return static_cast<int16_t>(std::to_integer<int8_t>(b) * unit); });
    if constexpr (N == ComputeType::i16) {
        order_i16(factors, n);
    }
    for (int r = 0; r < rows.n_rows; ++r) {
        auto *const to = N == ComputeType::i16 ? reinterpret_cast<int16_t *>(group.elements[r]) : products;
        for (int t = 0; t < rows.n_tokens; t += 2 * Isa::lanes) {
            Isa::multiply_words(to + t, rows.weights[r] + t, factors + t);
        }
        group.scales[r] = rows.weight_scales[r] * (1 << (16 - bits));
        if constexpr (N == ComputeType::i8) {
            auto *const bytes = reinterpret_cast<int8_t *>(group.elements[r]);
            std::transform(products, products + rows.n_tokens, bytes, [](int16_t x) { return static_cast<int8_t>(x); });
            group.initial_sums[r] = initial_sum<Isa>(bytes, rows.n_tokens);
        }
    }
}

// A block's weights for the columns of one group of values, or for all.
template <class Isa, class Format, ComputeType N>
static LeftOperand weights_of(const TileSource &source, int group, RowBlock &rows) {
    using Element = typename OperandOf<Isa, Format, N>::Element;
    if constexpr (Format::group > 0) {
        const std::byte *const multipliers = source.tile + source.layout.v_scales + panel::multiplier_offset(group, 0);
        if constexpr (are_integers(N)) {
            scale_integer_weights<Isa, N>(multipliers, rows);
        } else {
            scale_weights<Isa>(multipliers, rows);
        }
        const GroupWeights &of = rows.group_weights;
        return {of.elements, GroupWeights::row_bytes / sizeof(Element), rows.n_tokens, of.scales, of.initial_sums};
    } else if constexpr (are_integers(N)) {
        return {rows.weights, panel::tile_tokens, rows.n_tokens, rows.weight_scales, nullptr};
    } else {
        return {rows.scores, panel::tile_tokens, rows.n_tokens, nullptr, nullptr};
    }
}

// O[r] += sum over t of P[r][t] v[t]
template <class Isa, class Format, ComputeType N>
void sum_tile(const TileSource &source, RowBlock &rows) {
    using Operand = OperandOf<Isa, Format, N>;
    const auto multiply = [&](const LeftOperand &weights, int first, int n, const Panels &panels, const Prefetch &next) {
        gemm<Isa, Operand>({.a = static_cast<const typename Operand::Element *>(weights.elements),
                            .lda = weights.ld,
                            .n_rows = rows.n_rows,
                            .panels = panels.at,
                            .panel_bytes = panels.bytes,
                            .n_panels = n,
                            .k = rows.n_tokens,
                            .k_group = weights.group,
                            .c = rows.o + first * panel::columns,
                            .ldc = rows.ldo,
                            .accumulates = true,
                            .row_scales = weights.scales,
                            .initial_sums = weights.initial_sums,
                            .multipliers = nullptr,
                            .prefetch = next});
    };
    constexpr int group = Format::group > 0 ? Format::group / panel::columns : KVL_MAX_HEAD_DIM / panel::columns;
    const auto n_panels = static_cast<int>(panel::round_up(source.view->v_head_dim, panel::columns) / panel::columns);
    if (source.tile) {
        const Prefetch next = prefetch<Format>(source, rows.n_rows, source.layout.bytes, source.layout.v_panels);
        for (int first = 0; first < n_panels; first += group) {
            const int n = std::min(group, n_panels - first);
            const LeftOperand weights = weights_of<Isa, Format, N>(source, first / group, rows);
            multiply(weights, first, n, stored_panels<Isa, Format, false>(source, first, n, rows.room),
                     next.part(first, n, n_panels));
        }
    }
    if constexpr (!Format::is_scaled) {
        if (source.rows) {
            const TileRows &values = source.rows->values;
            const RowPrefetch next = prefetch_rows(source.rows->next_keys, 0, panel::tile_tokens,
                                                   format::row_bytes(source.view->k_format, source.view->head_dim));
            const LeftOperand weights = weights_of<Isa, Format, N>(source, 0, rows);
            for_each_packed(n_panels, packed_value_bytes<Format>, n_panels, [&](int first, int n) {
                const Panels panels =
                    pack_values<Isa, Format>(source, values, rows.n_tokens, first, n, rows.room, next.while_packed);
                multiply(weights, first, n, panels, next.while_multiplied);
            });
        }
    }
}

// O[r][column, column + lanes) += sum over visible tokens t of P[r][t] v[t], for one panel of values.
template <class Isa, class Stored>
static void sum_visible_lanes(const std::byte *panel, const float *weights, uint64_t visible, int column, float *o) {
    constexpr int granule = panel::granule<Stored>;
    auto sum = Isa::broadcast(0);
    for (uint64_t left = visible; left != 0; left &= left - 1) {
        const int t = std::countr_zero(left);
        const std::byte *at = panel + panel::offset(Stored::index, t - t % granule, column);
        const auto value = t % granule == 0 ? Isa::template granule_element<0>(Stored{}, at)
                                            : Isa::template granule_element<granule - 1>(Stored{}, at);
        sum = Isa::fma(Isa::broadcast(weights[t]), value, sum);
    }
    Isa::store(o + column, Isa::load(o + column) + sum);
}

// sum_tile in f32 where the values of hidden tokens may be NaN or infinite: sums visible tokens only, in the same order.
template <class Isa, class Format>
void sum_visible(const TileSource &source, const uint64_t *visible, RowBlock &rows) {
    const auto n_panels = static_cast<int>(panel::round_up(source.view->v_head_dim, panel::columns) / panel::columns);
    for (int p = 0; p < n_panels; ++p) {
        const std::byte *const panel =
            source.tile ? source.tile + source.layout.v_panels + p * source.layout.v_panel_bytes
                        : pack_values<Isa, Format>(source, source.rows->values, rows.n_tokens, p, 1, rows.room, {}).at;
        for (int r = 0; r < rows.n_rows; ++r) {
            float *const o = rows.o + r * rows.ldo + p * panel::columns;
            for (int column = 0; column < panel::columns; column += Isa::lanes) {
                sum_visible_lanes<Isa, Format>(panel, rows.scores[r], visible[r], column, o);
            }
        }
    }
}

// Updates a query row's maximum with a tile's scores and rescales the previous sums.
template <class Isa>
KVLANE_INLINE void update_maximum(const float *scores, int r, RowBlock &rows) {
    using Vec = typename Isa::Vec;
    Vec largest = Isa::load(scores);
    for (int t = Isa::lanes; t < rows.n_tokens; t += Isa::lanes) {
        largest = Isa::max(largest, Isa::load(scores + t));
    }
    const float m = Isa::reduce_max(largest), before = rows.m[r];
    if (!(m > before)) {
        return;
    }
    rows.m[r] = m;
    if (before == minus_infinity) {
        return;  // no token visible before
    }
    const Vec correction = Isa::broadcast(exp_of<Isa>(before - m));
    Isa::store(rows.l[r], Isa::load(rows.l[r]) * correction);
    float *const o = rows.o + r * rows.ldo;
    for (int d = 0; d < rows.ldo; d += Isa::lanes) {
        Isa::store(o + d, Isa::load(o + d) * correction);
    }
}

// Quantizes a query row's weights to 16-bit integers.
template <class Isa>
KVLANE_INLINE void quantize_weights(const float *weights, int r, RowBlock &rows) {
    const float largest = largest_of<Isa>(reinterpret_cast<const std::byte *>(weights), rows.n_tokens);
    const float scale = scale_for(largest, most_int16);
    const auto factor = Isa::broadcast(scale > 0 ? 1 / scale : 0);
    rows.weight_scales[r] = scale;
    for (int t = 0; t < rows.n_tokens; t += Isa::lanes) {
        Isa::store_int16s(rows.weights[r] + t, Isa::load(weights + t) * factor);
    }
}

// Sets the elements of the tokens whose bits are set, which mostly follow each other.
static inline void fill_tokens(uint64_t tokens, float value, float *of_tokens) {
    while (tokens != 0) {
        const int first = std::countr_zero(tokens), n = std::countr_one(tokens >> first);
        std::fill_n(of_tokens + first, n, value);
        tokens &= ~(low_bits(n) << first);
    }
}

// Replaces scores by weights exp(s - m), adds these to l, and turns them into the operand of the value product: multiplied
// by the value scales, and quantized if products are integer. The scales of hidden tokens may be NaN.
template <class Isa, ComputeType V>
KVLANE_INLINE void exponentiate(float *scores, const float *value_scales, uint64_t hidden, int r, RowBlock &rows) {
    using Vec = typename Isa::Vec;
    const Vec m = Isa::broadcast(reference_of(rows.m[r]));
    Vec sum = Isa::load(rows.l[r]);
    for (int t = 0; t < rows.n_tokens; t += Isa::lanes) {
        Vec weight = exp<Isa>(Isa::load(scores + t) - m);
        sum = sum + weight;
        if constexpr (V != ComputeType::f32) {
            weight = weight * Isa::load(value_scales + t);
        }
        Isa::store(scores + t, weight);
    }
    Isa::store(rows.l[r], sum);
    if constexpr (V != ComputeType::f32) {
        fill_tokens(hidden, 0, scores);
    }
    if constexpr (are_integers(V)) {
        quantize_weights<Isa>(scores, r, rows);
    }
    if constexpr (V == ComputeType::i16) {
        order_i16(rows.weights[r], rows.n_tokens);
    }
}

// s = softcap * tanh((scale * query_factors[r] * key_scales[t] * S[t] + offsets[r]) / softcap) + slope * distance +
// biases[t]; -infinity for hidden tokens.
template <class Isa>
KVLANE_INLINE void modify_scores(const ScoreMods &rules, int r, int n_tokens, float *scores) {
    const auto factor = Isa::broadcast(rules.scale * rules.query_factors[r]), offset = Isa::broadcast(rules.offsets[r]);
    for (int t = 0; t < n_tokens; t += Isa::lanes) {
        auto score = Isa::load(scores + t);
        if (rules.key_scales) {
            score = score * Isa::load(rules.key_scales + t);
        }
        Isa::store(scores + t, Isa::fma(score, factor, offset));
    }
    if (rules.softcap != 0) {
        cap_scores<Isa>(scores, n_tokens, rules.softcap);
    }
    if (rules.slopes) {
        add_distances<Isa>(scores, n_tokens, rules.slopes[r], rules.distances[r]);
    }
    uint64_t visible = rules.visible[r];
    if (rules.biases) {
        for (uint64_t left = visible; left != 0; left &= left - 1) {
            const int t = std::countr_zero(left);
            scores[t] += rules.biases[r][t];
        }
    }
    fill_tokens(~visible & low_bits(n_tokens), minus_infinity, scores);
}

// Online softmax update for one tile: turns scores into weights.
template <class Isa, ComputeType V>
void softmax_tile(const ScoreMods &rules, RowBlock &rows) {
    for (int r = 0; r < rows.n_rows; ++r) {
        float *const scores = rows.scores[r];
        modify_scores<Isa>(rules, r, rows.n_tokens, scores);
        update_maximum<Isa>(scores, r, rows);
        exponentiate<Isa, V>(scores, rules.value_scales, ~rules.visible[r] & low_bits(rows.n_tokens), r, rows);
    }
}

// Packs a query as the left operand of the key product, padded with zeros to whole granules. For integer keys the query is
// first scaled by a power of two, so that no sum overflows before it is multiplied by the key scales; scores are multiplied
// by `factor` afterwards. Its elements are multiplied by the unit of the multipliers that keys have for a group of elements.
struct PackedQuery {
    void *to;
    float *scale;           // of the quantized query
    int32_t *initial_sums;  // [groups][max_rows], initial accumulators
    float *factor;          // multiplies the scores
};
template <class Isa, ComputeType K>
static void pack_query(const float *query, int head_dim, int group, float unit, const PackedQuery &packed) {
    const auto padded = static_cast<int>(panel::round_up(head_dim, panel::columns));
    alignas(64) float room[KVL_MAX_HEAD_DIM + panel::columns];
    auto *const floats = are_integers(K) ? room : static_cast<float *>(packed.to);
    *packed.scale = *packed.factor = 1;
    if constexpr (K == ComputeType::f32) {
        std::copy_n(query, head_dim, floats);
    } else {
        *packed.factor = normalize<Isa>(query, head_dim, floats);
    }
    std::fill_n(floats + head_dim, padded - head_dim, 0.0f);
    if constexpr (K == ComputeType::dequantized) {
        std::transform(floats, floats + head_dim, floats, [=](float x) { return x * unit; });
    } else if constexpr (K == ComputeType::i16) {
        auto *const words = static_cast<int16_t *>(packed.to);
        *packed.scale = quantize<Isa>(floats, padded, std::min(group, padded), words) * unit;
        order_i16(words, padded);
    } else if constexpr (K == ComputeType::i8) {
        auto *const bytes = static_cast<int8_t *>(packed.to);
        *packed.scale = quantize<Isa>(floats, padded, padded, bytes) * unit;
        for (int i = 0; i * group < padded; ++i) {
            packed.initial_sums[i * max_rows] = initial_sum<Isa>(bytes + i * group, std::min(group, padded - i * group));
        }
    }
}

}  // namespace kvlane

#pragma once

// The layout of packed tiles: every offset and size. A tile holds the keys and values of 64 consecutive tokens of one KV
// head:
//
//   K panels | K scales | V panels | V scales
//
// A panel is the right operand of a matrix product C[rows][16] = A[rows][k] * B[k][16], with g consecutive elements of k,
// one granule, of each of its 16 columns side by side:
//
//   K panel  [head_dim / g][16 tokens][g]  4 per tile; k runs over the elements of a key, rounded up to 16
//   V panel  [64 / g][16 elements][g]      v_head_dim / 16 per tile, rounded up; k runs over the tokens
//   scales   f32 [64]; for q4, also group multipliers: bytes [dim / 32, rounded up][64]
//
// The padding of panels is zero, and so is the memory of tokens that are not stored yet.

#include <cstddef>
#include <cstdint>

#include "../formats.hpp"

namespace kvlane::panel {

static constexpr int columns = 16;
static constexpr int tile_tokens = KVL_TILE_TOKENS;
static constexpr int key_panels = tile_tokens / columns;   // per tile
static constexpr int part_alignment = KVL_TILE_ALIGNMENT;  // of a tile and its parts

// Consecutive elements of k that are stored side by side, by format: 4 bytes, as dot-product instructions require; one
// element for f16, for which no dot-product instruction is used.
static constexpr int granules[format::count] = {1, 1, 2, 4, 8};

template <class Format>
static constexpr int granule = Format::bits == 16 ? 1 : 32 / Format::bits;
template <>
inline constexpr int granule<format::bf16> = 2;

static constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Bytes of one granule of one column, and of a panel's line, one granule of every column.
static inline int granule_bytes(kvl_format format) { return granules[format] * format::bits_of[format] / 8; }
static inline int line_bytes(kvl_format format) { return columns * granule_bytes(format); }

// Bytes of a panel of k rows, rounded up.
static constexpr int k_multiple = 16;
static inline int64_t bytes(kvl_format format, int64_t k) {
    return round_up(k, k_multiple) / granules[format] * line_bytes(format);
}

// Byte offset in a panel of element (k, column). In a q4 granule, elements 0 to 3 are the low nibbles of its bytes, and
// elements 4 to 7 the high nibbles.
static inline int64_t offset(kvl_format format, int64_t k, int column) {
    const int g = granules[format];
    const int64_t granule = k / g * line_bytes(format) + column * granule_bytes(format);
    return granule + (format == format::index_q4 ? k % 4 : k % g * (format::bits_of[format] / 8));
}

// Byte offset of a token's scale, and of the multiplier of one of its groups.
static inline int64_t scale_offset(int token) { return token * static_cast<int64_t>(sizeof(float)); }
static inline int64_t multiplier_offset(int group, int token) {
    return scale_offset(tile_tokens) + group * tile_tokens + token;
}

// Bytes of a tile's scales and multipliers for rows of dim elements.
static inline int64_t scale_bytes(kvl_format format, int64_t dim) {
    const int group = format::group_of[format];
    const int64_t n_groups = group > 0 ? round_up(dim, group) / group : 0;
    return format::is_scaled(format) ? multiplier_offset(static_cast<int>(n_groups), 0) : 0;
}

// Byte offsets in a tile, and its size.
struct TileLayout {
    int64_t k_panel_bytes;  // from one K panel to the next
    int64_t k_scales;
    int64_t v_panels;
    int64_t v_panel_bytes;
    int64_t v_scales;
    int64_t bytes;
};

static inline TileLayout tile_layout(kvl_format k_format, uint32_t head_dim, kvl_format v_format, uint32_t v_head_dim) {
    TileLayout layout;
    layout.k_panel_bytes = bytes(k_format, head_dim);
    layout.v_panel_bytes = bytes(v_format, tile_tokens);
    layout.k_scales = round_up(key_panels * layout.k_panel_bytes, part_alignment);
    layout.v_panels = layout.k_scales + round_up(scale_bytes(k_format, head_dim), part_alignment);
    layout.v_scales = layout.v_panels + round_up(v_head_dim, columns) / columns * layout.v_panel_bytes;
    layout.bytes = layout.v_scales + round_up(scale_bytes(v_format, v_head_dim), part_alignment);
    return layout;
}

// Sets the data of a tile's tokens from `from` on to zero.
void clear_tokens(kvl_format k_format, uint32_t head_dim, kvl_format v_format, uint32_t v_head_dim, int from,
                  std::byte *tile);

}  // namespace kvlane::panel

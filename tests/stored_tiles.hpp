#pragma once

// What lies in a cache's tiles, element by element.

#include <algorithm>
#include <vector>

#include "../kernels/formats/panel.hpp"
#include "support.hpp"

namespace test {

/// The tiles of a layer that lie in one span, read as the layout says.
class StoredTiles {
public:
    explicit StoredTiles(const kvlane::Cache &cache, uint32_t layer = 0)
        : view(cache.view(layer)),
          layout(kvlane::panel::tile_layout(view.k_format, view.head_dim, view.v_format, view.v_head_dim)) {
        REQUIRE(view.flags == KVL_VIEW_TILES);
        REQUIRE(view.n_spans == 1);
    }

    const std::byte *tile(int64_t token, uint32_t head) const {
        return static_cast<const std::byte *>(view.spans->k) + head * view.k_head_stride_bytes +
               token / tile_tokens * view.k_token_stride_bytes;
    }

    /// Bits of an element, or of its code.
    uint32_t bits(bool keys, int64_t token, uint32_t head, uint32_t d) const {
        const Bits at = element(keys, token % tile_tokens, d);
        uint32_t bits = 0;
        std::memcpy(&bits, tile(token, head) + at.offset, static_cast<size_t>(at.n + 7) / 8);
        return bits >> at.shift & (UINT32_MAX >> (32 - at.n));
    }
    float scale(bool keys, int64_t token, uint32_t head) const {
        float scale;
        std::memcpy(&scale, scales(keys, tile(token, head)) + kvlane::panel::scale_offset(in_tile(token)), sizeof scale);
        return scale;
    }
    int multiplier(bool keys, int64_t token, uint32_t head, uint32_t group) const {
        const int64_t at = kvlane::panel::multiplier_offset(static_cast<int>(group), in_tile(token));
        return std::to_integer<int8_t>(scales(keys, tile(token, head))[at]);
    }

    /// Whether all that there is of n_tokens tokens' room is zero, but for `len` tokens themselves.
    bool is_zero_beside(int64_t len, int64_t n_tokens) const {
        for (uint32_t head = 0; head < view.n_kv_heads; ++head) {
            for (int64_t first = 0; first < n_tokens; first += tile_tokens) {
                std::vector<std::byte> rest(tile(first, head), tile(first, head) + view.k_token_stride_bytes);
                for (int64_t token = 0; token < std::min(tile_tokens, len - first); ++token) {
                    clear(true, token, rest);
                    clear(false, token, rest);
                }
                if (std::any_of(rest.begin(), rest.end(), [](std::byte b) { return b != std::byte{0}; })) {
                    return false;
                }
            }
        }
        return true;
    }

    const kvl_view view;
    const kvlane::panel::TileLayout layout;

private:
    static constexpr int64_t tile_tokens = kvlane::panel::tile_tokens;

    // n bits behind `shift` others of the bytes from an offset in a tile on.
    struct Bits {
        int64_t offset;
        int shift;
        int n;
    };

    static int in_tile(int64_t token) { return static_cast<int>(token % tile_tokens); }
    kvl_format format(bool keys) const { return keys ? view.k_format : view.v_format; }

    Bits element(bool keys, int64_t token, uint32_t d) const {
        const int64_t k = keys ? d : token, column = keys ? token : d;
        const int64_t panel = column / kvlane::panel::columns * (keys ? layout.k_panel_bytes : layout.v_panel_bytes);
        const int64_t in_panel = kvlane::panel::offset(format(keys), k, static_cast<int>(column % kvlane::panel::columns));
        return {(keys ? 0 : layout.v_panels) + panel + in_panel, format(keys) == KVL_Q4 && k % 8 >= 4 ? 4 : 0,
                static_cast<int>(row_bytes(format(keys), 8))};
    }

    template <class Byte>
    Byte *scales(bool keys, Byte *tile) const {
        return tile + (keys ? layout.k_scales : layout.v_scales);
    }

    void clear(bool keys, int64_t token, std::vector<std::byte> &tile) const {
        const uint32_t dim = keys ? view.head_dim : view.v_head_dim;
        for (uint32_t d = 0; d < dim; ++d) {
            const Bits at = element(keys, token, d);
            std::byte *const bytes = &tile[static_cast<size_t>(at.offset)];
            if (at.n == 4) {
                *bytes &= at.shift == 0 ? std::byte{0xf0} : std::byte{0x0f};
            } else {
                std::memset(bytes, 0, static_cast<size_t>(at.n) / 8);
            }
        }
        if (is_scaled(kvlane::Format{format(keys)})) {
            std::byte *const entries = scales(keys, tile.data());
            std::memset(entries + kvlane::panel::scale_offset(in_tile(token)), 0, sizeof(float));
            for (int group = 0; format(keys) == KVL_Q4 && group * 32 < static_cast<int>(dim); ++group) {
                entries[kvlane::panel::multiplier_offset(group, in_tile(token))] = std::byte{0};
            }
        }
    }
};

}  // namespace test

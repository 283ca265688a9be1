#include "panel.hpp"

#include <algorithm>
#include <cstring>

namespace kvlane::panel {
namespace {

// Elements [k, end) of a granule of every column of a panel of values.
void clear_granule(kvl_format format, int64_t k, int64_t end, std::byte *panel) {
    for (; k < end; ++k) {
        for (int column = 0; column < columns; ++column) {
            std::byte *const element = panel + offset(format, k, column);
            if (format == format::index_q4) {
                *element &= k % 8 < 4 ? std::byte{0xf0} : std::byte{0x0f};
            } else {
                std::memset(element, 0, static_cast<size_t>(format::bits_of[format]) / 8);
            }
        }
    }
}

void clear_scales(kvl_format format, int64_t dim, int from, std::byte *scales) {
    const auto n = static_cast<size_t>(tile_tokens - from);
    if (format::is_scaled(format)) {
        std::memset(scales + scale_offset(from), 0, n * sizeof(float));
    }
    for (int group = 0; format::group_of[format] * group < dim && format::group_of[format] > 0; ++group) {
        std::memset(scales + multiplier_offset(group, from), 0, n);
    }
}

}  // namespace

void clear_tokens(kvl_format k_format, uint32_t head_dim, kvl_format v_format, uint32_t v_head_dim, int from,
                  std::byte *tile) {
    const TileLayout layout = tile_layout(k_format, head_dim, v_format, v_head_dim);
    for (int panel = from / columns; panel < key_panels; ++panel) {
        const int column = std::max(0, from - panel * columns);
        const auto n = static_cast<size_t>(columns - column) * static_cast<size_t>(granule_bytes(k_format));
        for (int64_t k = 0; k < head_dim; k += granules[k_format]) {
            std::memset(tile + panel * layout.k_panel_bytes + offset(k_format, k, column), 0, n);
        }
    }
    const int64_t whole = round_up(from, granules[v_format]), first_line = offset(v_format, whole, 0);
    for (int64_t d = 0; d < v_head_dim; d += columns) {
        std::byte *const panel = tile + layout.v_panels + d / columns * layout.v_panel_bytes;
        clear_granule(v_format, from, whole, panel);
        std::memset(panel + first_line, 0, static_cast<size_t>(layout.v_panel_bytes - first_line));
    }
    clear_scales(k_format, head_dim, from, tile + layout.k_scales);
    clear_scales(v_format, v_head_dim, from, tile + layout.v_scales);
}

}  // namespace kvlane::panel

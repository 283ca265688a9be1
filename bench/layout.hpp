#pragma once

// Memory that others than kvlane's cache lay out.

#include <cstdint>
#include <vector>

#include "kvlane/kvlane.hpp"

namespace bench {

enum class Layout {
    head_major,   // a cache's own: [kv_head][token][dim]
    token_major,  // [token][kv_head][dim]
    blocks_16,    // [block][kv_head][token][dim], blocks of so many tokens in random order
    blocks_256,
    prefix,  // head_major; all sequences begin with the first one's tokens
    latent,  // head_major; values are what keys begin with
    finer    // head_major; the first and the newest tokens in f16
};

inline constexpr uint32_t latent_v_head_dim = 512;
inline constexpr int64_t finer_first = 64, finer_newest = 256;  // tokens

// The memory that a cache's view shows, whose rows are random numbers, as if it had another layout. Of views alike, the
// blocks are the same.
class LaidOut {
public:
    LaidOut(Layout layout, int64_t n_tokens);
    // Until the next call.
    kvl_view view(kvl_view of_cache);
    // Its tokens behind the first n of another's, until the next call.
    kvl_view view_behind(const kvl_view &other, int64_t n_tokens, kvl_view of_cache);

private:
    Layout layout_;
    kvl_span spans_[2];
    std::vector<int32_t> blocks_;
};

}  // namespace bench

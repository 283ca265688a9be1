#pragma once

// Views of memory that others than kvlane's cache lay out.

#include <cstdint>
#include <vector>

#include "shape.hpp"

namespace bench {

// A sequence's n tokens as a shape lays them out. Of the same shape and as many tokens, the blocks are the same.
class LaidOut {
public:
    LaidOut(const Shape &shape, int64_t n_tokens);
    // Rows at k and at v, of which latent has no use: until the next call.
    kvl_view rows(const void *k, const void *v);
    // The tiles of a cache.
    kvl_view tiles(kvl_view of_cache) const;
    // These behind the first n of another sequence's, until the next call.
    kvl_view tiles_behind(const kvl_view &other, int64_t n_tokens, kvl_view of_cache);

private:
    kvl_view in_blocks(kvl_view view) const;

    Shape shape_;
    int64_t n_tokens_;
    kvl_span spans_[2];
    std::vector<int32_t> blocks_;
};

}  // namespace bench

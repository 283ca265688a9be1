#pragma once

#include <algorithm>
#include <vector>

#include "storage.hpp"

// One sequence's keys and values: which of the stored tokens count.
struct kvl_cache {
    kvlane::Storage storage;
    int64_t len = 0;
    std::vector<int64_t> pending;  // of each layer: tokens appended since the last advance

    int64_t visible(uint32_t layer) const { return len + pending[layer]; }
};

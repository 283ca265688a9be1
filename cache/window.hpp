#pragma once

// Which tokens of a layer are kept finer than its integers: the first ones, and the newest in a ring.

#include <algorithm>
#include <array>
#include <cstdint>

#include "../kernels/kernel_table.hpp"

namespace kvlane {

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Tokens [first, end) that are stored in the same planes.
struct Section {
    bool is_finer;
    int64_t first;
    int64_t end;
};

// Everything is counted in whole tiles: a tile is of one section, and with that the bits of a result depend on the
// sections alone. A tile turns to integers when all of it is older than the newest n_recent tokens.
class Window {
public:
    // None: all tokens are stored alike.
    explicit Window(int64_t max_tokens = 0) : max_tokens_(max_tokens), aged_(max_tokens) {}

    Window(int64_t n_first, int64_t n_recent, int64_t max_tokens)
        : is_used_(true),
          n_first_(round_up(n_first, tile_tokens)),
          n_recent_(round_up(n_recent, tile_tokens)),
          max_tokens_(max_tokens),
          aged_(n_first_) {}

    bool is_used() const { return is_used_; }
    int64_t n_first() const { return n_first_; }
    int64_t n_recent() const { return n_recent_; }

    // Rows of the finer planes: the first tokens', then the ring's.
    int64_t n_rows() const { return is_used_ ? std::min(n_first_ + ring(), round_up(max_tokens_, tile_tokens)) : 0; }
    int64_t row(int64_t token) const { return token < n_first_ ? token : n_first_ + (token - n_first_) % ring(); }

    // Tokens from `token` on that stand in consecutive rows.
    int64_t straight_rows(int64_t token) const {
        return token < n_first_ ? n_first_ - token : n_first_ + ring() - row(token);
    }

    // Of all tokens that the cache may come to hold, in order; some may be empty.
    std::array<Section, 3> sections() const {
        const int64_t first = std::min(n_first_, max_tokens_);
        const int64_t aged = std::min(aged_, max_tokens_);
        return {
            {{true, 0, first}, {false, first, aged}, {true, aged, is_used_ ? std::min(aged + ring(), max_tokens_) : aged}}};
    }

    // Where the newest tokens begin: those before it, but for the first ones, are integers.
    int64_t aged() const { return aged_; }
    void set_aged(int64_t aged) { aged_ = aged; }

    // Where they should, at len tokens.
    int64_t aged_at(int64_t len) const { return std::max(aged_, len / tile_tokens * tile_tokens - n_recent_); }

    // And where they must, with len tokens left: the tile that holds the end is filled again.
    int64_t aged_after_truncate(int64_t len) const {
        return is_used_ ? std::min(aged_, std::max(n_first_, len / tile_tokens * tile_tokens)) : aged_;
    }

private:
    // The tile that is being filled is finer too.
    int64_t ring() const { return n_recent_ + tile_tokens; }

    bool is_used_ = false;
    int64_t n_first_ = 0;
    int64_t n_recent_ = 0;
    int64_t max_tokens_;
    int64_t aged_;
};

}  // namespace kvlane

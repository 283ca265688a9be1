#pragma once

// Which tokens of a layer of integers are kept finer: the first ones, and the newest in a ring.

#include <algorithm>
#include <array>
#include <cstdint>

#include "../kernels/kernel_table.hpp"

namespace kvlane {

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Tokens [first, end) that are read from the same planes.
struct Section {
    bool is_finer;
    int64_t first;
    int64_t end;
};

// Tokens are read from finer planes or from those of integers by whole tiles: bits then depend on the length alone. They are
// encoded to integers one by one as they age, ahead of that, so that no append waits for a tile of them.
class FinerTokens {
public:
    // None: all tokens are stored alike.
    explicit FinerTokens(int64_t max_tokens = 0) : max_tokens_(max_tokens), aged_(max_tokens), encoded_(max_tokens) {}

    FinerTokens(int64_t n_first, int64_t n_recent, int64_t max_tokens)
        : is_used_(true),
          n_first_(round_up(n_first, tile_tokens)),
          n_recent_(round_up(n_recent, tile_tokens)),
          max_tokens_(max_tokens),
          aged_(n_first_),
          encoded_(n_first_) {}

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
        const int64_t end = is_used_ ? std::min(aged + ring(), max_tokens_) : aged;
        return {{{true, 0, first}, {false, first, aged}, {true, aged, end}}};
    }

    // Tokens before this one, but for the first ones, are read as integers,
    int64_t aged() const { return aged_; }
    // and up to this one they are encoded.
    int64_t encoded() const { return encoded_; }

    // What is to be encoded once there are len tokens.
    int64_t encoded_at(int64_t len) const { return std::max(encoded_, len - n_recent_); }

    // There are len tokens, encoded up to encoded_at(len).
    void grow(int64_t len) {
        encoded_ = encoded_at(len);
        aged_ = std::max(aged_, whole_tiles(len) - n_recent_);
    }

    // There are len tokens left. The tile that is filled next is finer, and so read what of it is integers by now; it stays
    // encoded as it is. Returns the first of those.
    int64_t truncate(int64_t len) {
        if (is_used_) {
            aged_ = std::min(aged_, std::max(n_first_, whole_tiles(len)));
            encoded_ = std::min(encoded_, std::max(n_first_, len));
        }
        return aged_;
    }

private:
    static int64_t whole_tiles(int64_t len) { return len / tile_tokens * tile_tokens; }

    // The tile that is being filled is finer too.
    int64_t ring() const { return n_recent_ + tile_tokens; }

    bool is_used_ = false;
    int64_t n_first_ = 0;
    int64_t n_recent_ = 0;
    int64_t max_tokens_;
    int64_t aged_;
    int64_t encoded_;
};

}  // namespace kvlane

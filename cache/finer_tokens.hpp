#pragma once

// Which tokens of a layer of q8 or q4 are kept in f16, by whole tiles: the first ones, and the newest in a ring.

#include <algorithm>
#include <array>
#include <cstdint>

#include "../kernels/formats/panel.hpp"

namespace kvlane {

// Tokens [first, end) that are read from the same pool.
struct Section {
    bool is_finer;
    int64_t first;
    int64_t end;
};

class FinerTokens {
public:
    // None: all tokens are stored alike.
    explicit FinerTokens(int64_t max_tokens = 0) : max_tokens_(max_tokens), quantized_(max_tokens), encoded_(max_tokens) {}

    FinerTokens(int64_t n_first, int64_t n_recent, int64_t max_tokens)
        : is_used_(true),
          n_first_(whole_tiles(n_first + panel::tile_tokens - 1)),
          n_recent_(whole_tiles(n_recent + panel::tile_tokens - 1)),
          max_tokens_(max_tokens),
          quantized_(n_first_),
          encoded_(n_first_) {}

    bool is_used() const { return is_used_; }
    int64_t n_first() const { return n_first_; }
    int64_t n_recent() const { return n_recent_; }

    // Tiles of the finer pool: the first tokens', then the ring's.
    int64_t n_tiles() const {
        const int64_t most = whole_tiles(max_tokens_ + panel::tile_tokens - 1);
        return is_used_ ? std::min(n_first_ + ring(), most) / panel::tile_tokens : 0;
    }
    // That of a token.
    int64_t tile(int64_t token) const {
        return (token < n_first_ ? token : n_first_ + (token - n_first_) % ring()) / panel::tile_tokens;
    }

    // Tokens from `token`, the first of a tile, on whose tiles follow each other.
    int64_t straight_tokens(int64_t token) const {
        return token < n_first_ ? n_first_ - token : n_first_ + ring() - tile(token) * panel::tile_tokens;
    }

    bool is_finer(int64_t token) const { return is_used_ && (token < n_first_ || token >= quantized_); }

    // Of all tokens that the cache may come to hold, in order; some may be empty.
    std::array<Section, 3> sections() const {
        const int64_t first = std::min(n_first_, max_tokens_);
        const int64_t quantized = std::min(quantized_, max_tokens_);
        const int64_t end = is_used_ ? std::min(quantized + ring(), max_tokens_) : quantized;
        return {{{true, 0, first}, {false, first, quantized}, {true, quantized, end}}};
    }

    // Tokens before this one, but for the first ones, are read as integers,
    int64_t quantized() const { return quantized_; }
    // and up to this one they are stored as such: what truncate gives back to f16 keeps its integers.
    int64_t encoded() const { return encoded_; }

    // The same once there are len tokens.
    int64_t quantized_at(int64_t len) const {
        return is_used_ ? std::max(quantized_, whole_tiles(len) - n_recent_) : quantized_;
    }
    void grow(int64_t len) {
        quantized_ = quantized_at(len);
        encoded_ = std::max(encoded_, quantized_);
    }

    // There are len tokens left. The tile that is filled next is kept in f16, and so is what it holds already. Returns the
    // first token of those.
    int64_t truncate(int64_t len) {
        if (is_used_) {
            quantized_ = std::min(quantized_, std::max(n_first_, whole_tiles(len)));
            encoded_ = std::min(encoded_, std::max(n_first_, len));
        }
        return quantized_;
    }

private:
    static int64_t whole_tiles(int64_t len) { return len / panel::tile_tokens * panel::tile_tokens; }

    // The tile that is being filled is finer too.
    int64_t ring() const { return n_recent_ + panel::tile_tokens; }

    bool is_used_ = false;
    int64_t n_first_ = 0;
    int64_t n_recent_ = 0;
    int64_t max_tokens_;
    int64_t quantized_;
    int64_t encoded_;
};

}  // namespace kvlane

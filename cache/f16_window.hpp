#pragma once

// Which tokens of a layer of q8 or q4 are kept in f16: the first ones (attention sinks) and the recent ones, by whole tiles.
//
//     [0, n_first)            f16
//     [n_first, quantized)    q8 or q4
//     [first_held, len)       f16
//
// The last two overlap: a query at position p sees a token in f16 from the cut of p on, max(n_first, p + 1 rounded down to
// whole tiles - n_recent), and quantized before it. Queries of pending tokens have different cuts.

#include <algorithm>
#include <array>
#include <cstdint>

#include "../kernels/formats/panel.hpp"
#include "kvlane/kvlane.h"

namespace kvlane {

// Tokens [first, end) that are stored in the same formats.
struct Section {
    bool is_f16;
    int64_t first;
    int64_t end;
};

class F16Window {
public:
    // Tokens by which a cache can be truncated without loss: f16 tiles are held that much longer than a query needs them.
    static constexpr int64_t truncatable_tokens = KVL_TRUNCATABLE_TOKENS;

    // None: all tokens are in the layer's formats.
    F16Window() = default;

    F16Window(int64_t n_first, int64_t n_recent)
        : is_used_(true),
          n_first_(panel::round_up(n_first, panel::tile_tokens)),
          n_recent_(panel::round_up(n_recent, panel::tile_tokens)),
          first_held_(n_first_),
          quantized_(n_first_) {}

    bool is_used() const { return is_used_; }
    int64_t n_first() const { return n_first_; }
    int64_t n_recent() const { return n_recent_; }

    // The first of the recent tokens whose f16 is held, a tile's first,
    int64_t first_held() const { return first_held_; }
    // and the end of those that are quantized: at least first_held, at most len where that is over n_first.
    int64_t quantized() const { return quantized_; }

    // The cut of the newest of len tokens, as far as f16 is held.
    int64_t cut(int64_t len) const { return std::max(first_held_, whole_tiles(len) - n_recent_); }

    bool is_f16(int64_t token, int64_t len) const { return is_used_ && (token < n_first_ || token >= cut(len)); }

    // Of len tokens, in order; some may be empty.
    std::array<Section, 3> sections(int64_t len) const {
        if (!is_used_) {
            return {{{false, 0, len}, {true, len, len}, {true, len, len}}};
        }
        return {{{true, 0, std::min(n_first_, len)},
                 {false, n_first_, quantized_},
                 {true, first_held_, std::max(first_held_, len)}}};
    }

    // Tokens up to `end` are quantized now.
    void quantize(int64_t end) { quantized_ = std::max(quantized_, end); }

    // There are len tokens, none of which is pending: older f16 is held no longer.
    void advance(int64_t len) { first_held_ = cut(len - truncatable_tokens); }

    // There are len tokens left. The tile that is filled next is kept in f16; where its f16 is held no longer, it has to be
    // made of what is quantized, which stays: quantized once more, these tokens have the same bits. Returns whether it has.
    bool truncate(int64_t len) {
        const int64_t open = std::max(n_first_, whole_tiles(len));
        const bool is_lost = open < first_held_;
        first_held_ = std::min(first_held_, open);
        quantized_ = std::min(quantized_, std::max(n_first_, len));
        return is_lost;
    }

    // No token is quantized any more; all are in f16.
    void forget_quantized() { quantized_ = n_first_; }

private:
    static int64_t whole_tiles(int64_t len) { return len / panel::tile_tokens * panel::tile_tokens; }

    bool is_used_ = false;
    int64_t n_first_ = 0;
    int64_t n_recent_ = 0;
    int64_t first_held_ = 0;
    int64_t quantized_ = 0;
};

}  // namespace kvlane

#pragma once

#include <kvlane/kvlane.hpp>

#include <cstdint>
#include <span>
#include <string>

#include "checkpoint.hpp"

namespace llama2 {

/// How keys and values are stored, and what integers are multiplied in.
struct CacheFormat {
    kvlane::Format k = kvlane::Format::f16;
    kvlane::Format v = kvlane::Format::f16;
    kvlane::Rotation rotation = kvlane::Rotation::by_format;  // of both
    kvlane::Precision precision = kvlane::Precision::by_format;
    int64_t n_first_f16 = 0;  // tokens of q8 and q4 that are kept in f16
    int64_t n_recent_f16 = 0;
};

/// Finds the formats of "q8", or of "f16+q8" where keys and values differ.
/// Errors: kvlane::Error when no format has a name
CacheFormat cache_format(const std::string &name);

/// The keys and values of one text, those of a prefix that it shares with others before its own.
class Sequence {
public:
    /// Pre:    prefix is null, or a sequence of the same config and format without a prefix of its own, that outlives this
    ///         one and stays as it is. With one, n_first_f16 and n_recent_f16 are 0: its tokens and these are of one format.
    ///         Behind a prefix of a multiple of 64 tokens results have the bits of one sequence
    Sequence(const Config &config, const CacheFormat &format, const Sequence *prefix = nullptr);

    /// Tokens, those of the prefix included.
    int64_t len() const { return prefix_len() + cache_.len(); }

    /// Appends the newest tokens' keys and values to one layer; then, when every layer has them, makes them count.
    void append(uint32_t layer, std::span<const float> k, std::span<const float> v) { cache_.append(layer, k, v); }
    void advance(int64_t n_tokens) { cache_.advance(n_tokens); }

    /// Shows all tokens of a layer, the appended ones included: a chain of two where there is a prefix. Good until the
    /// next view.
    kvl_view view(uint32_t layer);

    /// Forgets the tokens from len on.
    /// Pre:    len is at least the prefix's
    void truncate(int64_t len) { cache_.truncate(len - prefix_len()); }

    /// Holds all but the prefix.
    const kvlane::Cache &cache() const { return cache_; }

private:
    int64_t prefix_len() const { return prefix_ ? prefix_->len() : 0; }

    const Sequence *prefix_;
    kvlane::Cache cache_;
    kvl_view own_ = {};  // behind the prefix
};

}  // namespace llama2

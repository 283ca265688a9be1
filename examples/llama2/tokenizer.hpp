#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace llama2 {

/// Text to tokens and back by byte pair encoding, with a vocabulary as llama2.c stores it: int32 longest piece, then for
/// every token float32 score, int32 length, the piece's bytes.
class Tokenizer {
public:
    static constexpr uint32_t bos = 1;  // begins every text
    static constexpr uint32_t eos = 2;  // ends a text, where a model was trained with it

    /// Whether a text ends before a token: eos, or the beginning of another text.
    static bool ends_text(uint32_t token) { return token == bos || token == eos; }

    /// Loads a file.
    /// Errors: the file cannot be read, a length is out of its range, the file does not hold vocab_size pieces exactly
    Tokenizer(const std::string &path, uint32_t vocab_size);

    /// Encodes a text, bos first.
    /// Errors: the vocabulary has no piece for one of the text's bytes
    std::vector<uint32_t> encode(const std::string &text) const;

    /// Returns what to print for a token, given the one before it.
    std::string decode(uint32_t previous, uint32_t token) const;

private:
    void append_character(const std::string &character, std::vector<uint32_t> &tokens) const;
    bool merge_best_pair(std::vector<uint32_t> &tokens) const;

    std::vector<std::string> pieces_;
    std::vector<float> scores_;
    std::unordered_map<std::string, uint32_t> tokens_;
};

}  // namespace llama2

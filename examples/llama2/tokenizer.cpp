#include "tokenizer.hpp"

#include <cctype>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "input_file.hpp"

namespace llama2 {
namespace {

// The piece that stands for a byte which no other piece spells.
std::string byte_piece(unsigned char byte) {
    char piece[7];
    std::snprintf(piece, sizeof piece, "<0x%02X>", byte);
    return piece;
}

std::optional<char> byte_of_piece(std::string_view piece) {
    unsigned byte = 0;
    if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>' ||
        std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16).ptr != piece.data() + 5) {
        return std::nullopt;
    }
    return static_cast<char>(byte);
}

// Length of the UTF-8 character at text[begin]: its first byte and up to three that continue it.
size_t character_length(std::string_view text, size_t begin) {
    size_t length = 1;
    while (length < 4 && begin + length < text.size() && (text[begin + length] & 0xC0) == 0x80) {
        ++length;
    }
    return length;
}

bool is_unprintable(std::string_view text) {
    const auto byte = static_cast<unsigned char>(text.empty() ? ' ' : text[0]);
    return text.size() == 1 && std::iscntrl(byte) && !std::isspace(byte);
}

}  // namespace

Tokenizer::Tokenizer(const std::string &path, uint32_t vocab_size) {
    InputFile file(path);
    const auto longest = file.read<int32_t>();
    uint64_t end = sizeof(int32_t);
    for (uint32_t token = 0; token < vocab_size; ++token) {
        scores_.push_back(file.read<float>());
        const auto length = file.read<int32_t>();
        if (length < 0 || length > longest) {
            file.fail("the length of token " + std::to_string(token) + " is " + std::to_string(length) +
                      "; it must be 0 to the file's longest, " + std::to_string(longest));
        }
        end += sizeof(float) + sizeof(int32_t) + static_cast<uint64_t>(length);
        if (end > file.size()) {
            file.fail("it is " + std::to_string(file.size()) + " bytes, which end inside token " + std::to_string(token) +
                      " of the checkpoint's " + std::to_string(vocab_size));
        }
        std::string piece(static_cast<size_t>(length), '\0');
        file.read(std::span(piece));
        tokens_.emplace(piece, token);
        pieces_.push_back(std::move(piece));
    }
    if (end != file.size()) {
        file.fail("it is " + std::to_string(file.size()) + " bytes; the checkpoint's " + std::to_string(vocab_size) +
                  " tokens end at " + std::to_string(end));
    }
}

std::vector<uint32_t> Tokenizer::encode(const std::string &text) const {
    std::vector<uint32_t> tokens{bos};
    if (text.empty()) {
        return tokens;
    }
    const std::string spaced = ' ' + text;  // the vocabulary was trained on words that follow a space
    for (size_t begin = 0; begin < spaced.size();) {
        const size_t length = character_length(spaced, begin);
        append_character(spaced.substr(begin, length), tokens);
        begin += length;
    }
    while (merge_best_pair(tokens)) {
    }
    return tokens;
}

void Tokenizer::append_character(const std::string &character, std::vector<uint32_t> &tokens) const {
    if (const auto found = tokens_.find(character); found != tokens_.end()) {
        tokens.push_back(found->second);
        return;
    }
    for (const char byte : character) {
        const std::string piece = byte_piece(static_cast<unsigned char>(byte));
        const auto found = tokens_.find(piece);
        if (found == tokens_.end()) {
            throw std::runtime_error("the tokenizer has no token for the prompt's byte " + piece);
        }
        tokens.push_back(found->second);
    }
}

// Replaces the two neighbours whose union has the best score. False: no two neighbours have a union.
bool Tokenizer::merge_best_pair(std::vector<uint32_t> &tokens) const {
    std::optional<uint32_t> best;
    size_t best_at = 0;
    for (size_t i = 1; i + 1 < tokens.size(); ++i) {  // bos never merges
        const auto found = tokens_.find(pieces_[tokens[i]] + pieces_[tokens[i + 1]]);
        if (found != tokens_.end() && (!best || scores_[found->second] > scores_[*best])) {
            best = found->second;
            best_at = i;
        }
    }
    if (best) {
        tokens[best_at] = *best;
        tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
    }
    return best.has_value();
}

std::string Tokenizer::decode(uint32_t previous, uint32_t token) const {
    std::string text = pieces_[token];
    if (const std::optional<char> byte = byte_of_piece(text)) {
        text.assign(1, *byte);
    } else if (previous == bos && text.starts_with(' ')) {
        text.erase(0, 1);  // the space that encode put before the text
    }
    return is_unprintable(text) ? std::string() : text;
}

}  // namespace llama2

// The parts of the llama, on files that the test writes itself.

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint.hpp"
#include "model.hpp"
#include "sampler.hpp"
#include "tokenizer.hpp"

using namespace llama2;

namespace {

// A file of the working directory, for the length of a test.
class TemporaryFile {
public:
    TemporaryFile(const std::string &path, const std::string &bytes) : path_(path) {
        std::ofstream(path, std::ios::binary) << bytes;
    }
    ~TemporaryFile() { std::remove(path_.c_str()); }
    TemporaryFile(const TemporaryFile &) = delete;
    TemporaryFile &operator=(const TemporaryFile &) = delete;

    const std::string &path() const { return path_; }

private:
    std::string path_;
};

template <class T>
void put(std::string &bytes, T value) {
    bytes.append(reinterpret_cast<const char *>(&value), sizeof value);
}

struct Header {
    int32_t dim = 8;
    int32_t hidden_dim = 12;
    int32_t n_layers = 2;
    int32_t n_heads = 4;
    int32_t n_kv_heads = 2;
    int32_t vocab_size = 10;
    int32_t seq_len = 6;
};

// Floats of that header's checkpoint, counted by hand: embedding, layers, final norm, RoPE's tables.
constexpr int n_shared = 10 * 8 + 2 * (8 + 8 * 8 + 4 * 8 + 4 * 8 + 8 * 8 + 8 + 3 * 12 * 8) + 8 + 6 * 2;
constexpr int n_classifier = 10 * 8;

// A checkpoint whose i-th float is i / 1024.
std::string checkpoint_bytes(const Header &header, int n_floats) {
    std::string bytes;
    put(bytes, header);
    for (int i = 0; i < n_floats; ++i) {
        put(bytes, static_cast<float>(i) / 1024);
    }
    return bytes;
}

std::string checkpoint_error(const std::string &bytes) {
    const TemporaryFile file("llama2_test_checkpoint.bin", bytes);
    try {
        const Checkpoint checkpoint(file.path());
        return "no error";
    } catch (const std::runtime_error &error) {
        return error.what();
    }
}

std::string header_error(int32_t Header::*field, int32_t value) {
    Header header;
    header.*field = value;
    return checkpoint_error(checkpoint_bytes(header, n_shared));
}

// A vocabulary: three special pieces, two bytes that no piece spells, and words over a, b and the space.
std::string tokenizer_bytes() {
    const std::vector<std::pair<std::string, float>> pieces = {{"<unk>", 0},  {"\n<s>\n", 0}, {"\n</s>\n", 0}, {"<0xC3>", 0},
                                                               {"<0xA9>", 0}, {"<0x07>", 0},  {" ", 0},        {"a", 0},
                                                               {"b", 0},      {"ab", -2},     {" a", -1},      {" ab", -3}};
    std::string bytes;
    put(bytes, int32_t{6});
    for (const auto &[piece, score] : pieces) {
        put(bytes, score);
        put(bytes, static_cast<int32_t>(piece.size()));
        bytes += piece;
    }
    return bytes;
}

constexpr uint32_t n_pieces = 12;

std::string tokenizer_error(const std::string &bytes, uint32_t vocab_size) {
    const TemporaryFile file("llama2_test_tokenizer.bin", bytes);
    try {
        const Tokenizer tokenizer(file.path(), vocab_size);
        return "no error";
    } catch (const std::runtime_error &error) {
        return error.what();
    }
}

}  // namespace

TEST_CASE("a checkpoint's weights are cut in the file's order") {
    const TemporaryFile file("llama2_test_checkpoint.bin", checkpoint_bytes({}, n_shared));
    const Checkpoint checkpoint(file.path());
    const Weights &weights = checkpoint.weights();
    CHECK(checkpoint.config().head_dim() == 2);
    CHECK(checkpoint.config().kv_dim() == 4);
    CHECK(weights.layers.size() == 2);
    CHECK(weights.layers[1].attention_norm[0] * 1024 == 10 * 8 + 8);
    CHECK(weights.layers[1].query[0] * 1024 == 10 * 8 + 2 * 8 + 8 * 8);
    CHECK(weights.final_norm[0] * 1024 == n_shared - 6 * 2 - 8);
    CHECK(weights.classifier.data() == weights.token_embedding.data());
}

TEST_CASE("a negative vocab_size has a classifier of its own") {
    const TemporaryFile file("llama2_test_checkpoint.bin", checkpoint_bytes({.vocab_size = -10}, n_shared + n_classifier));
    const Checkpoint checkpoint(file.path());
    CHECK(checkpoint.config().vocab_size == 10);
    CHECK(checkpoint.weights().classifier[0] * 1024 == n_shared);
    CHECK(checkpoint.weights().classifier.size() == n_classifier);
}

TEST_CASE("a wrong checkpoint is refused, with the file, the value and what is allowed") {
    const std::string path = "llama2_test_checkpoint.bin: ";
    CHECK(header_error(&Header::dim, 0) == path + "dim is 0; it must be 1 to 1048576");
    CHECK(header_error(&Header::dim, 10) == path + "dim is 10; it must be a multiple of n_heads, 4");
    CHECK(header_error(&Header::dim, 12) == path + "dim / n_heads is 3; it must be a multiple of RoPE's pairs, 2");
    CHECK(header_error(&Header::dim, 8192) == path + "dim / n_heads is 2048; it must be 2 to 1024");
    CHECK(header_error(&Header::hidden_dim, -1) == path + "hidden_dim is -1; it must be 1 to 1048576");
    CHECK(header_error(&Header::n_layers, 0) == path + "n_layers is 0; it must be 1 to 65536");
    CHECK(header_error(&Header::n_heads, 0) == path + "n_heads is 0; it must be 1 to 65536");
    CHECK(header_error(&Header::n_kv_heads, 5) == path + "n_kv_heads is 5; it must be 1 to 4");
    CHECK(header_error(&Header::n_kv_heads, 3) == path + "n_heads is 4; it must be a multiple of n_kv_heads, 3");
    CHECK(header_error(&Header::vocab_size, INT32_MIN) ==
          path + "vocab_size, its sign aside, is 2147483648; it must be 3 to 16777216");
    CHECK(header_error(&Header::seq_len, 0) == path + "seq_len is 0; it must be 1 to 2147483647");

    const std::string whole = checkpoint_bytes({}, n_shared);
    const std::string size = std::to_string(whole.size());
    CHECK(checkpoint_error(whole.substr(0, 27)) == path + "it is 27 bytes; the header of a checkpoint alone is 28");
    CHECK(checkpoint_error(whole + "x") ==
          path + "it is " + std::to_string(whole.size() + 1) + " bytes; a checkpoint with its header is " + size);
    CHECK(checkpoint_error(whole.substr(0, 28)) == path + "it is 28 bytes; a checkpoint with its header is " + size);
}

TEST_CASE("a model takes seq_len tokens, and no more") {
    const TemporaryFile file("llama2_test_checkpoint.bin", checkpoint_bytes({}, n_shared));
    const Checkpoint checkpoint(file.path());
    Model model(checkpoint, {kvlane::Format::f32, kvlane::Format::f32}, nullptr);
    for (uint32_t token = 0; token < checkpoint.config().seq_len; ++token) {
        CHECK(model.forward(token).size() == checkpoint.config().vocab_size);
    }
    CHECK_THROWS_AS(model.forward(0), kvlane::Error);
    CHECK(model.cache().len() == checkpoint.config().seq_len);
}

TEST_CASE("a text is merged by score, byte by byte where no piece spells it") {
    const TemporaryFile file("llama2_test_tokenizer.bin", tokenizer_bytes());
    const Tokenizer tokenizer(file.path(), n_pieces);
    using Tokens = std::vector<uint32_t>;
    CHECK(tokenizer.encode("") == Tokens{1});
    CHECK(tokenizer.encode("ba") == Tokens{1, 6, 8, 7});
    CHECK(tokenizer.encode("ab") == Tokens{1, 11});
    CHECK(tokenizer.encode("aab") == Tokens{1, 10, 9});
    CHECK(tokenizer.encode("\xC3\xA9") == Tokens{1, 6, 3, 4});
    CHECK_THROWS_WITH(tokenizer.encode("c"), "the tokenizer has no token for the prompt's byte <0x63>");
}

TEST_CASE("a token is printed as its piece or its byte") {
    const TemporaryFile file("llama2_test_tokenizer.bin", tokenizer_bytes());
    const Tokenizer tokenizer(file.path(), n_pieces);
    CHECK(tokenizer.decode(1, 11) == "ab");
    CHECK(tokenizer.decode(7, 11) == " ab");
    CHECK(tokenizer.decode(7, 3) == "\xC3");
    CHECK(tokenizer.decode(7, 5) == "");
}

TEST_CASE("a wrong tokenizer is refused") {
    const std::string path = "llama2_test_tokenizer.bin: ";
    const std::string whole = tokenizer_bytes();
    const std::string size = std::to_string(whole.size());
    CHECK(tokenizer_error(whole, n_pieces) == "no error");
    CHECK(tokenizer_error(whole, 2) == path + "it is " + size + " bytes; the checkpoint's 2 tokens end at 30");
    CHECK(tokenizer_error(whole, 13) == path + "it ends after " + size + " bytes, before all that it should hold");
    CHECK(tokenizer_error(whole.substr(0, 14), 12) ==
          path + "it is 14 bytes, which end inside token 0 of the checkpoint's 12");
    std::string wrong_length = whole;
    wrong_length[8] = 7;
    CHECK(tokenizer_error(wrong_length, 12) == path + "the length of token 0 is 7; it must be 0 to the file's longest, 6");
}

TEST_CASE("a choice at temperature 0 is the greatest, and else follows the weights and the seed") {
    const std::vector<float> logits = {0, 3, 3, -1};
    CHECK(Sampler(0, 1).choose(logits) == 1);

    Sampler first(1, 5);
    Sampler second(1, 5);
    int counts[4] = {};
    for (int i = 0; i < 10000; ++i) {
        const uint32_t token = first.choose(logits);
        CHECK(token == second.choose(logits));
        ++counts[token];
    }
    CHECK(counts[1] == doctest::Approx(4797).epsilon(0.05));
    CHECK(counts[2] == doctest::Approx(4797).epsilon(0.05));
    CHECK(counts[0] == doctest::Approx(239).epsilon(0.3));
}

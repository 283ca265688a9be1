// The parts of the llama, on files that the test writes itself.

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint.hpp"
#include "generate.hpp"
#include "model.hpp"
#include "sampler.hpp"
#include "test_files.hpp"
#include "tokenizer.hpp"

using namespace llama2;

namespace {

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

template <class Weight>
std::string checkpoint_bytes(const Header &header, int n_floats, Weight weight) {
    std::string bytes;
    put(bytes, header);
    for (int i = 0; i < n_floats; ++i) {
        put(bytes, weight(i));
    }
    return bytes;
}

// A checkpoint whose i-th float is i / 1024.
std::string checkpoint_bytes(const Header &header, int n_floats) {
    return checkpoint_bytes(header, n_floats, [](int i) { return static_cast<float>(i) / 1024; });
}

// A model that writes texts with some variety, of up to 150 tokens.
class RandomModel {
public:
    explicit RandomModel(uint32_t seed)
        : file_("llama2_test_random.bin", bytes(seed)), checkpoint_(load_checkpoint(file_.path())) {}

    Model model(const CacheFormat &format) const { return Model(checkpoint_, format, nullptr); }
    Model model(kvlane::Format format) const { return model({.k = format, .v = format}); }

private:
    static std::string bytes(uint32_t seed) {
        std::mt19937 random(seed);
        return checkpoint_bytes({.seq_len = 150}, n_shared + (150 - 6) * 2,
                                [&](int) { return static_cast<float>(random() % 2001) / 1000 - 1; });
    }

    TemporaryFile file_;
    Checkpoint checkpoint_;
};

using Tokens = std::vector<uint32_t>;

struct Written {
    Tokens text;
    Effort effort;
};

// The text that follows a prompt, of which the model has run some tokens before.
Written written(Model &model, const Tokens &prompt, uint32_t most_drafted, float temperature = 0, size_t n_run_before = 0) {
    Written w{{prompt[0]}, {}};
    Sequence sequence = model.sequence();
    if (n_run_before > 0) {
        model.forward(sequence, std::span(prompt).first(n_run_before));
    }
    Sampler sampler(temperature, 7);
    w.effort = generate(model, sequence, sampler, prompt, 150, most_drafted, [&](uint32_t previous, uint32_t token) {
        CHECK(previous == w.text.back());
        w.text.push_back(token);
    });
    CHECK(sequence.len() == w.effort.n_tokens);
    return w;
}

bool is_bos_or_eos(uint32_t token) { return token == 1 || token == 2; }

// The first n tokens of a text without an end.
Tokens text_of(size_t n) {
    std::mt19937 random(3);
    Tokens text(n);
    std::ranges::generate(text, [&] { return 3 + random() % 7; });
    text[0] = 1;
    return text;
}

Tokens joined(Tokens begin, const Tokens &end) {
    begin.insert(begin.end(), end.begin(), end.end());
    return begin;
}

const kvlane::Format formats[] = {kvlane::Format::f32, kvlane::Format::f16, kvlane::Format::q8, kvlane::Format::q4};

// Of a text of 150 tokens, some are in f16 and others quantized.
const CacheFormat with_f16_window[] = {
    {.k = kvlane::Format::q4, .v = kvlane::Format::q4, .n_first_f16 = 1},
    {.k = kvlane::Format::q8, .v = kvlane::Format::q4, .n_recent_f16 = 1},
    {.k = kvlane::Format::q4, .v = kvlane::Format::q8, .n_first_f16 = 1, .n_recent_f16 = 1},
};

std::vector<float> logits_one_by_one(Model &model, const Tokens &tokens) {
    Sequence sequence = model.sequence();
    std::vector<float> all;
    for (const uint32_t token : tokens) {
        const auto logits = model.forward(sequence, Tokens{token});
        all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
}

std::string checkpoint_error(const std::string &bytes) {
    const TemporaryFile file("llama2_test_checkpoint.bin", bytes);
    try {
        load_checkpoint(file.path());
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
    const Checkpoint checkpoint = load_checkpoint(file.path());
    const Weights &weights = checkpoint.weights;
    CHECK(checkpoint.config.head_dim == 2);
    CHECK(checkpoint.config.kv_dim() == 4);
    CHECK(weights.layers.size() == 2);
    CHECK(weights.layers[1].attention_norm[0] * 1024 == 10 * 8 + 8);
    CHECK(weights.layers[1].query[0] * 1024 == 10 * 8 + 2 * 8 + 8 * 8);
    CHECK(weights.final_norm[0] * 1024 == n_shared - 6 * 2 - 8);
    CHECK(weights.classifier.empty());
}

TEST_CASE("a negative vocab_size has a classifier of its own") {
    const TemporaryFile file("llama2_test_checkpoint.bin", checkpoint_bytes({.vocab_size = -10}, n_shared + n_classifier));
    const Checkpoint checkpoint = load_checkpoint(file.path());
    CHECK(checkpoint.config.vocab_size == 10);
    CHECK(checkpoint.weights.classifier[0] * 1024 == n_shared);
    CHECK(checkpoint.weights.classifier.size() == n_classifier);
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
    const Checkpoint checkpoint = load_checkpoint(file.path());
    Model model(checkpoint, {kvlane::Format::f32, kvlane::Format::f32}, nullptr);
    Sequence sequence = model.sequence();
    for (uint32_t token = 0; token < checkpoint.config.seq_len; ++token) {
        CHECK(model.forward(sequence, Tokens{token}).size() == checkpoint.config.vocab_size);
    }
    CHECK_THROWS_AS(model.forward(sequence, Tokens{0}), kvlane::Error);
    CHECK(sequence.len() == checkpoint.config.seq_len);
}

TEST_CASE("tokens have the same logits one by one, together, behind a prefix and beside other sequences") {
    const RandomModel random(1);
    const size_t n_prefix = 64;
    const Tokens tokens = text_of(n_prefix + 5);
    for (const kvlane::Format format : formats) {
        Model model = random.model(format);
        const std::vector<float> want = logits_one_by_one(model, tokens);
        Sequence together = model.sequence();
        CHECK(std::ranges::equal(model.forward(together, tokens), want));

        Sequence prefix = model.sequence();
        model.forward(prefix, std::span(tokens).first(n_prefix));
        Sequence first = model.sequence(&prefix), second = model.sequence(&prefix), other = model.sequence();
        const Tokens others = {1, 1, 2};
        const Feed feeds[] = {{&first, std::span(tokens).subspan(n_prefix, 2)},
                              {&other, others},
                              {&second, std::span(tokens).subspan(n_prefix)}};
        const std::span<const float> logits = model.forward(feeds);
        const std::span<const float> behind_prefix = std::span(want).subspan(n_prefix * 10);
        CHECK(std::ranges::equal(logits.first(2 * 10), behind_prefix.first(2 * 10)));
        CHECK(std::ranges::equal(logits.last(5 * 10), behind_prefix));
        CHECK(second.len() == n_prefix + 5);
        CHECK(second.cache().len() == 5);
        second.truncate(n_prefix + 2);
        CHECK(std::ranges::equal(model.forward(second, std::span(tokens).subspan(n_prefix + 2)),
                                 behind_prefix.subspan(2 * 10)));
    }
}

TEST_CASE("tokens have the same logits, and so a text its perplexity, one by one and at once, where some are kept in f16") {
    const RandomModel random(1);
    const Tokens tokens = text_of(150);
    for (const CacheFormat &format : with_f16_window) {
        Model model = random.model(format);
        const std::vector<float> want = logits_one_by_one(model, tokens);
        for (const size_t n : {150, 100, 64, 1}) {
            Sequence sequence = model.sequence();
            const auto begin = model.forward(sequence, std::span(tokens).first(n));
            CHECK(std::ranges::equal(begin, std::span(want).first(n * 10)));
            if (n < tokens.size()) {
                CHECK(std::ranges::equal(model.forward(sequence, std::span(tokens).subspan(n)),
                                         std::span(want).subspan(n * 10)));
            }
        }
    }
}

TEST_CASE("a prefix of any number of tokens changes no more than the rounding of those behind it") {
    const Tokens tokens = text_of(80);
    const RandomModel random(1);
    Model model = random.model(kvlane::Format::f32);
    Sequence alone = model.sequence();
    const auto logits = model.forward(alone, tokens);
    const std::vector<float> want(logits.begin(), logits.end());
    for (const size_t n_prefix : {1, 6, 63, 65, 79}) {
        Sequence prefix = model.sequence();
        model.forward(prefix, std::span(tokens).first(n_prefix));
        Sequence sequence = model.sequence(&prefix);
        const auto got = model.forward(sequence, std::span(tokens).subspan(n_prefix));
        for (size_t i = 0; i < got.size(); ++i) {
            CHECK(got[i] == doctest::Approx(want[n_prefix * 10 + i]).epsilon(1e-4));
        }
    }
}

TEST_CASE("a draft is what followed the newest tokens when they last stood in the text") {
    CHECK(draft(Tokens{1, 2, 3, 4, 2, 3}, 9) == Tokens{4, 2, 3});
    CHECK(draft(Tokens{1, 2, 3, 4, 2, 3}, 2) == Tokens{4, 2});
    CHECK(draft(Tokens{7, 8, 5, 9, 8, 6, 7, 8}, 1) == Tokens{5});  // two tokens' before the one's, which is newer
    CHECK(draft(Tokens{4, 4}, 5) == Tokens{4});
    CHECK(draft(Tokens{1, 2, 3}, 5).empty());
    CHECK(draft(Tokens{1}, 5).empty());
    CHECK(draft(Tokens{4, 4, 4}, 0).empty());
}

TEST_CASE("drafts change how many steps a text takes, and not the text") {
    uint32_t n_accepted = 0, n_refused = 0;
    for (uint32_t seed = 0; seed < 21; ++seed) {
        const RandomModel random(seed);
        const size_t kind = seed % (std::size(formats) + std::size(with_f16_window));
        Model model = kind < std::size(formats) ? random.model(formats[kind])
                                                : random.model(with_f16_window[kind - std::size(formats)]);
        for (const float temperature : {0.0f, 1.0f}) {
            const Written plain = written(model, {1, 5, 6, 5}, 0, temperature);
            CHECK(std::none_of(plain.text.begin() + 1, plain.text.end(), is_bos_or_eos));
            CHECK(plain.effort.n_steps == plain.text.size() - 3 - (plain.effort.n_tokens == 150));
            CHECK(written(model, {1, 5, 6, 5}, 0, temperature, 3).text == plain.text);
            for (const uint32_t most_drafted : {1, 3, 40}) {
                INFO("seed " << seed << ", temperature " << temperature << ", " << most_drafted << " drafted");
                const Written drafted = written(model, {1, 5, 6, 5}, most_drafted, temperature);
                CHECK(drafted.text == plain.text);
                CHECK(drafted.effort.n_tokens == plain.effort.n_tokens);
                CHECK(drafted.effort.n_steps + drafted.effort.n_accepted >= plain.effort.n_steps);
                n_accepted += drafted.effort.n_accepted;
                n_refused += drafted.effort.n_drafted - drafted.effort.n_accepted;
            }
        }
    }
    CHECK(n_accepted > 100);
    CHECK(n_refused > 100);
}

TEST_CASE("texts that share a prefix are those that each would be alone") {
    const Tokens begin = text_of(70);
    const std::vector<Tokens> sets[] = {{joined(begin, {7}), joined(begin, {8, 9}), begin},
                                        {begin, begin},
                                        {text_of(65), text_of(66)},
                                        {text_of(64), text_of(66)},
                                        {{1}, joined(begin, {2})},
                                        {text_of(129)}};
    const size_t n_shared[] = {64, 64, 64, 0, 0, 128};
    for (uint32_t seed = 0; seed < 12; ++seed) {
        const RandomModel random(seed);
        Model model = random.model(formats[seed % std::size(formats)]);
        for (size_t i = 0; i < std::size(sets); ++i) {
            INFO("seed " << seed << ", set " << i);
            const Batch batch = generate_batch(model, sets[i], 150);
            CHECK(batch.n_shared == n_shared[i]);
            uint32_t n_tokens = 0;
            for (size_t text = 0; text < sets[i].size(); ++text) {
                const Written alone = written(model, sets[i][text], 0);
                CHECK(batch.texts[text] == alone.text);
                n_tokens += alone.effort.n_tokens;
            }
            CHECK(batch.effort.n_tokens + (sets[i].size() - 1) * n_shared[i] == n_tokens);
        }
    }
}

TEST_CASE("a text is merged by score, byte by byte where no piece spells it") {
    const TemporaryFile file("llama2_test_tokenizer.bin", tokenizer_bytes());
    const Tokenizer tokenizer(file.path(), n_pieces);
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

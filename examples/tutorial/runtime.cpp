// A runtime for small Llama models in Hugging Face's format. docs/tutorial.md explains it step by step.

#include <kvlane/kvlane.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

using nlohmann::json;
using Floats = std::vector<float>;

std::ifstream open(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw std::runtime_error(path + " cannot be opened");
    }
    file.exceptions(std::ios::badbit | std::ios::failbit);  // reading past the end is an error
    return file;
}

template <class T>
T read(std::istream &file) {
    T value;
    file.read(reinterpret_cast<char *>(&value), sizeof value);
    return value;
}

std::string read_bytes(std::istream &file, size_t n) {
    std::string bytes(n, '\0');
    file.read(bytes.data(), static_cast<std::streamsize>(n));
    return bytes;
}

std::map<std::string, Floats> read_tensors(const std::string &path) {
    std::ifstream file = open(path);
    const json header = json::parse(read_bytes(file, read<uint64_t>(file)));
    const std::streamoff data = file.tellg();
    std::map<std::string, Floats> tensors;
    for (const auto &[name, tensor] : header.items()) {
        if (name != "__metadata__") {
            if (tensor.at("dtype") != "F16") {
                throw std::runtime_error(name + " has the dtype " + tensor.at("dtype").dump() + "; it must be F16");
            }
            const std::streamoff begin = tensor.at("data_offsets").at(0), end = tensor.at("data_offsets").at(1);
            file.seekg(data + begin);
            const std::string f16 = read_bytes(file, static_cast<size_t>(end - begin));
            Floats &f32 = tensors[name] = Floats(f16.size() / 2);
            kvlane::check(kvl_rows_to_f32(KVL_F16, f16.data(), 1, std::ssize(f32), 0, f32.data()));
        }
    }
    return tensors;
}

struct Tokenizer {
    static constexpr uint32_t bos = 1, eos = 2;  // the tokens that begin and end a text

    explicit Tokenizer(const std::string &path) {
        std::ifstream file = open(path);
        read<int32_t>(file);  // the length of the longest piece
        for (uint32_t token = 0; file.peek() != EOF; ++token) {
            scores.push_back(read<float>(file));
            std::string piece = read_bytes(file, read<uint32_t>(file));
            if (piece.size() == 6 && piece.starts_with("<0x")) {  // a single byte, in hexadecimal
                piece = static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16));
            }
            tokens[piece] = token;
            pieces.push_back(piece);
        }
    }

    std::vector<uint32_t> encode(const std::string &text) const {
        std::vector<uint32_t> out{bos};
        for (const char byte : " " + text) {
            out.push_back(tokens.at({byte}));
        }
        while (true) {
            std::map<float, size_t> pairs;  // by score, where neighbours are that make a token; the first of equal scores
            for (size_t i = 1; i + 1 < out.size(); ++i) {
                if (const auto merged = tokens.find(pieces[out[i]] + pieces[out[i + 1]]); merged != tokens.end()) {
                    pairs.emplace(scores[merged->second], i);
                }
            }
            if (pairs.empty()) {
                return out;
            }
            const auto best = out.begin() + pairs.rbegin()->second;
            *best = tokens.at(pieces[*best] + pieces[*(best + 1)]);
            out.erase(best + 1);
        }
    }

    Floats scores;
    std::vector<std::string> pieces;
    std::map<std::string, uint32_t> tokens;
};

struct Runtime {
    std::string directory;
    Tokenizer tokenizer{directory + "/tokenizer.bin"};
    json config = json::parse(open(directory + "/config.json"));
    std::map<std::string, Floats> weights = read_tensors(directory + "/model.safetensors");
    kvlane::Cache cache{config.at("num_hidden_layers"),
                        {.n_kv_heads = config.at("num_key_value_heads"), .head_dim = config.at("head_dim")},
                        config.at("max_position_embeddings")};
    kvlane::Attention attention{kvlane::geometry_of(cache, 0, config.at("num_attention_heads"))};
    kvlane::Workspace workspace = attention.workspace(1, cache.max_tokens(), static_cast<uint32_t>(cache.max_tokens()));

    uint32_t forward(std::span<const uint32_t> tokens) {
        const size_t n = tokens.size(), dim = config.at("hidden_size");
        Floats x;  // [n, dim]
        for (const uint32_t token : tokens) {
            const auto embedding = weights.at("model.embed_tokens.weight").begin() + token * dim;
            x.insert(x.end(), embedding, embedding + dim);
        }
        for (uint32_t layer = 0; layer < cache.n_layers(); ++layer) {
            const std::string name = "model.layers." + std::to_string(layer);
            add(x, attend(layer, name + ".self_attn.", normalize(name + ".input_layernorm.weight", x), n));
            add(x, feed_forward(name + ".mlp.", normalize(name + ".post_attention_layernorm.weight", x), n));
        }
        cache.advance(std::ssize(tokens));
        const Floats newest(x.end() - dim, x.end());
        const Floats logits = multiply("model.embed_tokens.weight", normalize("model.norm.weight", newest), 1);
        return static_cast<uint32_t>(std::ranges::max_element(logits) - logits.begin());
    }

    Floats attend(uint32_t layer, const std::string &name, const Floats &x, size_t n) {
        Floats q = rotate(multiply(name + "q_proj.weight", x, n), n), out(q.size());
        cache.append(layer, rotate(multiply(name + "k_proj.weight", x, n), n), multiply(name + "v_proj.weight", x, n));
        const kvl_view view = cache.view(layer);
        attention.attend({.view = &view, .len = view.len, .n_queries = uint32_t(n), .q = q.data(), .out = out.data()},
                         workspace);
        return multiply(name + "o_proj.weight", out, n);
    }

    Floats rotate(Floats heads, size_t n) const {
        const size_t head_dim = config.at("head_dim"), half = head_dim / 2, token_size = heads.size() / n;
        for (size_t head = 0; head < heads.size(); head += head_dim) {
            const int64_t position = cache.len() + head / token_size;
            for (size_t i = head; i < head + half; ++i) {
                const float frequency = std::pow(config.at("rope_theta").get<float>(), -float(i - head) / half);
                const float angle = position * frequency, a = heads[i], b = heads[i + half];
                heads[i] = a * std::cos(angle) - b * std::sin(angle);
                heads[i + half] = b * std::cos(angle) + a * std::sin(angle);
            }
        }
        return heads;
    }

    Floats feed_forward(const std::string &name, const Floats &x, size_t n) const {
        Floats gate = multiply(name + "gate_proj.weight", x, n);
        const Floats up = multiply(name + "up_proj.weight", x, n);
        std::ranges::transform(gate, up, gate.begin(), [](float a, float b) { return a / (1 + std::exp(-a)) * b; });
        return multiply(name + "down_proj.weight", gate, n);
    }

    Floats multiply(const std::string &name, const Floats &x, size_t n) const {
        const Floats &matrix = weights.at(name);
        const size_t columns = x.size() / n;
        Floats out;
        for (size_t vector = 0; vector < x.size(); vector += columns) {
            for (size_t row = 0; row < matrix.size(); row += columns) {
                out.push_back(std::inner_product(&matrix[row], &matrix[row] + columns, &x[vector], 0.0f));
            }
        }
        return out;
    }

    Floats normalize(const std::string &name, Floats x) const {
        const Floats &weight = weights.at(name);
        for (auto row = x.begin(); row != x.end(); row += weight.size()) {
            const float mean_square = std::inner_product(row, row + weight.size(), row, 0.0f) / weight.size();
            const float scale = 1 / std::sqrt(mean_square + config.at("rms_norm_eps").get<float>());
            std::transform(row, row + weight.size(), weight.begin(), row, [=](float a, float b) { return a * scale * b; });
        }
        return x;
    }

    static void add(Floats &x, const Floats &y) { std::ranges::transform(x, y, x.begin(), std::plus<>()); }
};

int main(int argc, char **argv) try {
    if (argc != 4) {
        throw std::runtime_error("usage: kvlane-tutorial MODEL PROMPT N_TOKENS");
    }
    Runtime runtime{argv[1]};
    std::cout << argv[2];
    uint32_t next = runtime.forward(runtime.tokenizer.encode(argv[2]));
    while (next != Tokenizer::eos && runtime.cache.len() <= std::stol(argv[3])) {
        std::cout << runtime.tokenizer.pieces[next] << std::flush;
        next = runtime.forward({&next, 1});
    }
    std::cout << '\n';
} catch (const std::exception &error) {
    std::cerr << "kvlane-tutorial: " << error.what() << '\n';
    return 1;
}

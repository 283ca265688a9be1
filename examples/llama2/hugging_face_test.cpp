// Models in Hugging Face's format, on files that the test writes itself: against a plain forward pass in double precision,
// and files that are wrong.

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "model.hpp"
#include "safetensors.hpp"
#include "test_files.hpp"

using namespace llama2;

namespace {

using nlohmann::json;
using Doubles = std::vector<double>;

const char *const directory = "hugging_face_test_model";

// head_dim is not hidden_size / num_attention_heads, and every constant matters.
const json good_config = {{"model_type", "llama"},  {"hidden_size", 12},        {"intermediate_size", 20},
                          {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"num_key_value_heads", 2},
                          {"head_dim", 8},          {"vocab_size", 10},         {"max_position_embeddings", 100},
                          {"rms_norm_eps", 0.1},    {"rope_theta", 50},         {"tie_word_embeddings", false},
                          {"hidden_act", "silu"},   {"torch_dtype", "float16"}};

struct Tensor {
    std::string dtype;
    std::vector<uint64_t> shape;
    std::string bytes;
    Doubles values;
};

using Tensors = std::map<std::string, Tensor>;

// A number of magnitude 1/16 to 1, whose 11 bits f32, f16 and bf16 (8 of them) hold exactly.
void put_random(Tensor &tensor, std::mt19937 &random) {
    const uint32_t fraction = random() % 1024, exponent = 1 + random() % 4, sign = random() % 2;
    const double magnitude =
        std::ldexp(1024 + (tensor.dtype == "BF16" ? fraction / 8 * 8 : fraction), -10 - static_cast<int>(exponent));
    const double value = sign ? -magnitude : magnitude;
    tensor.values.push_back(value);
    if (tensor.dtype == "F32") {
        put(tensor.bytes, static_cast<float>(value));
    } else if (tensor.dtype == "F16") {
        put(tensor.bytes, static_cast<uint16_t>(sign << 15 | (15 - exponent) << 10 | fraction));
    } else {
        put(tensor.bytes, static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(value)) >> 16));
    }
}

Tensors random_tensors(uint32_t seed) {
    std::mt19937 random(seed);
    Tensors tensors;
    const auto add = [&](const std::string &name, const char *dtype, const std::vector<uint64_t> &shape) {
        Tensor &tensor = tensors[name] = {dtype, shape, {}, {}};
        for (uint64_t i = 0; i < shape[0] * (shape.size() == 2 ? shape[1] : 1); ++i) {
            put_random(tensor, random);
        }
    };
    add("model.embed_tokens.weight", "BF16", {10, 12});
    add("lm_head.weight", "F16", {10, 12});
    add("model.norm.weight", "F32", {12});
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
        add(layer + "input_layernorm.weight", "F32", {12});
        add(layer + "self_attn.q_proj.weight", "F16", {32, 12});
        add(layer + "self_attn.k_proj.weight", "F16", {16, 12});
        add(layer + "self_attn.v_proj.weight", "BF16", {16, 12});
        add(layer + "self_attn.o_proj.weight", "F16", {12, 32});
        add(layer + "post_attention_layernorm.weight", "BF16", {12});
        add(layer + "mlp.gate_proj.weight", "F16", {20, 12});
        add(layer + "mlp.up_proj.weight", "F32", {20, 12});
        add(layer + "mlp.down_proj.weight", "F16", {12, 20});
    }
    return tensors;
}

std::string safetensors_bytes(const json &header, const std::string &data) {
    const std::string text = header.dump();
    std::string bytes;
    put(bytes, uint64_t{text.size()});
    return bytes + text + data;
}

std::string safetensors_bytes(const Tensors &tensors) {
    json header = {{"__metadata__", {{"format", "pt"}}}};
    std::string data;
    for (const auto &[name, tensor] : tensors) {
        header[name] = {{"dtype", tensor.dtype},
                        {"shape", tensor.shape},
                        {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
        data += tensor.bytes;
    }
    return safetensors_bytes(header, data);
}

class ModelDirectory {
public:
    ModelDirectory(const std::string &config, const std::string &tensors)
        : config_(made() + "/config.json", config), tensors_(made() + "/model.safetensors", tensors) {}

private:
    static std::string made() {
        std::filesystem::create_directory(directory);
        return directory;
    }

    TemporaryFile config_, tensors_;
};

// The forward pass as the papers have it, in double precision, with Hugging Face's RoPE: x cos + rotate_half(x) sin.
class Reference {
public:
    explicit Reference(const Tensors &tensors, const json &config) : tensors_(tensors), config_(config) {}

    // Logits of the newest token.
    Doubles forward(uint32_t token) {
        Doubles x = row(at("model.embed_tokens.weight"), token);
        for (int layer = 0; layer < 2; ++layer) {
            const std::string name = "model.layers." + std::to_string(layer) + ".";
            add(x, attend(name, norm(x, at(name + "input_layernorm.weight"))));
            const Doubles normed = norm(x, at(name + "post_attention_layernorm.weight"));
            Doubles gate = times(at(name + "mlp.gate_proj.weight"), normed);
            const Doubles up = times(at(name + "mlp.up_proj.weight"), normed);
            for (size_t i = 0; i < gate.size(); ++i) {
                gate[i] *= up[i] / (1 + std::exp(-gate[i]));
            }
            add(x, times(at(name + "mlp.down_proj.weight"), gate));
        }
        ++pos_;
        const bool is_tied = config_["tie_word_embeddings"];
        return times(at(is_tied ? "model.embed_tokens.weight" : "lm_head.weight"), norm(x, at("model.norm.weight")));
    }

private:
    static constexpr size_t head_dim_ = 8;

    const Tensor &at(const std::string &name) const { return tensors_.at(name); }

    static Doubles row(const Tensor &matrix, size_t i) {
        const auto begin = matrix.values.begin() + static_cast<std::ptrdiff_t>(i * matrix.shape[1]);
        return {begin, begin + static_cast<std::ptrdiff_t>(matrix.shape[1])};
    }

    static double dot(const double *a, const double *b, size_t n) { return std::inner_product(a, a + n, b, 0.0); }

    static void add(Doubles &x, const Doubles &y) { std::ranges::transform(x, y, x.begin(), std::plus<>()); }

    static Doubles times(const Tensor &matrix, const Doubles &x) {
        Doubles product;
        for (size_t i = 0; i < matrix.shape[0]; ++i) {
            product.push_back(dot(&matrix.values[i * x.size()], x.data(), x.size()));
        }
        return product;
    }

    Doubles norm(const Doubles &x, const Tensor &weight) const {
        const double mean = dot(x.data(), x.data(), x.size()) / static_cast<double>(x.size());
        Doubles normed;
        for (size_t i = 0; i < x.size(); ++i) {
            normed.push_back(x[i] * weight.values[i] / std::sqrt(mean + config_["rms_norm_eps"].get<double>()));
        }
        return normed;
    }

    Doubles rotated(const Doubles &heads) const {
        Doubles out;
        for (size_t i = 0; i < heads.size(); ++i) {
            const size_t half = head_dim_ / 2, in_head = i % head_dim_, pair = in_head % half;
            const double angle =
                pos_ * std::pow(config_["rope_theta"].get<double>(), -2.0 * static_cast<double>(pair) / head_dim_);
            const double other = in_head < half ? -heads[i + half] : heads[i - half];
            out.push_back(heads[i] * std::cos(angle) + other * std::sin(angle));
        }
        return out;
    }

    Doubles attend(const std::string &layer, const Doubles &normed) {
        std::vector<Doubles> &keys = keys_[layer], &values = values_[layer];
        keys.push_back(rotated(times(at(layer + "self_attn.k_proj.weight"), normed)));
        values.push_back(times(at(layer + "self_attn.v_proj.weight"), normed));
        const Doubles q = rotated(times(at(layer + "self_attn.q_proj.weight"), normed));
        Doubles attended(q.size());
        for (size_t head = 0; head < q.size(); head += head_dim_) {
            const size_t kv_head = head / head_dim_ / 2 * head_dim_;
            Doubles weights;
            for (const Doubles &k : keys) {
                weights.push_back(std::exp(dot(&q[head], &k[kv_head], head_dim_) / std::sqrt(head_dim_)));
            }
            const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
            for (size_t token = 0; token < values.size(); ++token) {
                for (size_t i = 0; i < head_dim_; ++i) {
                    attended[head + i] += weights[token] / sum * values[token][kv_head + i];
                }
            }
        }
        return times(at(layer + "self_attn.o_proj.weight"), attended);
    }

    const Tensors &tensors_;
    const json &config_;
    double pos_ = 0;
    std::map<std::string, std::vector<Doubles>> keys_, values_;  // of a layer's tokens
};

void check_against_reference(const json &config, const Tensors &tensors, uint32_t seed) {
    const ModelDirectory files(config.dump(), safetensors_bytes(tensors));
    const Checkpoint checkpoint = load_checkpoint(directory);
    Model model(checkpoint, {kvlane::Format::f32, kvlane::Format::f32}, nullptr);
    Sequence sequence = model.sequence();
    Reference reference(tensors, config);
    std::mt19937 random(seed);
    for (int i = 0; i < 100; ++i) {
        const std::vector<uint32_t> token{static_cast<uint32_t>(random() % 10)};
        const auto logits = model.forward(sequence, token);
        const Doubles want = reference.forward(token[0]);
        REQUIRE(logits.size() == want.size());
        for (size_t j = 0; j < want.size(); ++j) {
            CHECK(std::abs(logits[j] - want[j]) < 2e-5);
        }
    }
}

std::string loading_error(const std::string &config, const std::string &tensors) {
    const ModelDirectory files(config, tensors);
    try {
        load_checkpoint(directory);
        return "no error";
    } catch (const std::runtime_error &error) {
        return error.what();
    }
}

std::string config_error(const char *field, const json &value) {
    json config = good_config;
    config[field] = value;
    return loading_error(config.dump(), safetensors_bytes(random_tensors(1)));
}

const std::string in_config = std::string(directory) + "/config.json: ";
const std::string in_tensors = std::string(directory) + "/model.safetensors: ";

std::string tensors_error(const std::string &bytes) { return loading_error(good_config.dump(), bytes); }

// A file with the one tensor that is looked for first, and with what is said of it.
std::string tensor_error(const json &entry, uint64_t data_bytes = 240) {
    return tensors_error(safetensors_bytes({{"model.embed_tokens.weight", entry}}, std::string(data_bytes, '\0')));
}

json entry_of(const json &dtype, const json &shape, const json &offsets) {
    return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", offsets}};
}

}  // namespace

TEST_CASE("every f16 is converted to the f32 of its value") {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const int exponent = static_cast<int>(bits >> 10 & 31), fraction = static_cast<int>(bits & 1023);
        double want = exponent > 0 ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
        if (exponent == 31) {
            want = fraction == 0 ? std::numeric_limits<double>::infinity() : std::nan("");
        }
        const auto stored = static_cast<uint16_t>(bits);
        float got;
        kvlane::check(kvl_rows_to_f32(KVL_F16, &stored, 1, 1, 0, &got));
        CHECK(std::signbit(got) == (bits >> 15 != 0));
        CHECK((std::isnan(want) ? std::isnan(got) : std::abs(got) == want));
    }
}

TEST_CASE("a model's logits are those of a forward pass in double precision") {
    for (uint32_t seed = 1; seed <= 3; ++seed) {
        check_against_reference(good_config, random_tensors(seed), seed);
    }
}

TEST_CASE("tied embeddings, and RoPE's theta where later versions write it") {
    json config = good_config;
    config["tie_word_embeddings"] = true;
    Tensors tensors = random_tensors(4);
    tensors.erase("lm_head.weight");
    check_against_reference(config, tensors, 4);

    json later = config;
    later.erase("rope_theta");
    later["rope_parameters"] = {{"rope_theta", 50}, {"rope_type", "default"}};
    const ModelDirectory files(later.dump(), safetensors_bytes(tensors));
    CHECK(load_checkpoint(directory).config.rope_theta == 50);
}

TEST_CASE("fields that are missing have the defaults of Hugging Face") {
    const json config = {{"hidden_size", 12},        {"intermediate_size", 20},       {"num_hidden_layers", 2},
                         {"num_attention_heads", 2}, {"head_dim", nullptr},           {"num_key_value_heads", nullptr},
                         {"vocab_size", 10},         {"max_position_embeddings", 100}};
    Tensors tensors = random_tensors(1);
    for (auto &[name, tensor] : tensors) {
        if (name.find("self_attn") != std::string::npos) {  // 2 heads of 6, of which each has keys and values of its own
            tensor = {"F32", {12, 12}, std::string(12 * 12 * 4, '\0'), {}};
        }
    }
    const ModelDirectory files(config.dump(), safetensors_bytes(tensors));
    const Config loaded = load_checkpoint(directory).config;
    CHECK(loaded.head_dim == 6);
    CHECK(loaded.n_kv_heads == 2);
    CHECK(loaded.has_classifier);
    CHECK(loaded.norm_epsilon == 1e-6f);
    CHECK(loaded.rope_theta == 10000);
}

TEST_CASE("a wrong config.json is refused, with the field, its value and what is allowed") {
    CHECK(config_error("hidden_size", 0) == in_config + "hidden_size is 0; it must be 1 to 1048576");
    CHECK(config_error("hidden_size", nullptr) == in_config + "hidden_size is null; it must be an integer");
    CHECK(config_error("hidden_size", 12.5) == in_config + "hidden_size is 12.5; it must be an integer");
    CHECK(config_error("hidden_size", "12") == in_config + "hidden_size is \"12\"; it must be an integer");
    CHECK(config_error("intermediate_size", -1) == in_config + "intermediate_size is -1; it must be 1 to 1048576");
    CHECK(config_error("num_hidden_layers", 65537) == in_config + "num_hidden_layers is 65537; it must be 1 to 65536");
    CHECK(config_error("num_attention_heads", 65537) == in_config + "num_attention_heads is 65537; it must be 1 to 65536");
    CHECK(config_error("num_key_value_heads", 5) == in_config + "num_key_value_heads is 5; it must be 1 to 4");
    CHECK(config_error("num_key_value_heads", 3) ==
          in_config + "num_attention_heads is 4; it must be a multiple of num_key_value_heads, 3");
    CHECK(config_error("head_dim", 1026) == in_config + "head_dim is 1026; it must be 2 to 1024");
    CHECK(config_error("head_dim", 7) == in_config + "head_dim is 7; it must be a multiple of RoPE's pairs, 2");
    CHECK(config_error("vocab_size", 2) == in_config + "vocab_size is 2; it must be 3 to 16777216");
    CHECK(config_error("max_position_embeddings", 0) ==
          in_config + "max_position_embeddings is 0; it must be 1 to 2147483647");
    CHECK(config_error("tie_word_embeddings", 1) == in_config + "tie_word_embeddings is 1; it must be true or false");
    CHECK(config_error("rms_norm_eps", -1) == in_config + "rms_norm_eps is -1; it must be 0.0 to 1.0");
    CHECK(config_error("rope_theta", "1e4") == in_config + "rope_theta is \"1e4\"; it must be 1.0 to 1000000000000.0");
    CHECK(config_error("model_type", "gemma") == in_config + "model_type is \"gemma\"; it must be \"llama\"");
    CHECK(config_error("hidden_act", "gelu") == in_config + "hidden_act is \"gelu\"; it must be \"silu\"");
    CHECK(config_error("attention_bias", true) == in_config + "attention_bias is true; it must be false");
    CHECK(config_error("mlp_bias", true) == in_config + "mlp_bias is true; it must be false");
    CHECK(config_error("rope_scaling", {{"type", "linear"}}) ==
          in_config + "rope_scaling is {\"type\":\"linear\"}; it must be null");
    CHECK(config_error("rope_parameters", {{"rope_type", "llama3"}}) ==
          in_config + "rope_type is \"llama3\"; it must be \"default\"");
    CHECK(loading_error("[1]", "") == in_config + "it is a JSON array; it must be an object");
    CHECK(loading_error("{\"hidden_size\": ", "").starts_with(in_config + "[json.exception.parse_error"));
}

TEST_CASE("a wrong model.safetensors is refused, with the tensor, what was found and what is allowed") {
    const Tensors good = random_tensors(1);
    const auto error_with = [&](const std::string &name, const Tensor &tensor) {
        Tensors tensors = good;
        tensors[name] = tensor;
        return tensors_error(safetensors_bytes(tensors));
    };
    CHECK(tensors_error(safetensors_bytes(good)) == "no error");
    CHECK(error_with("model.norm.weight", {"F32", {13}, std::string(52, '\0'), {}}) ==
          in_tensors + "tensor model.norm.weight: its shape is [13]; it must be [12]");
    CHECK(error_with("model.norm.weight", {"F32", {12}, std::string(24, '\0'), {}}) ==
          in_tensors + "tensor model.norm.weight: its data_offsets are 24 bytes apart; its shape in F32 is 48 bytes");
    CHECK(error_with("lm_head.bias", {"F32", {1}, std::string(4, '\0'), {}}) ==
          in_tensors + "it has a tensor lm_head.bias, which a Llama does not have");

    Tensors without = good;
    without.erase("model.layers.1.mlp.up_proj.weight");
    CHECK(tensors_error(safetensors_bytes(without)) ==
          in_tensors + "it has no tensor model.layers.1.mlp.up_proj.weight, which must have the shape [20,12]");
}

TEST_CASE("a hostile header of model.safetensors is refused") {
    const std::string tensor = in_tensors + "tensor model.embed_tokens.weight";
    const json shape = {10, 12}, offsets = {0, 240};
    CHECK(tensor_error(entry_of("I64", shape, offsets)) ==
          tensor + ": its dtype is \"I64\"; it must be \"F32\", \"F16\" or \"BF16\"");
    CHECK(tensor_error(entry_of(7, shape, offsets)) == tensor + ": its dtype is 7; it must be \"F32\", \"F16\" or \"BF16\"");
    CHECK(tensor_error(entry_of("F16", {10, -12}, offsets)) ==
          tensor + ": its shape is [10,-12]; it must be a list of integers from 0 on");
    CHECK(tensor_error(entry_of("F16", 10, offsets)) ==
          tensor + ": its shape is 10; it must be a list of integers from 0 on");
    CHECK(tensor_error(entry_of("F16", shape, {0, 240.5})) ==
          tensor + ": its data_offsets is [0,240.5]; it must be a list of integers from 0 on");
    CHECK(tensor_error(5) == tensor + ": its data_offsets is null; it must be a list of integers from 0 on");
    const std::string not_a_range = "; they must be where it begins and where it ends";
    CHECK(tensor_error(entry_of("F16", shape, {240, 0})) == tensor + ": its data_offsets are [240,0]" + not_a_range);
    CHECK(tensor_error(entry_of("F16", shape, {0})) == tensor + ": its data_offsets are [0]" + not_a_range);
    CHECK(tensor_error(entry_of("F16", shape, {8, 248}), 248) ==
          tensor + " begins at byte 8 of the data; it must begin at 0, where the one before it ends");
    CHECK(tensor_error(entry_of("F16", shape, {0, UINT64_MAX})) ==
          in_tensors + "its tensors are 18446744073709551615 bytes; after the header it has 240");
    CHECK(tensor_error(entry_of("F16", shape, offsets), 239) ==
          in_tensors + "its tensors are 240 bytes; after the header it has 239");

    const json overlapping = {{"a", entry_of("F16", {2}, {0, 4})}, {"b", entry_of("F16", {2}, {2, 6})}};
    CHECK(tensors_error(safetensors_bytes(overlapping, "123456")) ==
          in_tensors + "tensor b begins at byte 2 of the data; it must begin at 4, where the one before it ends");
}

TEST_CASE("a file that is no model.safetensors is refused") {
    CHECK(tensors_error("1234567") == in_tensors + "it ends after 7 bytes, before all that it should hold");
    CHECK(tensors_error(std::string(8, '\xFF')) ==
          in_tensors + "its header is 18446744073709551615 bytes; it must be at most 0");
    CHECK(tensors_error(safetensors_bytes(json::array(), "")) ==
          in_tensors + "its header is a JSON array; it must be an object");
    std::string no_json;
    put(no_json, uint64_t{2});
    CHECK(tensors_error(no_json + "{[").starts_with(in_tensors + "its header is not JSON: "));
    CHECK_THROWS_WITH(load_checkpoint("."), "./config.json: No such file or directory");
}

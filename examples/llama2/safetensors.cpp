#include "safetensors.hpp"

#include <kvlane/kvlane.hpp>

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <span>
#include <tuple>

namespace llama2 {
namespace {

using nlohmann::json;

constexpr uint64_t max_header_bytes = 100'000'000;  // of the format

kvl_format format_of(const std::string &dtype) { return dtype == "F32" ? KVL_F32 : dtype == "F16" ? KVL_F16 : KVL_BF16; }

json field_of(const json &entry, const char *field) { return entry.is_object() ? entry.value(field, json()) : json(); }

std::string dtype_of(const InputFile &file, const std::string &name, const json &entry) {
    const json found = field_of(entry, "dtype");
    std::string dtype = found.is_string() ? found.get<std::string>() : "";
    if (dtype != "F32" && dtype != "F16" && dtype != "BF16") {
        file.fail("tensor " + name + ": its dtype is " + found.dump() + "; it must be \"F32\", \"F16\" or \"BF16\"");
    }
    return dtype;
}

std::vector<uint64_t> integers_of(const InputFile &file, const std::string &name, const json &entry, const char *field) {
    const json list = field_of(entry, field);
    if (!list.is_array() || !std::ranges::all_of(list, &json::is_number_unsigned)) {
        file.fail("tensor " + name + ": its " + field + " is " + list.dump() + "; it must be a list of integers from 0 on");
    }
    return list;
}

}  // namespace

Safetensors::Safetensors(const std::string &path) : file_(path) {
    const auto header_bytes = file_.read<uint64_t>();
    const uint64_t most = std::min(file_.size() - sizeof(uint64_t), max_header_bytes);
    if (header_bytes > most) {
        file_.fail("its header is " + std::to_string(header_bytes) + " bytes; it must be at most " + std::to_string(most));
    }
    data_begin_ = sizeof(uint64_t) + header_bytes;
    parse_header(header_bytes);
    check_offsets();
}

void Safetensors::parse_header(uint64_t header_bytes) {
    std::string text(header_bytes, ' ');
    file_.read(std::span(text));
    json header;
    try {
        header = json::parse(text);
    } catch (const json::exception &error) {
        file_.fail(std::string("its header is not JSON: ") + error.what());
    }
    if (!header.is_object()) {
        file_.fail(std::string("its header is a JSON ") + header.type_name() + "; it must be an object");
    }
    header.erase("__metadata__");
    for (const auto &[name, entry] : header.items()) {
        const std::vector<uint64_t> offsets = integers_of(file_, name, entry, "data_offsets");
        if (offsets.size() != 2 || offsets[0] > offsets[1]) {
            file_.fail("tensor " + name + ": its data_offsets are " + json(offsets).dump() +
                       "; they must be where it begins and where it ends");
        }
        tensors_[name] = {dtype_of(file_, name, entry), integers_of(file_, name, entry, "shape"), offsets[0], offsets[1]};
    }
}

// Neither an overlap nor a gap.
void Safetensors::check_offsets() const {
    std::vector<std::tuple<uint64_t, uint64_t, std::string>> in_order;
    for (const auto &[name, tensor] : tensors_) {
        in_order.emplace_back(tensor.begin, tensor.end, name);
    }
    std::ranges::sort(in_order);
    uint64_t free_from = 0;
    for (const auto &[begin, end, name] : in_order) {
        if (begin != free_from) {
            file_.fail("tensor " + name + " begins at byte " + std::to_string(begin) + " of the data; it must begin at " +
                       std::to_string(free_from) + ", where the one before it ends");
        }
        free_from = end;
    }
    const uint64_t data_bytes = file_.size() - data_begin_;
    if (free_from != data_bytes) {
        file_.fail("its tensors are " + std::to_string(free_from) + " bytes; after the header it has " +
                   std::to_string(data_bytes));
    }
}

std::vector<float> Safetensors::take(const std::string &name, const std::vector<uint64_t> &shape) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
        file_.fail("it has no tensor " + name + ", which must have the shape " + json(shape).dump());
    }
    const Tensor tensor = found->second;
    tensors_.erase(found);
    if (tensor.shape != shape) {
        file_.fail("tensor " + name + ": its shape is " + json(tensor.shape).dump() + "; it must be " + json(shape).dump());
    }
    uint64_t n = 1;
    for (const uint64_t size : shape) {
        n *= size;
    }
    const uint64_t expected = n * (tensor.dtype == "F32" ? sizeof(float) : sizeof(uint16_t));
    if (tensor.end - tensor.begin != expected) {
        file_.fail("tensor " + name + ": its data_offsets are " + std::to_string(tensor.end - tensor.begin) +
                   " bytes apart; its shape in " + tensor.dtype + " is " + std::to_string(expected) + " bytes");
    }
    file_.seek(data_begin_ + tensor.begin);
    std::vector<std::byte> stored(expected);
    file_.read(std::span(stored));
    std::vector<float> floats(n);
    kvlane::check(kvl_rows_to_f32(format_of(tensor.dtype), stored.data(), 1, static_cast<int64_t>(n), 0, floats.data()));
    return floats;
}

void Safetensors::check_all_taken() const {
    if (!tensors_.empty()) {
        file_.fail("it has a tensor " + tensors_.begin()->first + ", which a Llama does not have");
    }
}

}  // namespace llama2

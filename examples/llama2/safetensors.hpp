#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "input_file.hpp"

namespace llama2 {

/// A file of named tensors: a uint64 size, so many bytes of JSON that say where each tensor lies, then the tensors.
/// Source: https://github.com/huggingface/safetensors
class Safetensors {
public:
    /// Reads what the file says of its tensors.
    /// Errors: the file cannot be read, a tensor is not of f32, f16 or bf16, or the tensors do not fill the file one after
    ///         another
    explicit Safetensors(const std::string &path);

    /// Reads a tensor that was not taken before, as f32.
    /// Errors: there is none of that name, or its shape or its size is another
    std::vector<float> take(const std::string &name, const std::vector<uint64_t> &shape);

    /// Errors: a tensor was not taken
    void check_all_taken() const;

private:
    struct Tensor {
        std::string dtype;
        std::vector<uint64_t> shape;
        uint64_t begin, end;  // bytes, counted from the end of the JSON
    };
    void parse_header(uint64_t header_bytes);
    void check_offsets() const;

    InputFile file_;
    uint64_t data_begin_ = 0;  // bytes
    std::map<std::string, Tensor> tensors_;
};

}  // namespace llama2

#include "input_file.hpp"

#include <bit>
#include <filesystem>
#include <stdexcept>
#include <system_error>

namespace llama2 {

static_assert(std::endian::native == std::endian::little, "the files are little-endian and are read as they are");

InputFile::InputFile(const std::string &path) : path_(path), stream_(path, std::ios::binary) {
    std::error_code error;
    size_ = std::filesystem::file_size(path, error);
    if (error) {
        fail(error.message());
    }
    if (!stream_) {
        fail("it cannot be opened");
    }
}

std::string InputFile::read_text() {
    std::string text(size_, ' ');
    seek(0);
    read(std::span(text));
    return text;
}

void InputFile::fail(const std::string &what) const { throw std::runtime_error(path_ + ": " + what); }

void InputFile::read_bytes(char *out, uint64_t n_bytes) {
    if (!stream_.read(out, static_cast<std::streamsize>(n_bytes))) {
        fail("it ends after " + std::to_string(size_) + " bytes, before all that it should hold");
    }
}

}  // namespace llama2

#pragma once

#include <cstdint>
#include <fstream>
#include <span>
#include <string>

namespace llama2 {

/// A binary file that is read from its start on. Every error is an exception that begins with the file's path.
class InputFile {
public:
    explicit InputFile(const std::string &path);

    uint64_t size() const { return size_; }

    /// Continues reading at a byte of the file.
    void seek(uint64_t byte) { stream_.seekg(static_cast<std::streamoff>(byte)); }

    /// Fills out from the file.
    /// Errors: when the file ends before that
    template <class T>
    void read(std::span<T> out) {
        read_bytes(reinterpret_cast<char *>(out.data()), out.size_bytes());
    }

    /// Reads one value.
    template <class T>
    T read() {
        T value;
        read(std::span(&value, 1));
        return value;
    }

    /// Reads the whole file from its start.
    std::string read_text();

    /// Throws what is wrong with this file.
    [[noreturn]] void fail(const std::string &what) const;

private:
    void read_bytes(char *out, uint64_t n_bytes);

    std::string path_;
    std::ifstream stream_;
    uint64_t size_ = 0;
};

}  // namespace llama2

#pragma once

// Files that tests write themselves.

#include <cstdio>
#include <fstream>
#include <string>

namespace llama2 {

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

}  // namespace llama2

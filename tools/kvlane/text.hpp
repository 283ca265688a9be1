#pragma once

// How the command writes numbers and lists.

#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string>

namespace tool {

// "48.0 KiB": a number of bytes in the largest unit of which there is at least one.
inline std::string bytes_text(uint64_t bytes) {
    constexpr const char *units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    int unit = 0;
    auto value = static_cast<double>(bytes);
    for (; value >= 1024; value /= 1024) {
        ++unit;
    }
    char text[32];
    std::snprintf(text, sizeof text, "%.*f %s", unit == 0 ? 0 : 1, value, units[unit]);
    return text;
}

// A label, and words on as many lines of 80 columns as they need; those after the first begin with as many spaces as the
// label has characters. A word that is longer than a line has a line of its own.
inline std::string wrapped(const std::string &label, const std::string &words) {
    constexpr size_t columns = 80;
    std::string text, line = label;
    std::istringstream stream(words);
    for (std::string word; stream >> word; line += " " + word) {
        if (line.size() + 1 + word.size() > columns) {
            text += line + "\n";
            line.assign(label.size(), ' ');
        }
    }
    return text + line + "\n";
}

}  // namespace tool

#pragma once

#include <cstdint>
#include <cstdio>
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

}  // namespace tool

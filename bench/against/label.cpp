#include "label.hpp"

#include <regex>

namespace against {

std::optional<Label> parsed(const std::string &label) {
    static const std::regex form("([^/]+)/([^/]+)/([^/]+)/ctx:(\\d+)(?:/queries:(\\d+))?/threads:(\\d+)/(cold|hot)");
    std::smatch part;
    if (!std::regex_match(label, part, form)) {
        return std::nullopt;
    }
    return Label{part[1], part[2], part[3], part[4], part[5].matched ? part[5].str() : "1", part[6], part[7]};
}

}  // namespace against

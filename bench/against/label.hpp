#pragma once

// What a label says: <kind>/<model>/<format>/ctx:<n>[/queries:<n>]/threads:<n>/<cold|hot>.

#include <optional>
#include <string>

namespace against {

struct Label {
    std::string kind;
    std::string model;
    std::string format;
    std::string ctx;
    std::string queries;
    std::string threads;
    std::string state;
};

// Nothing where it says something else.
std::optional<Label> parsed(const std::string &label);

}  // namespace against

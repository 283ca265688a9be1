#include "side.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>

namespace against {
namespace {

constexpr const char *counter_names[] = {"median_seconds",    "kv_bytes_per_second",       "bytes_per_second",
                                         "roofline_fraction", "roofline_bytes_per_second", "multiply_adds_per_second",
                                         "limit_fraction",    "time_against_f16"};

void check(const char *error) {
    if (error) {
        throw std::runtime_error(error);
    }
}

const Shim *loaded(const std::string &path) {
    void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    check(library ? nullptr : dlerror());
    const auto shim = reinterpret_cast<decltype(&kvlane_against_shim)>(dlsym(library, shim_symbol));
    if (!shim) {
        throw std::runtime_error(dlerror());
    }
    return shim();
}

}  // namespace

Side::Side(const std::string &path) : shim_(loaded(path)) {
    if (const char *error = shim_->start()) {
        throw std::runtime_error(path + ": " + error);
    }
    while (const char *label = shim_->label(labels_.size())) {
        labels_.emplace_back(label);
    }
}

Side::~Side() {
    abandon();
    shim_->stop();
}

std::string Side::context(const char *key) const {
    const char *value = shim_->context(key);
    return value ? value : "";
}

void Side::abandon() {
    if (is_open_) {
        is_open_ = false;
        shim_->close();
    }
}

void Side::open(const std::string &label) {
    abandon();
    last_ = label;
    const auto found = std::ranges::find(labels_, label);
    check(shim_->open(static_cast<size_t>(found - labels_.begin())));
    is_open_ = true;
}

double Side::step() {
    double seconds;
    const char *error = shim_->step(&seconds);
    is_open_ = error == nullptr;
    check(error);
    return seconds;
}

Counters Side::close() {
    is_open_ = false;
    check(shim_->close());
    Counters counters;
    for (const char *name : counter_names) {
        double value;
        if (shim_->counter(name, &value)) {
            counters[name] = value;
        }
    }
    return counters;
}

void Side::forget() {
    const auto other =
        std::ranges::find_if(labels_, [&](const std::string &label) { return label != last_ && label.ends_with("/hot"); });
    check(other != labels_.end() ? nullptr : "it has no small label");
    open(*other);
    abandon();
}

}  // namespace against

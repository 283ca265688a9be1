#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <span>

#include "../../bench/buffers.hpp"
#include "../../bench/shape.hpp"
#include "../../tests/oracle.hpp"
#include "properties.hpp"

namespace tool {
namespace {

using kvlane::Format;
using kvlane::Precision;

constexpr uint32_t n_kv_heads = 2;
constexpr int64_t n_tokens = 4096;

struct Heads {
    uint32_t head_dim;
    uint32_t group;
};
constexpr Heads all_heads[] = {{128, 4}, {64, 7}, {80, 1}, {256, 2}};

// Queries, keys and values of unit variance, and so scores.
struct Inputs {
    explicit Inputs(const Heads &of)
        : heads(of),
          n_q(size_t{n_kv_heads} * heads.group * heads.head_dim),
          n_kv(size_t{n_kv_heads} * heads.head_dim * n_tokens),
          numbers(bench::normals(n_q + 2 * n_kv)) {}

    std::span<const float> q() const { return std::span(numbers).first(n_q); }
    std::span<const float> k() const { return std::span(numbers).subspan(n_q, n_kv); }
    std::span<const float> v() const { return std::span(numbers).last(n_kv); }

    Heads heads;
    size_t n_q;
    size_t n_kv;
    std::vector<float> numbers;
};

struct Error {
    double value = 0;
    double allowed = 1;

    bool is_allowed() const { return value <= allowed; }  // not NaN
    bool operator<(const Error &other) const {
        return is_allowed() != other.is_allowed() ? is_allowed() : value / allowed < other.value / other.allowed;
    }
};

template <class Number>
double relative_error(std::span<const Number> values, const std::vector<double> &right) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < right.size(); ++i) {
        error += std::pow(static_cast<double>(values[i]) - right[i], 2);
        norm += right[i] * right[i];
    }
    return std::sqrt(error / norm);
}

std::vector<double> attention_in_double(const Inputs &inputs, std::span<const float> k, std::span<const float> v) {
    const Heads &heads = inputs.heads;
    return oracle::attend(n_kv_heads, heads.group, heads.head_dim, heads.head_dim, n_tokens,
                          1 / std::sqrt(static_cast<double>(heads.head_dim)), inputs.q().data(), k.data(), v.data())
        .out;
}

// The bound of kvl_attend on the decoded values; where queries or weights are rounded to 8 bits, one and a half times the
// error of storage, on the values before they were stored.
Error attention_error(Format format, Precision precision, const Inputs &inputs) {
    const Heads &heads = inputs.heads;
    kvlane::Cache cache(1, {.n_kv_heads = n_kv_heads, .head_dim = heads.head_dim, .k_format = format, .v_format = format},
                        n_tokens);
    cache.append(0, inputs.k(), inputs.v());
    kvlane::Geometry geometry = kvlane::geometry_of(cache, 0, n_kv_heads * heads.group);
    geometry.precision = precision;
    const kvlane::Attention attention(geometry);
    kvlane::Workspace workspace = attention.workspace(1, n_tokens);
    std::vector<float> out(inputs.n_q);
    attention.attend(cache.view(0), inputs.q().data(), out.data(), workspace);

    const std::vector<double> of_stored = attention_in_double(inputs, cache.read_k(0), cache.read_v(0));
    const std::span<const float> output = out;
    if (std::string(attention.kernel()).ends_with("/fast")) {
        const std::vector<double> of_inputs = attention_in_double(inputs, inputs.k(), inputs.v());
        return {relative_error(output, of_inputs), 1.5 * relative_error(std::span<const double>(of_stored), of_inputs)};
    }
    const bool is_rounded = bench::is_quantized(format) && precision != Precision::exact;
    return {relative_error(output, of_stored), is_rounded ? 2e-4 : 2e-6};
}

// The bound of kvl_cache_append for one element of a row: its own, or by the largest of the row and of its group of 32.
double allowed_storage_error(Format format, double element, double largest, double largest_of_group) {
    switch (format) {
        case Format::f32: return 0;
        case Format::f16: return std::max(std::abs(element) * 0x1p-11, 0x1p-25);
        case Format::bf16: return std::abs(element) * 0x1p-8;
        case Format::q8: return largest / 253;
        case Format::q4: return 0.22 * largest_of_group + largest / 100;
    }
    return std::numeric_limits<double>::quiet_NaN();
}

double largest_of(std::span<const float> values) {
    return std::abs(*std::ranges::max_element(values, {}, [](float x) { return std::abs(x); }));
}

// The largest error of a row's elements over what is allowed; infinity of a NaN.
double worst_of_row(Format format, std::span<const float> row, const float *stored) {
    constexpr size_t group = 32;
    double worst = 0;
    for (size_t i = 0; i < row.size(); ++i) {
        const size_t first = i / group * group;
        const double of_group = largest_of(row.subspan(first, std::min(group, row.size() - first)));
        const double error = std::abs(static_cast<double>(stored[i]) - row[i]);
        if (error != 0) {
            const double relative = error / allowed_storage_error(format, row[i], largest_of(row), of_group);
            worst = std::isnan(relative) ? std::numeric_limits<double>::infinity() : std::max(worst, relative);
        }
    }
    return worst;
}

// The largest error over what is allowed. Of keys that are not rotated, because the bounds apply to what is stored.
double storage_error(Format format) {
    constexpr uint32_t head_dim = 80;
    constexpr size_t n_rows = 1024;
    const std::vector<float> rows = bench::normals(n_rows * head_dim);
    kvlane::Cache cache(1,
                        {.n_kv_heads = 1,
                         .head_dim = head_dim,
                         .k_format = format,
                         .v_format = format,
                         .k_rotation = kvlane::Rotation::none},
                        n_rows);
    cache.append(0, rows, rows);
    const std::vector<float> stored = cache.read_k(0);
    double worst = 0;
    for (size_t i = 0; i < rows.size(); i += head_dim) {
        worst = std::max(worst, worst_of_row(format, std::span(rows).subspan(i, head_dim), &stored[i]));
    }
    return worst;
}

Property storage_property(Format format, const std::string &name) {
    const double error = storage_error(format);
    char text[64];
    std::snprintf(text, sizeof text, "%.1f %% of the bound", 100 * error);
    return {name + " storage, largest error", text, error <= 1};
}

Property attention_property(Format format, Precision precision, const std::vector<Inputs> &all, const std::string &name) {
    Error worst;
    for (const Inputs &inputs : all) {
        worst = std::max(worst, attention_error(format, precision, inputs));
    }
    char text[64];
    std::snprintf(text, sizeof text, "%.1e, at most %.1e", worst.value, worst.allowed);
    return {name, text, worst.is_allowed()};
}

}  // namespace

std::vector<Property> accuracy() {
    const std::vector<Inputs> inputs(std::begin(all_heads), std::end(all_heads));
    std::vector<Property> properties;
    for (kvl_format i = 0; kvl_format_name(i); ++i) {
        const auto format = Format{i};
        const std::string name = kvl_format_name(i);
        properties.push_back(storage_property(format, name));
        properties.push_back(attention_property(format, Precision::by_format, inputs, name + " attention, relative error"));
        if (bench::is_quantized(format)) {
            properties.push_back(attention_property(format, Precision::exact, inputs, name + " attention, exact precision"));
        }
    }
    return properties;
}

}  // namespace tool

// The caller's arrays, read and written in place.
#ifndef KVLANE_PYTHON_ARRAYS_HPP
#define KVLANE_PYTHON_ARRAYS_HPP

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <kvlane/kvlane.hpp>
#include <string>
#include <utility>
#include <vector>

namespace kvlane::python {

namespace nb = nanobind;

enum class Access { read, write };

/// Rows of head_dim elements by token (or query) and head in an array, which this object keeps alive.
struct HeadRows {
    nb::ndarray<nb::ro> array;
    Format format = Format::f32;
    int64_t n = 0;  // tokens or queries
    int64_t token_stride_bytes = 0;
    int64_t head_stride_bytes = 0;
    bool has_token_axis = true;  // false: of one token, [n_heads, dim]

    /// The first row. Writable if the rows were taken with Access::write.
    void *data() const { return const_cast<void *>(static_cast<const void *>(array.data())); }
};

/// What an array must be, for checks and their errors.
struct RowsSpec {
    const char *name;    // of the argument
    const char *n_name;  // of the number of tokens or queries
    int64_t n_heads;
    int64_t dim;  // 0: one number per head, without an axis of its own
    Access access = Access::read;
};

/// Takes an array [n, n_heads, dim] or, for one token or query, [n_heads, dim], of f32, f16 or bf16.
/// Errors: TypeError unless it is an array in the CPU's memory; KVL_ERROR_FORMAT, _LENGTH; _RANGE when n is 0; _STRIDE when
/// the last axis is
///         not contiguous or another one has a stride of 0
HeadRows head_rows(nb::handle array, const RowsSpec &spec);

/// Rows of numbers by query head and query, for a mask. An axis of size 1, or that an expanded array repeats, has stride 0.
struct MaskRows {
    nb::ndarray<nb::ro> array;
    int64_t n_heads = 1;
    int64_t n_queries = 1;
    int64_t n_tokens = 0;
    int64_t head_stride_bytes = 0;
    int64_t query_stride_bytes = 0;
};

/// Takes an array [n_queries, n_tokens] or [n_query_heads, n_queries, n_tokens] of that type; axes but the last may be 1.
/// Errors: as head_rows
MaskRows mask_rows(nb::handle array, const char *name, nb::dlpack::dtype dtype, int64_t n_query_heads, int64_t n_queries);

/// Takes a contiguous f32 array of that shape; -1 stands for any size.
/// Errors: as head_rows
nb::ndarray<const float> f32_array(nb::handle array, const std::string &name, std::initializer_list<int64_t> shape);

/// Makes an array of the library that `like` is of, torch or else numpy, with its dtype or in f32.
nb::object empty(nb::handle like, const std::vector<int64_t> &shape, bool in_f32 = false);

/// Makes a f32 array of numpy.
nb::object numpy_f32(const std::vector<int64_t> &shape);

/// Makes the function that constructs a T for Python, as nb::class_::def("__init__", ...) takes it, of one that returns a T.
template <class T, class... Args>
auto constructor(T (*make)(Args...)) {
    return [make](T *self, Args... args) { new (self) T(make(std::forward<Args>(args)...)); };
}

/// Throws Error unless value fits a uint32_t.
uint32_t to_uint32(int64_t value, const char *name);

/// Throws nb::type_error with that text.
[[noreturn]] void throw_type_error(const std::string &text);

}  // namespace kvlane::python

#endif

#include "arrays.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <limits>

namespace kvlane::python {

namespace {

std::string dtype_name(nb::dlpack::dtype dtype) {
    using Code = nb::dlpack::dtype_code;
    std::string name = "an unknown type";
    switch (static_cast<Code>(dtype.code)) {
        case Code::Bool: return "bool";
        case Code::Int: name = "int"; break;
        case Code::UInt: name = "uint"; break;
        case Code::Float: name = "float"; break;
        case Code::Bfloat: name = "bfloat"; break;
        case Code::Complex: name = "complex"; break;
        default: return name;
    }
    return name + std::to_string(dtype.bits);
}

std::string type_name_of(nb::handle object) { return nb::cast<std::string>(object.type().attr("__qualname__")); }

// The array's shape, as Python writes a list.
std::string shape_text(const nb::ndarray<nb::ro> &array) {
    std::string text = "[";
    for (size_t i = 0; i < array.ndim(); ++i) {
        text += (i ? ", " : "") + std::to_string(array.shape(i));
    }
    return text + "]";
}

nb::ndarray<nb::ro> take(nb::handle object, const std::string &name, Access access) {
    constexpr bool converts = false;
    nb::ndarray<nb::ro> array;
    if (!nb::try_cast(object, array, converts)) {
        throw_type_error(name + " is of type " + type_name_of(object) +
                         "; it must be an array with the buffer or DLPack protocol, without a gradient");
    }
    if (array.device_type() != nb::device::cpu::value) {
        throw_type_error(name + " is on device type " + std::to_string(array.device_type()) +
                         "; it must be in the CPU's memory");
    }
    nb::ndarray<> writable;
    if (access == Access::write && !nb::try_cast(object, writable, converts)) {
        throw_type_error(name + " is read-only; it must be writable");
    }
    return array;
}

Format format_of(const nb::ndarray<nb::ro> &array, const char *name) {
    const nb::dlpack::dtype dtype = array.dtype();
    const auto code = static_cast<nb::dlpack::dtype_code>(dtype.code);
    if (dtype == nb::dtype<float>()) {
        return Format::f32;
    }
    if (code == nb::dlpack::dtype_code::Float && dtype.bits == 16) {
        return Format::f16;
    }
    if (code == nb::dlpack::dtype_code::Bfloat && dtype.bits == 16) {
        return Format::bf16;
    }
    throw Error(KVL_ERROR_FORMAT,
                std::string(name) + " has elements of " + dtype_name(dtype) + "; they must be float32, float16 or bfloat16");
}

// Throws unless the last axis is contiguous.
void check_last_axis(const nb::ndarray<nb::ro> &array, const char *name) {
    const size_t last = array.ndim() - 1;
    if (array.shape(last) > 1 && array.stride(last) != 1) {
        throw Error(KVL_ERROR_STRIDE, std::string(name) + " has a stride of " + std::to_string(array.stride(last)) +
                                          " elements in its last axis; it must be 1");
    }
}

// Returns the stride of an axis in bytes. C reads 0 as contiguous, so that an expanded array needs its own check.
int64_t stride_bytes(const nb::ndarray<nb::ro> &array, size_t axis, const char *name) {
    if (array.shape(axis) > 1 && array.stride(axis) == 0) {
        throw Error(KVL_ERROR_STRIDE, std::string(name) + " has a stride of 0 in axis " + std::to_string(axis) +
                                          "; its rows must be distinct memory");
    }
    return array.stride(axis) * static_cast<int64_t>(array.itemsize());
}

}  // namespace

HeadRows head_rows(nb::handle object, const RowsSpec &spec) {
    HeadRows rows;
    rows.array = take(object, spec.name, spec.access);
    const nb::ndarray<nb::ro> &array = rows.array;
    rows.format = format_of(array, spec.name);
    const size_t n_own_axes = spec.dim ? 2 : 1;  // heads, elements
    rows.has_token_axis = array.ndim() == n_own_axes + 1;
    const size_t head_axis = rows.has_token_axis ? 1 : 0;
    if (array.ndim() - head_axis != n_own_axes || static_cast<int64_t>(array.shape(head_axis)) != spec.n_heads ||
        (spec.dim && static_cast<int64_t>(array.shape(head_axis + 1)) != spec.dim)) {
        const std::string own = std::to_string(spec.n_heads) + (spec.dim ? ", " + std::to_string(spec.dim) : "") + "]";
        throw Error(KVL_ERROR_LENGTH, std::string(spec.name) + " has shape " + shape_text(array) + "; it must be [" +
                                          spec.n_name + ", " + own + ", or [" + own + " for one of them");
    }
    if (array.size() == 0) {
        throw Error(KVL_ERROR_RANGE,
                    std::string(spec.name) + " has shape " + shape_text(array) + "; " + spec.n_name + " must be at least 1");
    }
    if (spec.dim) {
        check_last_axis(array, spec.name);
    }
    rows.n = rows.has_token_axis ? static_cast<int64_t>(array.shape(0)) : 1;
    rows.token_stride_bytes = rows.has_token_axis ? stride_bytes(array, 0, spec.name) : 0;
    rows.head_stride_bytes = stride_bytes(array, head_axis, spec.name);
    return rows;
}

MaskRows mask_rows(nb::handle object, const char *name, nb::dlpack::dtype dtype, int64_t n_query_heads, int64_t n_queries) {
    MaskRows rows;
    rows.array = take(object, name, Access::read);
    const nb::ndarray<nb::ro> &array = rows.array;
    if (array.dtype() != dtype) {
        throw Error(KVL_ERROR_FORMAT, std::string(name) + " has elements of " + dtype_name(array.dtype()) +
                                          "; they must be " + dtype_name(dtype));
    }
    const auto fits = [&](size_t axis, int64_t n) {
        return array.shape(axis) == 1 || static_cast<int64_t>(array.shape(axis)) == n;
    };
    const size_t n_axes = array.ndim();
    if (n_axes < 2 || n_axes > 3 || !fits(n_axes - 2, n_queries) || (n_axes == 3 && !fits(0, n_query_heads))) {
        throw Error(KVL_ERROR_LENGTH, std::string(name) + " has shape " + shape_text(array) + "; it must be [" +
                                          std::to_string(n_queries) + ", n_tokens] or [" + std::to_string(n_query_heads) +
                                          ", " + std::to_string(n_queries) + ", n_tokens], with 1 for axes that share rows");
    }
    check_last_axis(array, name);
    rows.n_tokens = static_cast<int64_t>(array.shape(n_axes - 1));
    const auto take_axis = [&](size_t axis, int64_t &n, int64_t &stride) {
        if (array.shape(axis) > 1 && array.stride(axis) != 0) {
            n = static_cast<int64_t>(array.shape(axis));
            stride = array.stride(axis) * static_cast<int64_t>(array.itemsize());
        }
    };
    take_axis(n_axes - 2, rows.n_queries, rows.query_stride_bytes);
    if (n_axes == 3) {
        take_axis(0, rows.n_heads, rows.head_stride_bytes);
    }
    return rows;
}

nb::ndarray<const float> f32_array(nb::handle object, const std::string &name, std::initializer_list<int64_t> shape) {
    const nb::ndarray<nb::ro> array = take(object, name, Access::read);
    bool fits = array.ndim() == shape.size();
    std::string text;
    int64_t contiguous = 1;
    for (size_t i = shape.size(); i-- > 0;) {
        const int64_t n = shape.begin()[i];
        text = (n < 0 ? "n" : std::to_string(n)) + (text.empty() ? "" : ", ") + text;
        if (fits) {
            const auto size = static_cast<int64_t>(array.shape(i));
            fits = (n < 0 || size == n) && (size <= 1 || array.stride(i) == contiguous);
            contiguous *= size;
        }
    }
    if (!fits || array.dtype() != nb::dtype<float>()) {
        throw Error(KVL_ERROR_LENGTH, name + " has shape " + shape_text(array) + " of " + dtype_name(array.dtype()) +
                                          "; it must be a contiguous [" + text + "] of float32");
    }
    return nb::ndarray<const float>(array);
}

nb::object empty(nb::handle like, const std::vector<int64_t> &shape, bool in_f32) {
    if (nb::hasattr(like, "new_empty")) {  // torch.Tensor
        const nb::object dtype = in_f32 ? nb::module_::import_("torch").attr("float32") : like.attr("dtype");
        return like.attr("new_empty")(shape, nb::arg("dtype") = dtype);
    }
    const nb::module_ numpy = nb::module_::import_("numpy");
    return numpy.attr("empty")(shape, nb::arg("dtype") = in_f32 ? numpy.attr("float32") : like.attr("dtype"));
}

nb::object numpy_f32(const std::vector<int64_t> &shape) {
    const nb::module_ numpy = nb::module_::import_("numpy");
    return numpy.attr("empty")(shape, nb::arg("dtype") = numpy.attr("float32"));
}

uint32_t to_uint32(int64_t value, const char *name) {
    constexpr int64_t max = std::numeric_limits<uint32_t>::max();
    if (value < 0 || value > max) {
        throw Error(KVL_ERROR_RANGE,
                    std::string(name) + " is " + std::to_string(value) + "; it must be from 0 to " + std::to_string(max));
    }
    return static_cast<uint32_t>(value);
}

void throw_type_error(const std::string &text) { throw nb::type_error(text.c_str()); }

}  // namespace kvlane::python

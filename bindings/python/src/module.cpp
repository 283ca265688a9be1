// The module kvlane._core: kvlane for Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>
#include <kvlane/kvlane.hpp>

#include "attention.hpp"
#include "cache.hpp"

namespace {

namespace nb = nanobind;

// Raises kvlane.Error, with the status's name, where C++ throws it.
void translate(const std::exception_ptr &exception, void *) {
    try {
        std::rethrow_exception(exception);
    } catch (const kvlane::Error &error) {
        const nb::object type = nb::module_::import_("kvlane._types").attr("Error");
        PyErr_SetObject(type.ptr(), type(error.what(), kvl_status_name(error.status())).ptr());
    }
}

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (uint32_t i = 0; i < kvl_n_isas(); ++i) {
        if (kvl_isa_supported(i)) {
            names.emplace_back(kvl_isa_name(i));
        }
    }
    return names;
}

}  // namespace

NB_MODULE(_core, module) {
    nb::register_exception_translator(&translate);
    // At exit, objects that other packages' globals hold, as a registered attention implementation, are alive by right.
    nb::set_leak_warnings(std::getenv("KVLANE_LEAK_WARNINGS") != nullptr);
    kvlane::python::bind_cache(module);
    kvlane::python::bind_attention(module);
    module.def(
        "isa", &kvlane::isa_in_force,
        "Returns the name of the instruction set in force: that of the environment variable KVLANE_ISA, or the widest.");
    module.def("isas", &supported_isas, "Returns the names of the instruction sets that are built and that this CPU has.");
    module.attr("__version__") = kvl_version();
}

#include "cache.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

namespace kvlane::python {

using namespace nb::literals;

namespace {

Format format_named(const std::string &name, const char *argument) {
    kvl_format format;
    if (kvl_format_from_name(name.c_str(), &format) == KVL_OK) {
        return Format{format};
    }
    std::string names;
    for (format = 0; kvl_format_name(format); ++format) {
        names += (format ? ", \"" : "\"") + std::string(kvl_format_name(format)) + "\"";
    }
    throw Error(KVL_ERROR_FORMAT, std::string(argument) + " is \"" + name + "\"; it must be one of " + names);
}

}  // namespace

Formats formats_named(const std::string &both, const std::optional<std::string> &k, const std::optional<std::string> &v) {
    const auto named = [&](const std::optional<std::string> &own, const char *argument) {
        return own ? format_named(*own, argument) : format_named(both, "format");
    };
    return {named(k, "k_format"), named(v, "v_format")};
}

Rotation rotation_named(const std::optional<std::string> &name, const char *argument) {
    if (!name) {
        return Rotation::by_format;
    }
    if (*name == "none") {
        return Rotation::none;
    }
    if (*name == "hadamard") {
        return Rotation::hadamard;
    }
    throw Error(KVL_ERROR_ROTATION,
                std::string(argument) + " is \"" + *name + "\"; it must be \"none\", \"hadamard\" or None");
}

std::string rotation_name(kvl_rotation rotation) { return rotation == KVL_ROTATION_HADAMARD ? "hadamard" : "none"; }

kvl_view View::describe(kvl_span &span) const {
    if (cache) {
        return cache->cache.view(layer);
    }
    span = {k.data(), v.data(), k.n};
    return kvlane::View{.n_kv_heads = static_cast<uint32_t>(n_kv_heads),
                        .head_dim = static_cast<uint32_t>(head_dim),
                        .v_head_dim = static_cast<uint32_t>(v_head_dim),
                        .k_format = k.format,
                        .v_format = v.format,
                        .len = k.n,
                        .spans = std::span(&span, 1),
                        .k_token_stride_bytes = k.token_stride_bytes,
                        .k_head_stride_bytes = k.head_stride_bytes,
                        .v_token_stride_bytes = v.token_stride_bytes,
                        .v_head_stride_bytes = v.head_stride_bytes};
}

namespace {

Layer make_layer(int64_t n_kv_heads, int64_t head_dim, int64_t v_head_dim, const std::string &format,
                 const std::optional<std::string> &k_format, const std::optional<std::string> &v_format,
                 const std::optional<std::string> &k_rotation, const std::optional<std::string> &v_rotation,
                 int64_t n_first_f16, int64_t n_recent_f16, std::optional<nb::object> k_offset, bool estimates_k_offset) {
    const Formats formats = formats_named(format, k_format, v_format);
    Layer layer{{.n_kv_heads = to_uint32(n_kv_heads, "n_kv_heads"),
                 .head_dim = to_uint32(head_dim, "head_dim"),
                 .v_head_dim = to_uint32(v_head_dim, "v_head_dim"),
                 .k_format = formats.k,
                 .v_format = formats.v,
                 .k_rotation = rotation_named(k_rotation, "k_rotation"),
                 .v_rotation = rotation_named(v_rotation, "v_rotation"),
                 .n_first_f16 = n_first_f16,
                 .n_recent_f16 = n_recent_f16,
                 .estimates_k_offset = estimates_k_offset},
                {}};
    if (k_offset) {
        const nb::ndarray<const float> offset = f32_array(*k_offset, "k_offset", {n_kv_heads, head_dim});
        layer.k_offset.assign(offset.data(), offset.data() + offset.size());
    }
    return layer;
}

kvlane::Cache make_cache(const std::vector<Layer> &layers, int64_t max_tokens) {
    std::vector<kvlane::Layer> with_offsets;
    for (const Layer &layer : layers) {
        with_offsets.push_back(layer.with_offset());
    }
    return kvlane::Cache(with_offsets, max_tokens);
}

void append(Cache &self, int64_t layer, nb::handle k, nb::handle v) {
    const uint32_t index = to_uint32(layer, "layer");
    const kvl_layer_info info = self.shared([&](const kvlane::Cache &cache) { return cache.info(index); });
    const HeadRows k_rows = head_rows(k, {"k", "n_tokens", info.n_kv_heads, info.head_dim});
    const HeadRows v_rows = head_rows(v, {"v", "n_tokens", info.n_kv_heads, info.v_head_dim});
    if (k_rows.n != v_rows.n) {
        throw Error(KVL_ERROR_LENGTH,
                    "v has " + std::to_string(v_rows.n) + " tokens; it must have as many as k, " + std::to_string(k_rows.n));
    }
    const Rows rows{.n_tokens = k_rows.n,
                    .k = k_rows.data(),
                    .v = v_rows.data(),
                    .k_format = k_rows.format,
                    .v_format = v_rows.format,
                    .k_token_stride_bytes = k_rows.token_stride_bytes,
                    .k_head_stride_bytes = k_rows.head_stride_bytes,
                    .v_token_stride_bytes = v_rows.token_stride_bytes,
                    .v_head_stride_bytes = v_rows.head_stride_bytes};
    self.exclusively([&](kvlane::Cache &cache) { cache.append(index, rows); });
}

using ReadRows = kvl_status(const kvl_cache *, uint32_t, int64_t, int64_t, float *, size_t);

// Decodes keys or values to a new numpy array.
nb::object read(const Cache &self, ReadRows *read_rows, int64_t layer, int64_t first, std::optional<int64_t> n_tokens,
                uint32_t kvl_layer_info::*dim) {
    const uint32_t index = to_uint32(layer, "layer");
    const kvl_layer_info info = self.shared([&](const kvlane::Cache &cache) { return cache.info(index); });
    const int64_t n = n_tokens.value_or(info.len - first);
    if (n < 0 || n > info.len) {
        throw Error(KVL_ERROR_RANGE, "n_tokens is " + std::to_string(n) + "; it must be from 0 to the layer's length, " +
                                         std::to_string(info.len));
    }
    const nb::object out = numpy_f32({n, info.n_kv_heads, info.*dim});
    const auto array = nb::cast<nb::ndarray<float, nb::c_contig>>(out);
    self.shared(
        [&](const kvlane::Cache &cache) { check(read_rows(cache.get(), index, first, n, array.data(), array.size())); });
    return out;
}

View view_of_cache(std::shared_ptr<Cache> self, int64_t layer) {
    const uint32_t index = to_uint32(layer, "layer");
    self->shared([&](const kvlane::Cache &cache) { return cache.info(index); });  // an error if there is no such layer
    View view;
    view.cache = std::move(self);
    view.layer = index;
    return view;
}

View view_of_rows(nb::handle k, nb::handle v) {
    // The geometry is the arrays' own.
    const auto axis = [](nb::handle array, size_t i, const char *name) {
        const nb::tuple shape = nb::hasattr(array, "shape") ? nb::tuple(array.attr("shape")) : nb::tuple();
        if (shape.size() != 3) {
            throw Error(KVL_ERROR_LENGTH, std::string(name) + " has " + std::to_string(shape.size()) +
                                              " axes; it must be an array [n_tokens, n_kv_heads, head_dim]");
        }
        return nb::cast<int64_t>(shape[i]);
    };
    View view;
    view.n_kv_heads = axis(k, 1, "k");
    view.head_dim = axis(k, 2, "k");
    view.v_head_dim = axis(v, 2, "v");
    view.k = head_rows(k, {"k", "n_tokens", view.n_kv_heads, view.head_dim});
    view.v = head_rows(v, {"v", "n_tokens", view.n_kv_heads, view.v_head_dim});
    if (view.k.n != view.v.n) {
        throw Error(KVL_ERROR_LENGTH,
                    "v has " + std::to_string(view.v.n) + " tokens; it must have as many as k, " + std::to_string(view.k.n));
    }
    return view;
}

int64_t view_len(const View &self) {
    if (!self.cache) {
        return self.k.n;
    }
    return self.cache->shared([&](const kvlane::Cache &cache) { return cache.info(self.layer).len; });
}

}  // namespace

void bind_layers(nb::module_ &module);

void bind_cache(nb::module_ &module) {
    bind_layers(module);

    nb::class_<View>(module, "View", R"(The keys and values of one layer that attention reads.

Cache.view(layer) makes a view of a cache's layer: of the tokens that it has at the time of each call, pending ones included.
View(k, v) makes a view of rows in arrays. A view keeps its cache or its arrays alive.)")
        .def("__init__", constructor(&view_of_rows), "k"_a, "v"_a,
             nb::sig("def __init__(self, k: kvlane._types.Array, v: kvlane._types.Array) -> None"),
             R"(Views rows in arrays, in place.

k is [n_tokens, n_kv_heads, head_dim] and v [n_tokens, n_kv_heads, v_head_dim], in float32, float16 or bfloat16. They may have
any strides, but their last axis must be contiguous and rows must not overlap.)")
        .def("__len__", &view_len, "The number of tokens, pending ones included.");

    nb::class_<Cache>(module, "Cache", R"(The keys and values of the tokens of one sequence, in all layers.

A model appends the keys and values of new tokens to every layer, where they are pending: attention sees them, len(cache)
does not count them. Then it calls advance. Address space for max_tokens is reserved at once, memory is committed as tokens
fill it, and no append moves or copies earlier tokens.)")
        .def(
            "__init__",
            [](Cache *self, const std::vector<Layer> &layers, int64_t max_tokens) {
                new (self) Cache(make_cache(layers, max_tokens));
            },
            "layers"_a, nb::kw_only(), "max_tokens"_a = KVL_DEFAULT_MAX_TOKENS,
            R"(Creates an empty cache of layers that may differ in geometry and formats.)")
        .def(
            "__init__",
            [](Cache *self, int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, int64_t v_head_dim,
               const std::string &format, const std::optional<std::string> &k_format,
               const std::optional<std::string> &v_format, const std::optional<std::string> &k_rotation,
               const std::optional<std::string> &v_rotation, int64_t n_first_f16, int64_t n_recent_f16,
               std::optional<nb::object> k_offset, bool estimates_k_offset, int64_t max_tokens) {
                const Layer layer =
                    make_layer(n_kv_heads, head_dim, v_head_dim, format, k_format, v_format, k_rotation, v_rotation,
                               n_first_f16, n_recent_f16, std::move(k_offset), estimates_k_offset);
                new (self) Cache(kvlane::Cache(to_uint32(n_layers, "n_layers"), layer.with_offset(), max_tokens));
            },
            nb::kw_only(), "n_layers"_a, "n_kv_heads"_a, "head_dim"_a, "v_head_dim"_a = 0, "format"_a = "f16",
            "k_format"_a = nb::none(), "v_format"_a = nb::none(), "k_rotation"_a = nb::none(), "v_rotation"_a = nb::none(),
            "n_first_f16"_a = 0, "n_recent_f16"_a = 0, "k_offset"_a = nb::none(), "estimates_k_offset"_a = false,
            "max_tokens"_a = KVL_DEFAULT_MAX_TOKENS,
            R"(Creates an empty cache of n_layers equal layers; see Layer for their arguments.)")
        .def("append", &append, "layer"_a, "k"_a, "v"_a,
             nb::sig("def append(self, layer: int, k: kvlane._types.Array, v: kvlane._types.Array) -> None"),
             R"(Appends the keys and values of new tokens to one layer, where they are pending until advance.

k is [n_tokens, n_kv_heads, head_dim] and v [n_tokens, n_kv_heads, v_head_dim]; for one token the first axis may be left out.
Any of float32, float16 and bfloat16, and any strides with a contiguous last axis: rows are read in place and converted as
they are stored. Raises Error also when the layer has pending tokens already, or when the cache would exceed max_tokens.)")
        .def(
            "advance",
            [](Cache &self, int64_t n_tokens) { self.exclusively([&](kvlane::Cache &c) { c.advance(n_tokens); }); },
            "n_tokens"_a = 1, "Makes the n_tokens pending tokens of every layer part of the cache.")
        .def(
            "truncate", [](Cache &self, int64_t len) { self.exclusively([&](kvlane::Cache &c) { c.truncate(len); }); },
            "len"_a, R"(Removes all tokens from position len on, and all pending tokens.

If layers keep recent tokens in f16, this restores the earlier state exactly for up to 64 tokens.)")
        .def(
            "clear", [](Cache &self) { self.exclusively([](kvlane::Cache &c) { c.clear(); }); },
            "Removes all tokens. The cache keeps its memory for the next sequence.")
        .def(
            "copy",
            [](const Cache &self) {
                return std::make_shared<Cache>(self.shared([](const kvlane::Cache &c) { return c.copy(); }));
            },
            "Makes a cache with the same tokens in its own memory.")
        .def("view", &view_of_cache, "layer"_a, "Makes a view of one layer for attention.")
        .def(
            "info",
            [](const Cache &self, int64_t layer) {
                return self.shared([&](const kvlane::Cache &c) { return c.info(to_uint32(layer, "layer")); });
            },
            "layer"_a, "Describes one layer.")
        .def(
            "read_k",
            [](const Cache &self, int64_t layer, int64_t first, std::optional<int64_t> n_tokens) {
                return read(self, &kvl_cache_read_k, layer, first, n_tokens, &kvl_layer_info::head_dim);
            },
            "layer"_a, "first"_a = 0, "n_tokens"_a = nb::none(),
            nb::sig("def read_k(self, layer: int, first: int = 0, n_tokens: int | None = None)"
                    " -> numpy.typing.NDArray[numpy.float32]"),
            R"(Decodes the keys of n_tokens tokens from position first on, by default to the layer's last pending one.

Returns a new array [n_tokens, n_kv_heads, head_dim].)")
        .def(
            "read_v",
            [](const Cache &self, int64_t layer, int64_t first, std::optional<int64_t> n_tokens) {
                return read(self, &kvl_cache_read_v, layer, first, n_tokens, &kvl_layer_info::v_head_dim);
            },
            "layer"_a, "first"_a = 0, "n_tokens"_a = nb::none(),
            nb::sig("def read_v(self, layer: int, first: int = 0, n_tokens: int | None = None)"
                    " -> numpy.typing.NDArray[numpy.float32]"),
            "Decodes values, as read_k decodes keys: a new array [n_tokens, n_kv_heads, v_head_dim].")
        .def("__len__", [](const Cache &self) { return self.shared([](const kvlane::Cache &c) { return c.len(); }); })
        .def_prop_ro(
            "max_tokens", [](const Cache &self) { return self.cache.max_tokens(); }, "Capacity in tokens.")
        .def_prop_ro(
            "n_layers", [](const Cache &self) { return self.cache.n_layers(); }, "The number of layers.")
        .def_prop_ro(
            "bytes", [](const Cache &self) { return self.shared([](const kvlane::Cache &c) { return c.bytes(); }); },
            "The size of the stored tokens of all layers in bytes, pending ones included.");
}

void bind_layers(nb::module_ &module) {
    nb::class_<Layer>(module, "Layer", "Geometry and formats of one layer's keys and values.")
        .def("__init__", constructor(&make_layer), nb::kw_only(), "n_kv_heads"_a, "head_dim"_a, "v_head_dim"_a = 0,
             "format"_a = "f16", "k_format"_a = nb::none(), "v_format"_a = nb::none(), "k_rotation"_a = nb::none(),
             "v_rotation"_a = nb::none(), "n_first_f16"_a = 0, "n_recent_f16"_a = 0, "k_offset"_a = nb::none(),
             "estimates_k_offset"_a = false,
             R"(Describes a layer.

Args:
    n_kv_heads: the number of KV heads
    head_dim: elements of a key, 1 to 1024
    v_head_dim: elements of a value; 0: head_dim
    format: of keys and values: "f32", "f16", "bf16", "q8" or "q4"
    k_format, v_format: of one of them, instead of format
    k_rotation, v_rotation: "none", "hadamard", or None: hadamard for q4 and for q8 keys
    n_first_f16, n_recent_f16: how many first and recent tokens of a layer in q8 or q4 are kept in f16, rounded up to
        multiples of 64
    k_offset: array [n_kv_heads, head_dim] of float32 that is subtracted from keys before they are quantized; copied
    estimates_k_offset: take the mean of the first 64 keys as the offset; needs keys in q8 or q4 and tokens in f16)");

    nb::class_<kvl_layer_info>(module, "LayerInfo", "Geometry, formats and length of one layer of a cache.")
        .def_ro("n_kv_heads", &kvl_layer_info::n_kv_heads, "The number of KV heads.")
        .def_ro("head_dim", &kvl_layer_info::head_dim, "Elements of a key.")
        .def_ro("v_head_dim", &kvl_layer_info::v_head_dim, "Elements of a value.")
        .def_prop_ro(
            "k_format", [](const kvl_layer_info &info) { return kvl_format_name(info.k_format); }, "Format of keys.")
        .def_prop_ro(
            "v_format", [](const kvl_layer_info &info) { return kvl_format_name(info.v_format); }, "Format of values.")
        .def_prop_ro(
            "k_rotation", [](const kvl_layer_info &info) { return rotation_name(info.k_rotation); },
            "Rotation of keys, in force.")
        .def_prop_ro(
            "v_rotation", [](const kvl_layer_info &info) { return rotation_name(info.v_rotation); },
            "Rotation of values, in force.")
        .def_ro("len", &kvl_layer_info::len, "Tokens, pending ones included.")
        .def_ro("bytes_per_token", &kvl_layer_info::bytes_per_token, "Memory of a token in its formats.")
        .def_ro("n_first_f16", &kvl_layer_info::n_first_f16, "First tokens kept in f16, rounded up.")
        .def_ro("n_recent_f16", &kvl_layer_info::n_recent_f16, "Recent tokens kept in f16, rounded up.");
}

}  // namespace kvlane::python

#include "attention.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "call.hpp"

namespace kvlane::python {

using namespace nb::literals;

namespace {

Precision precision_named(const std::optional<std::string> &name) {
    if (!name) {
        return Precision::by_format;
    }
    if (*name == "exact") {
        return Precision::exact;
    }
    if (*name == "fast") {
        return Precision::fast;
    }
    throw Error(KVL_ERROR_PRECISION, "precision is \"" + *name + "\"; it must be \"exact\", \"fast\" or None");
}

// The rules of an attention object, in the order of its arguments.
struct Rules {
    float scale;
    int64_t window;
    int64_t n_sink_tokens;
    float softcap;
    std::vector<float> alibi_slopes;
    std::vector<float> sink_logits;
    std::optional<std::string> precision;
};

Attention with_rules(Geometry geometry, const Rules &rules) {
    geometry.scale = rules.scale;
    geometry.window = rules.window;
    geometry.n_sink_tokens = rules.n_sink_tokens;
    geometry.softcap = rules.softcap;
    geometry.alibi_slopes = rules.alibi_slopes;
    geometry.sink_logits = rules.sink_logits;
    geometry.precision = precision_named(rules.precision);
    return Attention(geometry);
}

Attention make_attention(int64_t n_query_heads, int64_t n_kv_heads, int64_t head_dim, int64_t v_head_dim,
                         const std::string &format, const std::optional<std::string> &k_format,
                         const std::optional<std::string> &v_format, const std::optional<std::string> &k_rotation,
                         const std::optional<std::string> &v_rotation, float scale, int64_t window, int64_t n_sink_tokens,
                         float softcap, const std::vector<float> &alibi_slopes, const std::vector<float> &sink_logits,
                         const std::optional<std::string> &precision) {
    const Formats formats = formats_named(format, k_format, v_format);
    const Geometry geometry{.n_query_heads = to_uint32(n_query_heads, "n_query_heads"),
                            .n_kv_heads = to_uint32(n_kv_heads, "n_kv_heads"),
                            .head_dim = to_uint32(head_dim, "head_dim"),
                            .v_head_dim = to_uint32(v_head_dim, "v_head_dim"),
                            .k_format = formats.k,
                            .v_format = formats.v,
                            .k_rotation = rotation_named(k_rotation, "k_rotation"),
                            .v_rotation = rotation_named(v_rotation, "v_rotation")};
    return with_rules(geometry, {scale, window, n_sink_tokens, softcap, alibi_slopes, sink_logits, precision});
}

Attention attention_for_cache(const Cache &cache, int64_t layer, int64_t n_query_heads, float scale, int64_t window,
                              int64_t n_sink_tokens, float softcap, const std::vector<float> &alibi_slopes,
                              const std::vector<float> &sink_logits, const std::optional<std::string> &precision) {
    const uint32_t layer_index = to_uint32(layer, "layer"), n_heads = to_uint32(n_query_heads, "n_query_heads");
    const Geometry geometry = cache.shared([&](const kvlane::Cache &c) { return geometry_of(c, layer_index, n_heads); });
    return with_rules(geometry, {scale, window, n_sink_tokens, softcap, alibi_slopes, sink_logits, precision});
}

nb::object attend(const Attention &self, std::shared_ptr<View> view, nb::object q, std::optional<nb::object> out,
                  std::optional<nb::object> lse, std::optional<int64_t> len, bool causal, int64_t causal_offset,
                  std::optional<nb::object> mask, std::optional<nb::object> bias, Threads *threads) {
    Call call(self);
    nb::object result = call.add({std::move(view), std::move(q), std::move(out), std::move(lse), len, causal, causal_offset,
                                  std::move(mask), std::move(bias)});
    call.run(threads);
    return result;
}

nb::list attend_batch(const Attention &self, const std::vector<std::shared_ptr<Sequence>> &sequences, Threads *threads) {
    Call call(self);
    nb::list outs;
    for (const std::shared_ptr<Sequence> &sequence : sequences) {
        outs.append(call.add(*sequence));
    }
    call.run(threads);
    return outs;
}

nb::object attend_partial(const Attention &self, std::shared_ptr<View> view, nb::object q, int64_t first, int64_t end,
                          int64_t view_first, std::optional<int64_t> len, bool causal, int64_t causal_offset,
                          std::optional<nb::object> mask, std::optional<nb::object> bias, Threads *threads) {
    Call call(self);
    const nb::tuple arrays = call.add_partial(
        {std::move(view), std::move(q), {}, {}, len, causal, causal_offset, std::move(mask), std::move(bias)},
        {view_first, first, end});
    call.run(threads);
    return nb::module_::import_("kvlane._types").attr("Partial")(*arrays);
}

nb::object merge(const Attention &self, const std::vector<nb::tuple> &partials, std::optional<nb::object> lse) {
    std::vector<nb::ndarray<const float>> arrays;  // alive during the call
    std::vector<kvl_partial> states;
    int64_t n_queries = -1;
    for (size_t i = 0; i < partials.size(); ++i) {
        const std::string name = "partials[" + std::to_string(i) + "]";
        if (partials[i].size() != 3) {
            throw_type_error(name + " has " + std::to_string(partials[i].size()) + " elements; it must be a kvlane.Partial");
        }
        arrays.push_back(f32_array(partials[i][0], name + ".m", {n_queries, self.n_query_heads}));
        n_queries = static_cast<int64_t>(arrays.back().shape(0));
        arrays.push_back(f32_array(partials[i][1], name + ".l", {n_queries, self.n_query_heads}));
        arrays.push_back(f32_array(partials[i][2], name + ".o", {n_queries, self.n_query_heads, self.v_head_dim}));
        const auto data = [&](size_t from_end) { return const_cast<float *>(arrays[arrays.size() - from_end].data()); };
        states.push_back({data(3), data(2), data(1)});
    }
    n_queries = std::max<int64_t>(n_queries, 0);  // without partials, which is an error of the library
    nb::object out = numpy_f32({n_queries, self.n_query_heads, self.v_head_dim});
    const auto out_array = nb::cast<nb::ndarray<float, nb::c_contig>>(out);
    nb::ndarray<const float> lse_array;
    if (lse) {
        head_rows(*lse, {"lse", "n_queries", self.n_query_heads, 0, Access::write});
        lse_array = f32_array(*lse, "lse", {n_queries, self.n_query_heads});
    }
    const nb::gil_scoped_release no_gil;
    self.attention.merge(states, static_cast<uint32_t>(n_queries), out_array.data(),
                         lse ? const_cast<float *>(lse_array.data()) : nullptr);
    return out;
}

constexpr const char *call_doc = R"(Computes attention for the queries of one sequence.

Args:
    view: keys and values, from Cache.view or View
    q: [n_queries, n_query_heads, head_dim] or, for one query, [n_query_heads, head_dim]
    out: [n_queries, n_query_heads, v_head_dim], written; None: a new array of q's library and dtype
    lse: [n_queries, n_query_heads] of float32, written: the natural log of the sum of exponentials; None: not computed
    len: the number of tokens; None: all of the view's
    causal: query i, at position p = len - n_queries + i + causal_offset, sees positions 0 to p; else all
    causal_offset: see causal
    mask: bool [n_queries, n_tokens] or [n_query_heads, n_queries, n_tokens], True where a query sees a token, besides the
        other rules; axes of size 1 are shared; n_tokens is at least len
    bias: float32 of the same shapes, added to the scores; -infinity hides a token
    threads: a pool that shares the work; None: the calling thread

q and out are float32, float16 or bfloat16, independently, of any strides with a contiguous last axis; bias's last axis is
contiguous. Returns out. Results do not depend on threads.)";

}  // namespace

void bind_attention(nb::module_ &module) {
    nb::class_<Threads>(module, "Threads", R"(A pool of threads that share the work of attention calls.

Any number of calls and Python threads may use a pool; calls take turns. Its threads never hold the GIL, and sleep between
calls.)")
        .def(
            "__init__", [](Threads *self, int64_t n_threads) { new (self) Threads(to_uint32(n_threads, "n_threads")); },
            "n_threads"_a = 0,
            "Starts a pool of n_threads threads, the calling one included; 0: as many as there are processors.")
        .def_prop_ro("n_threads", &Threads::n_threads, "Threads that share a call, the calling one included.");

    nb::class_<Sequence>(module, "Sequence", "One sequence of Attention.attend_batch.")
        .def(
            "__init__",
            [](Sequence *self, std::shared_ptr<View> view, nb::object q, std::optional<nb::object> out,
               std::optional<nb::object> lse, std::optional<int64_t> len, bool causal, int64_t causal_offset,
               std::optional<nb::object> mask, std::optional<nb::object> bias) {
                new (self) Sequence{std::move(view), std::move(q),  std::move(out),  std::move(lse), len,
                                    causal,          causal_offset, std::move(mask), std::move(bias)};
            },
            "view"_a, "q"_a, nb::kw_only(), "out"_a = nb::none(), "lse"_a = nb::none(), "len"_a = nb::none(),
            "causal"_a = true, "causal_offset"_a = 0, "mask"_a = nb::none(), "bias"_a = nb::none(),
            nb::sig("def __init__(self, view: View, q: kvlane._types.Array, *, out: kvlane._types.Array | None = None, "
                    "lse: kvlane._types.Array | None = None, len: int | None = None, causal: bool = True, "
                    "causal_offset: int = 0, mask: kvlane._types.Array | None = None, "
                    "bias: kvlane._types.Array | None = None) -> None"),
            "Describes a sequence, with the arguments of Attention.attend.");

    nb::class_<Attention>(module, "Attention",
                          R"(The geometry and score rules of a layer, and the kernels for them. Immutable.

    out[h] = softmax(scale * q[h] K[h / group]^T) V[h / group],   group = n_query_heads / n_kv_heads)")
        .def("__init__", constructor(&make_attention), nb::kw_only(), "n_query_heads"_a, "n_kv_heads"_a, "head_dim"_a,
             "v_head_dim"_a = 0, "format"_a = "f16", "k_format"_a = nb::none(), "v_format"_a = nb::none(),
             "k_rotation"_a = nb::none(), "v_rotation"_a = nb::none(), "scale"_a = 0.0F, "window"_a = 0,
             "n_sink_tokens"_a = 0, "softcap"_a = 0.0F, "alibi_slopes"_a = std::vector<float>(),
             "sink_logits"_a = std::vector<float>(), "precision"_a = nb::none(),
             R"(Makes an attention object.

Args:
    n_query_heads: a multiple of n_kv_heads
    n_kv_heads, head_dim, v_head_dim, format, k_format, v_format, k_rotation, v_rotation: as in Layer; those of the views that
        it is to read
    scale: of the scores; 0: 1 / sqrt(head_dim)
    window: a query sees the newest `window` tokens up to its own; 0: all
    n_sink_tokens: first tokens that a window does not hide
    softcap: scores become softcap * tanh(score / softcap); 0: not
    alibi_slopes: [n_query_heads], a slope * (token's position - query's position) is added to scores; empty: none
    sink_logits: [n_query_heads], exp(sink_logits[h]) is added to the sum of exponentials; empty: none
    precision: of products with q8 and q4: "exact", "fast", or None: fast where it applies)")
        .def_static("for_cache", &attention_for_cache, "cache"_a, "layer"_a = 0, nb::kw_only(), "n_query_heads"_a,
                    "scale"_a = 0.0F, "window"_a = 0, "n_sink_tokens"_a = 0, "softcap"_a = 0.0F,
                    "alibi_slopes"_a = std::vector<float>(), "sink_logits"_a = std::vector<float>(),
                    "precision"_a = nb::none(),
                    "Makes an attention object with the geometry and formats of one layer of a cache.")
        .def("attend", &attend, "view"_a, "q"_a, "out"_a = nb::none(), nb::kw_only(), "lse"_a = nb::none(),
             "len"_a = nb::none(), "causal"_a = true, "causal_offset"_a = 0, "mask"_a = nb::none(), "bias"_a = nb::none(),
             "threads"_a = nb::none(),
             nb::sig("def attend(self, view: View, q: kvlane._types.ArrayT, out: kvlane._types.ArrayT | None = None, *, "
                     "lse: kvlane._types.Array | None = None, len: int | None = None, causal: bool = True, "
                     "causal_offset: int = 0, mask: kvlane._types.Array | None = None, "
                     "bias: kvlane._types.Array | None = None, threads: Threads | None = None) -> kvlane._types.ArrayT"),
             call_doc)
        .def("attend_batch", &attend_batch, "sequences"_a, nb::kw_only(), "threads"_a = nb::none(),
             nb::sig(
                 "def attend_batch(self, sequences: collections.abc.Sequence[Sequence], *, threads: Threads | None = None)"
                 " -> list[typing.Any]"),
             R"(Computes attention for the queries of each of several sequences, in one call.

Returns the list of their outputs. Sequences that begin with the same memory read it once.)")
        .def("attend_partial", &attend_partial, "view"_a, "q"_a, nb::kw_only(), "first"_a, "end"_a, "view_first"_a = 0,
             "len"_a = nb::none(), "causal"_a = true, "causal_offset"_a = 0, "mask"_a = nb::none(), "bias"_a = nb::none(),
             "threads"_a = nb::none(),
             nb::sig("def attend_partial(self, view: View, q: kvlane._types.Array, *, first: int, end: int, "
                     "view_first: int = 0, len: int | None = None, causal: bool = True, causal_offset: int = 0, "
                     "mask: kvlane._types.Array | None = None, bias: kvlane._types.Array | None = None, "
                     "threads: Threads | None = None) -> kvlane._types.Partial"),
             R"(Computes the partial state of queries over positions first to end - 1, for merge.

view's first token has position view_first; it need not hold tokens outside of the range. len is the length of the whole
sequence, by default view_first + len(view). The other arguments are those of attend. For the bits of a single call, let
ranges be chunks of 512 positions that begin at multiples of 512.)")
        .def("merge", &merge, "partials"_a, nb::kw_only(), "lse"_a = nb::none(),
             nb::sig("def merge(self, partials: collections.abc.Sequence[kvlane._types.Partial], *, "
                     "lse: kvlane._types.Array | None = None) -> numpy.typing.NDArray[numpy.float32]"),
             R"(Merges partial states of the same queries over disjoint tokens, in their order.

Returns a new array [n_queries, n_query_heads, v_head_dim]. lse [n_queries, n_query_heads], contiguous, is written.)")
        .def_prop_ro(
            "kernel", [](const Attention &self) { return self.attention.kernel(); },
            "The name of the kernel that calls use, \"avx2/f16+bf16/group:4\" for example.");
}

}  // namespace kvlane::python

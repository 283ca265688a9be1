"""ggml, the library of llama.cpp, compiled for this CPU: its operator flash_attn_ext, as a graph of one node for each layer. (A group's
query heads as queries of one head take as long.)"""

import ctypes
import itertools

import ggml
import numpy

import peer

TYPES = {
    "f32": ggml.GGML_TYPE_F32,
    "f16": ggml.GGML_TYPE_F16,
    "q8_0": ggml.GGML_TYPE_Q8_0,
    "q4_0": ggml.GGML_TYPE_Q4_0,
}
FLOATS = ctypes.POINTER(ctypes.c_float)


def floats(x):
    return x.ctypes.data_as(FLOATS)


def encoded(x, type_):
    """Returns the bytes of x [n_kv_heads, n_tokens, head_dim] in one of ggml's types, and the values that they stand for."""
    head_dim = x.shape[-1]
    n_rows = x.size // head_dim
    data = numpy.empty(n_rows * ggml.ggml_row_size(type_, head_dim), numpy.uint8)
    values = numpy.empty_like(x)
    if type_ == ggml.GGML_TYPE_F32:
        return x.copy().view(numpy.uint8).reshape(-1), x
    ggml.ggml_quantize_chunk(type_, floats(x), data.ctypes.data, 0, n_rows, head_dim, None)
    ggml.ggml_get_type_traits(type_).contents.to_float(data.ctypes.data, floats(values), x.size)
    return data, values


class Peer(peer.Base):
    configurations = {"f32": ("f32",), "f16": ("f16",), "q8": ("q8_0",), "q4": ("q4_0",)}
    context = None

    def __del__(self):
        if self.context:
            ggml.ggml_free(self.context)

    def version(self):
        return f"{ggml.ggml_version().decode()} (ggml-python {ggml.__version__})"

    def setup(self, shape, configuration, q, k, v):
        type_ = TYPES[configuration]
        self.q = q
        (k_data, self.k), (v_data, self.v) = encoded(k, type_), encoded(v, type_)
        n_layers = shape.n_layers()
        room = n_layers * (k_data.nbytes + v_data.nbytes + 2 * q.nbytes + (1 << 18)) + (1 << 20)
        self.context = ggml.ggml_init(ggml.ggml_init_params(room, None, False))
        query = ggml.ggml_new_tensor_4d(self.context, ggml.GGML_TYPE_F32, shape.model.head_dim, 1, shape.model.n_query_heads, 1)
        ctypes.memmove(query.contents.data, q.ctypes.data, q.nbytes)
        self.graphs = [self.graph(shape, type_, query, k_data, v_data) for _ in range(n_layers)]
        self.layers = itertools.cycle(self.graphs)

    def use_threads(self, threads):
        first, _ = self.graphs[0]
        self.plan = ggml.ggml_graph_plan(first, threads, None)  # of all graphs, which differ in addresses alone
        self.work = numpy.empty(self.plan.work_size + 64, numpy.uint8)
        self.plan.work_data = ctypes.cast(self.work.ctypes.data, type(self.plan.work_data))
        self.plan_pointer = ctypes.byref(self.plan)

    def graph(self, shape, type_, query, k_data, v_data):
        """Returns a layer's graph and its output's tensor."""
        model = shape.model
        kv = []
        for data in (k_data, v_data):
            kv.append(ggml.ggml_new_tensor_4d(self.context, type_, model.head_dim, shape.n_tokens, model.n_kv_heads, 1))
            ctypes.memmove(kv[-1].contents.data, data.ctypes.data, data.nbytes)
        out = ggml.ggml_flash_attn_ext(self.context, query, *kv, None, model.head_dim**-0.5, 0.0, 0.0)
        graph = ggml.ggml_new_graph_custom(self.context, 8, False)
        ggml.ggml_build_forward_expand(graph, out)
        return graph, out

    def stored(self):
        return self.q, self.k, self.v

    def run(self):
        graph, self.out = next(self.layers)
        if ggml.ggml_graph_compute(graph, self.plan_pointer) != ggml.GGML_STATUS_SUCCESS:
            raise RuntimeError("ggml_graph_compute failed")

    def output(self):
        data = ctypes.cast(self.out.contents.data, FLOATS)
        return numpy.ctypeslib.as_array(data, self.q.shape).copy()

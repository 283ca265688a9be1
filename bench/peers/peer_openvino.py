"""OpenVINO: a stateful model, whose plugin for CPUs fuses ScaledDotProductAttention with the KV cache. Every call appends a token,
so before each block of hot calls the cache is set back to the length at which the block's calls have the shape's on average."""

import itertools

import numpy
import openvino
from openvino import opset6, opset13

import peer

# By configuration: the precision of the cache, that of the arithmetic.
PRECISIONS = {"f32": ("f32", "f32"), "f16": ("f16", "f32"), "bf16": ("bf16", "bf16"), "u8": ("u8", "f32"), "u8 bf16": ("u8", "bf16")}


def parameter(name, shape, dtype):
    node = opset13.parameter(openvino.PartialShape(shape), dtype, name=name)
    node.output(0).set_names({name})
    return node


def constant(values):
    return opset13.constant(numpy.array(values, numpy.int64))


def cache_of(name, new, beams, model):
    """Returns the cache with the new token appended, and the node that keeps it."""
    info = openvino.op.util.VariableInfo()
    info.variable_id = f"past_{name}"
    info.data_shape = openvino.PartialShape([-1, model.n_kv_heads, -1, model.head_dim])
    info.data_type = openvino.Type.f32
    variable = openvino.op.util.Variable(info)
    empty = opset13.constant(numpy.zeros((1, model.n_kv_heads, 0, model.head_dim), numpy.float32))
    past = opset13.gather(opset6.read_value(empty, variable), beams, constant(0))
    present = opset13.concat([past, new], 2)
    return present, opset6.assign(present, variable)


def repeated(heads, model):
    """The heads of keys or values, each once for every query head of its group: the plugin reads them without copies."""
    group = model.n_query_heads // model.n_kv_heads
    if group == 1:
        return heads
    repeats = opset13.broadcast(opset13.unsqueeze(heads, constant(2)), constant([1, 1, group, 1, 1]), broadcast_spec="BIDIRECTIONAL")
    return opset13.reshape(repeats, constant([0, model.n_query_heads, -1, model.head_dim]), True)


def stateful(model):
    q = parameter("q", [-1, model.n_query_heads, -1, model.head_dim], openvino.Type.f32)
    k, v = (parameter(name, [-1, model.n_kv_heads, -1, model.head_dim], openvino.Type.f32) for name in "kv")
    beams = parameter("beams", [-1], openvino.Type.i32)
    keys, keep_keys = cache_of("k", k, beams, model)
    values, keep_values = cache_of("v", v, beams, model)
    out = opset13.scaled_dot_product_attention(q, repeated(keys, model), repeated(values, model), causal=False)
    return openvino.Model([opset13.result(out)], [keep_keys, keep_values], [q, k, v, beams], "attention")


class Peer(peer.Base):
    configurations = {"f32": ("f32",), "f16": ("f16", "bf16"), "q8": ("u8", "u8 bf16")}
    max_calls = 32

    def version(self):
        return openvino.__version__.split("-")[0]

    def setup(self, shape, configuration, q, k, v):
        self.shape, self.configuration, self.q, self.kv = shape, configuration, q, {"past_k": k, "past_v": v}
        new_rows = {"q": q[None, :, None], "k": k[None, :, -1:], "v": v[None, :, -1:], "beams": numpy.zeros(1, numpy.int32)}
        self.inputs = {name: openvino.Tensor(numpy.ascontiguousarray(x)) for name, x in new_rows.items()}

    def use_threads(self, threads):
        cache, arithmetic = PRECISIONS[self.configuration]
        properties = {
            "KV_CACHE_PRECISION": cache,
            "INFERENCE_PRECISION_HINT": arithmetic,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(stateful(self.shape.model), "CPU", properties)
        kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
        if "Concatenation" in kinds or "ScaledDotProductAttention" not in kinds:
            raise RuntimeError(f"attention and cache are not fused: {kinds}")
        self.requests = None  # those of other threads
        past = self.past(self.shape.n_tokens - 2)
        self.requests = [self.request(compiled, past) for _ in range(self.shape.n_layers())]
        self.layers = itertools.cycle(self.requests)

    def past(self, n_tokens):
        """Returns the states in which a cache has n_tokens."""
        return {name: openvino.Tensor(numpy.ascontiguousarray(x[None, :, :n_tokens])) for name, x in self.kv.items()}

    def request(self, compiled, past):
        request = compiled.create_infer_request()
        for name, tensor in self.inputs.items():
            request.set_tensor(name, tensor)
        self.set_state(request, past)
        request.infer()  # the first one moves the state to memory that has room for more tokens
        return request

    @staticmethod
    def set_state(request, past):
        for state in request.query_state():
            state.state = past[state.name]

    def prepare(self):
        if not self.shape.is_cold:
            self.set_state(self.requests[0], self.past(self.shape.n_tokens - self.max_calls // 2))

    def stored(self):
        states = {state.name: state.state.data[0] for state in self.last.query_state()}
        return self.q, states["past_k"], states["past_v"]

    def run(self):
        self.last = next(self.layers)
        self.last.infer()

    def output(self):
        return self.last.get_output_tensor(0).data.reshape(self.q.shape)

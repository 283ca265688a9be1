"""ONNX Runtime's operator GroupQueryAttention. Past and present keys and values are the same memory; each call writes the newest
token's to its place again."""

import itertools

import numpy
import onnxruntime
from onnx import TensorProto, helper

import peer

# By configuration: the type of queries and outputs, the type of the cache, bits.
TYPES = {
    "f32": (TensorProto.FLOAT, TensorProto.FLOAT, 0),
    "f16": (TensorProto.FLOAT16, TensorProto.FLOAT16, 0),
    "int8": (TensorProto.FLOAT, TensorProto.INT8, 8),
    "int4": (TensorProto.FLOAT, TensorProto.UINT8, 4),
}


def model_of(shape, configuration):
    """Returns a model of one node."""
    heads, kv_heads, dim = shape.model.n_query_heads, shape.model.n_kv_heads, shape.model.head_dim
    q_type, cache_type, bits = TYPES[configuration]
    cache_shape = [1, kv_heads, shape.n_tokens, dim // 2 if bits == 4 else dim]
    inputs = {
        "query": (q_type, [1, 1, heads * dim]),
        "key": (q_type, [1, 1, kv_heads * dim]),
        "value": (q_type, [1, 1, kv_heads * dim]),
        "past_key": (cache_type, cache_shape),
        "past_value": (cache_type, cache_shape),
        "seqlens_k": (TensorProto.INT32, [1]),
        "total_sequence_length": (TensorProto.INT32, [1]),
    }
    names, attributes = list(inputs), {}
    if bits:
        scales = {name: (TensorProto.FLOAT, [1, kv_heads, 1, dim]) for name in ("k_scale", "v_scale")}
        names += [""] * 5 + list(scales)  # the inputs between are optional
        inputs |= scales
        attributes = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": bits}
    outputs = {
        "output": (q_type, [1, 1, heads * dim]),
        "present_key": (cache_type, cache_shape),
        "present_value": (cache_type, cache_shape),
    }
    node = helper.make_node("GroupQueryAttention", names, list(outputs), domain="com.microsoft", num_heads=heads,
                            kv_num_heads=kv_heads, **attributes)  # fmt: skip
    values = [[helper.make_tensor_value_info(name, *of) for name, of in side.items()] for side in (inputs, outputs)]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "attention", *values)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def quantized(x, bits):
    """Returns integers, two of 4 bits in a byte, their scales by channel, and the values that they stand for."""
    largest = 2 ** (bits - 1) - 1
    scale = numpy.abs(x).max(axis=1, keepdims=True) / numpy.float32(largest)
    integers = numpy.clip(numpy.rint(x / scale), -largest - 1, largest).astype(numpy.int8)
    values = integers * scale
    if bits == 4:
        codes = (integers + 8).astype(numpy.uint8)
        integers = codes[..., 0::2] | codes[..., 1::2] << 4
    return integers, scale, values


def value_of(x):
    """Returns a copy in ONNX Runtime's memory."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(numpy.ascontiguousarray(x))


class Peer(peer.Base):
    configurations = {"f32": ("f32",), "f16": ("f16",), "q8": ("int8",), "q4": ("int4",)}

    def version(self):
        return onnxruntime.__version__

    def setup(self, shape, configuration, q, k, v):
        bits = TYPES[configuration][2]
        dtype = numpy.float16 if configuration == "f16" else numpy.float32
        scales = {}
        if bits:
            k_cache, k_scale, k = quantized(k, bits)
            v_cache, v_scale, v = quantized(v, bits)
            scales = {"k_scale": k_scale[None], "v_scale": v_scale[None]}
        else:
            q, k, v = (x.astype(dtype) for x in (q, k, v))
            k_cache, v_cache = k, v
        self.values = q, k, v
        self.model = model_of(shape, configuration)
        n_tokens = numpy.array([shape.n_tokens], numpy.int32)
        rows = {"query": q, "key": k[:, -1], "value": v[:, -1]}
        inputs = {name: x.reshape(1, 1, -1).astype(dtype) for name, x in rows.items()} | scales
        inputs |= {"seqlens_k": n_tokens - 1, "total_sequence_length": n_tokens}
        self.inputs = {name: value_of(x) for name, x in inputs.items()}
        self.out = value_of(numpy.empty((1, 1, q.size), dtype))
        self.caches = [{"key": value_of(k_cache[None]), "value": value_of(v_cache[None])} for _ in range(shape.n_layers())]

    def use_threads(self, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(self.model, options, ["CPUExecutionProvider"])
        self.layers = itertools.cycle([self.bound(cache) for cache in self.caches])

    def bound(self, cache):
        """Returns a binding of the memory of a layer's calls."""
        binding = self.session.io_binding()
        for name, value in self.inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in cache.items():
            binding.bind_ortvalue_input(f"past_{name}", value)
            binding.bind_ortvalue_output(f"present_{name}", value)
        binding.bind_ortvalue_output("output", self.out)
        return binding

    def stored(self):
        return self.values

    def run(self):
        self.session.run_with_iobinding(next(self.layers))

    def output(self):
        return self.out.numpy().reshape(self.values[0].shape)

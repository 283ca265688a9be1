"""What is compared: shapes, their numbers, and the oracle that every peer's output is checked against."""

import dataclasses
import pathlib

BITS = {"f32": 32, "f16": 16, "q8": 8, "q4": 4}  # of a key's or value's element, without scales

# The largest relative error of a right output, in 2-norms. The oracle reads the values as they are stored; what is left is the
# rounding of queries, weights, outputs and, in ggml's f16, of sums: to f32, to f16 or bf16, to 8 bits.
TOLERANCE = {"f32": 1e-5, "f16": 3e-2, "q8": 3e-2, "q4": 3e-2}


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    n_query_heads: int
    n_kv_heads: int
    head_dim: int


MODELS = (
    Model("llama-3-8b", 32, 8, 128),
    Model("qwen2.5-7b", 28, 4, 128),
    Model("llama-2-7b", 32, 32, 128),
    Model("gemma-2b", 8, 1, 256),
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """One call: one query token over n_tokens tokens of a layer. format is kvlane's; peers use one of theirs of as many bits."""

    model: Model
    format: str
    n_tokens: int
    is_cold: bool  # calls rotate over more layers than the last-level cache holds

    @property
    def label(self):
        return f"{self.model.name}/{self.format}/ctx:{self.n_tokens}/{'cold' if self.is_cold else 'hot'}"

    @property
    def layer_bytes(self):
        return 2 * self.model.n_kv_heads * self.n_tokens * self.model.head_dim * BITS[self.format] // 8

    def n_layers(self):
        return -(-cold_bytes() // self.layer_bytes) if self.is_cold else 1

    def as_json(self):
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(fields):
        return Shape(**{**fields, "model": Model(**fields["model"])})


# Of its time little is arithmetic: it says what a call costs.
SMALLEST = Shape(Model("one-head", 1, 1, 64), "f32", 40, False)


def last_level_cache_bytes():
    sizes = pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((int(size.read_text().strip().removesuffix("K")) << 10 for size in sizes), default=0)


def cold_bytes():
    """What calls rotate over: four times the last-level cache, within bounds."""
    return min(max(4 * last_level_cache_bytes(), 512 << 20), 2 << 30)


def numbers(shape):
    """Returns q [n_query_heads, head_dim] and k, v [n_kv_heads, n_tokens, head_dim], f32: the same for every peer."""
    import numpy

    random = numpy.random.default_rng(1)
    model = shape.model
    q = random.standard_normal((model.n_query_heads, model.head_dim), dtype=numpy.float32)
    k, v = (
        random.standard_normal((model.n_kv_heads, shape.n_tokens, model.head_dim), dtype=numpy.float32) for _ in range(2)
    )
    return q, k, v


def oracle(q, k, v):
    """softmax(q k^T / sqrt(head_dim)) v in double precision -> [n_query_heads, head_dim]."""
    import numpy

    n_kv_heads, _, head_dim = k.shape
    out = []
    for head, group in enumerate(numpy.split(q.astype(numpy.float64), n_kv_heads)):  # one at a time: f64 takes room
        scores = group @ k[head].astype(numpy.float64).T / numpy.sqrt(head_dim)
        weights = numpy.exp(scores - scores.max(axis=1, keepdims=True))
        out.append(weights / weights.sum(axis=1, keepdims=True) @ v[head].astype(numpy.float64))
    return numpy.concatenate(out)


def error(out, expected):
    """Returns the relative error in 2-norms."""
    import numpy

    return float(numpy.linalg.norm(out.astype(numpy.float64) - expected) / numpy.linalg.norm(expected))

"""Decode-time attention on CPUs: a KV cache, and the attention that reads it in place.

A Cache owns the keys and values of one sequence. An Attention computes

    out[h] = softmax(scale * q[h] K[h / group]^T) V[h / group],   group = n_query_heads / n_kv_heads

for any number of queries. Arrays are numpy's, torch's or of any library with the DLPack protocol, in float32, float16 or
bfloat16, in the CPU's memory. Keys, values, queries and outputs are read and written in place; boolean masks are packed to bits.

    cache = kvlane.Cache(n_layers=2, n_kv_heads=8, head_dim=128, format="q8")
    attention = kvlane.Attention.for_cache(cache, n_query_heads=32)
    for layer in range(2):
        cache.append(layer, k, v)                        # [n_tokens, n_kv_heads, head_dim]
        out = attention.attend(cache.view(layer), q)     # [n_queries, n_query_heads, head_dim]
    cache.advance(n_tokens)

Errors: a call with invalid arguments raises kvlane.Error, a ValueError, and changes nothing. An argument of a wrong type
raises TypeError.

Threads: calls release the GIL while they append, read or attend. All objects may be used by any number of Python threads:
a cache is locked by a call that changes it, and calls that read it run concurrently. The memory of arrays is not locked:
do not write to an array while a call uses it. A process that is forked makes Threads of its own. With a free-threaded Python, importing kvlane enables the GIL.

kvlane.transformers is an attention implementation for Hugging Face transformers.
"""

from ._core import Attention, Cache, Layer, LayerInfo, Sequence, Threads, View, __version__, isa, isas
from ._types import Array, Error, Partial

__all__ = [
    "Array",
    "Attention",
    "Cache",
    "Error",
    "Layer",
    "LayerInfo",
    "Partial",
    "Sequence",
    "Threads",
    "View",
    "__version__",
    "isa",
    "isas",
]

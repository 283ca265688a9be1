# %% [markdown]
# # The speed of decode attention over the context
#
# One query token of one layer, as in each step of a decoder, attends to a context of growing length. The figure compares
# kvlane's cache in f16, q8 and q4 with torch's `scaled_dot_product_attention` over tensors in bfloat16 and float32.
#
# Run it as a program, or cell by cell in an editor that knows `# %%`.

# %%
import argparse
import statistics
import time

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import kvlane

parser = argparse.ArgumentParser(description="Draw the time of decode attention over the context.")
parser.add_argument("--out", default="speed_over_context.svg", help="the SVG to write (default: %(default)s)")
parser.add_argument("--contexts", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384], metavar="N",
                    help="tokens (default: %(default)s)")  # fmt: skip
parser.add_argument("--query-heads", type=int, default=32, help="default: %(default)s, of Llama 3 8B")
parser.add_argument("--kv-heads", type=int, default=8, help="default: %(default)s")
parser.add_argument("--head-dim", type=int, default=128, help="default: %(default)s")
parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
parser.add_argument("--megabytes", type=float, default=1024, help="of keys and values to cycle through (default: %(default)s)")
parser.add_argument("--seconds", type=float, default=0.5, help="to measure each point for (default: %(default)s)")
options = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(options.threads)
threads = kvlane.Threads(options.threads)


# %% [markdown]
# Keys and values are read from memory in a decoder, since the other layers' come in between. So each measurement goes round as
# many layers as are together `--megabytes`, which should be several times the CPU's last-level cache.

# %%
def measure(call, n_layers):
    """The median time of call(layer) in seconds, over rounds of all layers."""
    times = []
    end = time.perf_counter() + options.seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        for layer in range(n_layers):
            call(layer)
        times.append((time.perf_counter() - start) / n_layers)
    return statistics.median(times)


def layers_of(n_bytes):
    """The number of layers of n_bytes each to go round."""
    return max(1, round(options.megabytes * 1e6 / n_bytes))


def measure_kvlane(format, k, v, q):
    """k and v [n_tokens, n_kv_heads, head_dim]"""
    layer = kvlane.Layer(n_kv_heads=options.kv_heads, head_dim=options.head_dim, format=format)
    n_layers = layers_of(len(k) * kvlane.Cache([layer]).info(0).bytes_per_token)
    cache = kvlane.Cache([layer] * n_layers, max_tokens=len(k))
    for layer in range(n_layers):
        cache.append(layer, k, v)
    cache.advance(len(k))
    attention = kvlane.Attention.for_cache(cache, n_query_heads=options.query_heads)
    out = torch.empty_like(q)
    views = [cache.view(layer) for layer in range(n_layers)]
    return measure(lambda layer: attention.attend(views[layer], q, out, threads=threads), n_layers)


def measure_torch(dtype, k, v, q):
    """The query heads of a group are queries of one head, so that each KV head is read once."""
    k, v = (x.transpose(0, 1)[None].to(dtype).contiguous() for x in (k, v))  # [1, n_kv_heads, n_tokens, head_dim]
    n_layers = layers_of(k.nbytes + v.nbytes)
    keys, values = ([x.clone() for _ in range(n_layers)] for x in (k, v))
    query = q.view(1, options.kv_heads, -1, options.head_dim).to(dtype)
    return measure(lambda layer: F.scaled_dot_product_attention(query, keys[layer], values[layer]), n_layers)


# %%
WAYS = {
    "torch float32": (measure_torch, torch.float32),
    "torch bfloat16": (measure_torch, torch.bfloat16),
    "kvlane f16": (measure_kvlane, "f16"),
    "kvlane q8": (measure_kvlane, "q8"),
    "kvlane q4": (measure_kvlane, "q4"),
}
microseconds = {way: [] for way in WAYS}
print(f"{'tokens':>8}" + "".join(f"{way:>16}" for way in WAYS) + "   (µs)")
with torch.inference_mode():
    for n_tokens in options.contexts:
        k, v = torch.randn(2, n_tokens, options.kv_heads, options.head_dim)
        q = torch.randn(1, options.query_heads, options.head_dim)
        for way, (measure_way, kind) in WAYS.items():
            microseconds[way].append(1e6 * measure_way(kind, k, v, q))
        print(f"{n_tokens:8}" + "".join(f"{times[-1]:16.1f}" for times in microseconds.values()), flush=True)

# %%
plt.rcParams["svg.fonttype"] = "none"  # text, not outlines of letters
figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
for way, times in microseconds.items():
    axes.plot(options.contexts, times, marker="o", label=way)
axes.set_xscale("log", base=2)
axes.set_yscale("log")
axes.set_xlabel("context (tokens)")
axes.set_ylabel("time per layer (µs)")
axes.set_title(
    f"Decode attention, {options.query_heads} query heads, {options.kv_heads} KV heads, head_dim {options.head_dim},\n"
    f"{options.threads} thread{'s' if options.threads > 1 else ''}, isa {kvlane.isa()}, torch {torch.__version__}"
)
axes.grid(alpha=0.3)
axes.legend()
figure.savefig(options.out)
print(f"wrote {options.out}")

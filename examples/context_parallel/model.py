#!/usr/bin/env python3
"""What context-parallel decoding sends, and a model of the time that it takes.

Run, it prints the model of a layer and of a token for a model's shape, with the parameters of the machines and their network.
Without arguments: llama-3-70b at a million tokens over 8 nodes.
"""

import argparse
from dataclasses import dataclass

FLOAT_BYTES = 4
CHUNK_TOKENS = 512


@dataclass
class Rows:
    """The (query, query head) pairs of a step, which pass through the chain in pieces."""

    n: int
    v_head_dim: int
    n_pieces: int

    @property
    def state_bytes(self):
        return FLOAT_BYTES * self.n * (2 + self.v_head_dim)

    @property
    def output_bytes(self):
        return FLOAT_BYTES * self.n * self.v_head_dim


def bytes_sent(rows, n_ranks):
    """The bytes that each rank sends for one layer: states to the next rank; from the last one, outputs to all others."""
    return [rows.state_bytes] * (n_ranks - 1) + [rows.output_bytes * (n_ranks - 1)]


def reduction_seconds(rows, n_ranks, latency, bytes_per_second, merges):
    """The time from the ranks' partial states to the outputs on every rank.

    latency: of a message, in seconds. merges: the time in which one rank merges its chunks' states of all rows.

    A piece passes through a pipeline: R ranks merge it one after another, R - 1 links carry it in between, and the last rank
    sends its outputs to all others. The first piece takes the sum of all stages, and each further one is behind the one
    before it by the longest stage. Latency lengthens the pipeline, but occupies no stage.
    """
    n_pieces = min(rows.n_pieces, rows.n)
    sent = bytes_sent(rows, n_ranks)
    merge = merges / n_pieces
    link, outputs = (n_bytes / n_pieces / bytes_per_second for n_bytes in (sent[0], sent[-1]))
    first = n_ranks * merge + (n_ranks - 1) * (latency + link) + (latency + outputs if n_ranks > 1 else 0)
    return first + (n_pieces - 1) * max(merge, link, outputs)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = lambda name, default, text: parser.add_argument(  # noqa: E731
        name, type=type(default), default=default, metavar="N", help=f"{text} (default: {default})"
    )
    add("--nodes", 8, "ranks, one on each node")
    add("--ctx", 1 << 20, "tokens in the cache")
    add("--layers", 80, "layers of the model")
    add("--query-heads", 64, "query heads")
    add("--kv-heads", 8, "KV heads")
    add("--head-dim", 128, "elements of a key and of a value")
    add("--element-bytes", 2.0, "bytes of a stored element: f16 2, q8 1 and its scale")
    add("--queries", 1, "new tokens in a step")
    add("--pieces", 8, "pieces of the rows")
    add("--read-gb-per-s", 200.0, "rate at which a node's attention reads keys and values")
    add("--merge-gb-per-s", 50.0, "rate at which a node's threads merge partial states")
    add("--latency-us", 20.0, "latency of a message")
    add("--link-gb-per-s", 1.25, "rate of a node's link, in each direction")
    return parser.parse_args()


def main():
    o = parse()
    rows = Rows(o.queries * o.query_heads, o.head_dim, o.pieces)
    tokens = o.ctx / o.nodes
    attention = tokens * 2 * o.kv_heads * o.head_dim * o.element_bytes / (o.read_gb_per_s * 1e9)
    merges = tokens / CHUNK_TOKENS * rows.state_bytes / (o.merge_gb_per_s * 1e9)
    reduction = reduction_seconds(rows, o.nodes, o.latency_us * 1e-6, o.link_gb_per_s * 1e9, merges)
    sent = bytes_sent(rows, o.nodes)
    one_node = attention * o.nodes
    print(f"                              per layer     per step of {o.layers} layers")
    for name, seconds in [
        ("attention", attention),
        ("reduction", reduction),
        ("  of which one rank's merges", merges),
        ("together", attention + reduction),
        ("one node with all tokens", one_node),
    ]:
        print(f"{name:28} {seconds * 1e3:8.3f} ms  {seconds * o.layers * 1e3:8.1f} ms")
    for name, n_bytes in [("sent by all nodes", sum(sent)), ("sent by the last node", sent[-1]), ("by each other", sent[0])]:
        print(f"{name:28} {n_bytes / 1e3:8.1f} kB  {n_bytes * o.layers / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()

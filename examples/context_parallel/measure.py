#!/usr/bin/env python3
"""Measures layers of context-parallel decoding over networks of several latencies and rates, and compares with model.py.

All ranks run on this machine; slow_network.cpp, preloaded, delays their messages. Prints a table in Markdown.
"""

import argparse
import pathlib

import cluster
import model

# Ranks, latency in microseconds, MB/s of each link, pieces.
NETWORKS = [
    (2, 0, 0, 8),
    (2, 1000, 0, 8),
    (2, 5000, 0, 8),
    (2, 1000, 10, 1),
    (2, 1000, 10, 8),
    (4, 0, 0, 8),
    (4, 1000, 0, 8),
    (4, 5000, 0, 8),
    (4, 1000, 10, 1),
    (4, 1000, 10, 8),
    (8, 1000, 0, 8),
    (8, 1000, 10, 8),
]
ROWS = 64
HEAD_DIM = 128


def measure(options, n_ranks, latency, rate, pieces):
    network = [f"KVLANE_LATENCY_US={latency}", f"KVLANE_MB_PER_S={rate}"]
    preload = f"LD_PRELOAD={options.directory / 'libkvlane_slow_network.so'}"
    arguments = ["--query-heads", str(ROWS), "--head-dim", str(HEAD_DIM), "--pieces", str(pieces)]
    arguments += ["--ctx", str(options.ctx), "--steps", str(options.steps)]
    program = str(options.directory / "kvlane-context-parallel")
    results = cluster.run(options.mpirun, program, n_ranks, arguments, [preload, *network])
    return {name: numbers[0] for name, numbers in results.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path, help="where the build has the program")
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--ctx", type=int, default=8192, help="tokens in the cache (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="steps of two layers (default: %(default)s)")
    options = parser.parse_args()
    options.directory = options.directory.resolve()
    print("| ranks | latency | MB/s | pieces | attention | merges | reduction, model | layer, model | layer, measured | ratio |")
    print("| ---: " * 10 + "|")
    for n_ranks, latency, rate, pieces in NETWORKS:
        got = measure(options, n_ranks, latency, rate, pieces)
        rows = model.Rows(ROWS, HEAD_DIM, pieces)
        bytes_per_second = rate * 1e6 if rate > 0 else float("inf")
        reduction = 1e6 * model.reduction_seconds(
            rows, n_ranks, got["latency_us"] * 1e-6, bytes_per_second, got["merges_us"] * 1e-6
        )
        layer = got["attention_us"] + reduction
        row = [n_ranks, got["latency_us"], rate or "any", pieces, got["attention_us"], got["merges_us"], reduction, layer]
        row += [got["layer_us"], f"{got['layer_us'] / layer:.2f}"]
        print("| " + " | ".join(f"{cell:.0f}" if isinstance(cell, float) else str(cell) for cell in row) + " |", flush=True)


main()

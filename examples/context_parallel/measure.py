#!/usr/bin/env python3
"""Measures layers of context-parallel decoding over networks of several latencies and rates, and compares with model.py.

All ranks run on this machine; slow_network.cpp, preloaded, delays their messages. Prints a table in Markdown: medians over
steps and layers of the slowest rank's times, in microseconds; the ratio is the measured time of a layer to the model's.
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
    parser.add_argument("--ctx", type=int, default=4096, help="tokens in the cache (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="steps of two layers (default: %(default)s)")
    options = parser.parse_args()
    options.directory = options.directory.resolve()
    print("| ranks | added latency | MB/s | pieces | latency | attention | merges | reduction (model) | layer (model) | layer | ratio |")
    print("| ---: " * 11 + "|")
    for n_ranks, latency, rate, pieces in NETWORKS:
        got = measure(options, n_ranks, latency, rate, pieces)
        rows = model.Rows(ROWS, HEAD_DIM, pieces)
        bytes_per_second = rate * 1e6 if rate > 0 else float("inf")
        reduction = 1e6 * model.reduction_seconds(
            rows, n_ranks, got["latency_us"] * 1e-6, bytes_per_second, got["merges_us"] * 1e-6
        )
        layer = got["attention_us"] + reduction
        times = [got["latency_us"], got["attention_us"], got["merges_us"], reduction, layer, got["layer_us"]]
        row = [n_ranks, latency, rate or "any", pieces, *(f"{time:.0f}" for time in times), f"{got['layer_us'] / layer:.2f}"]
        print(f"| {' | '.join(map(str, row))} |", flush=True)


main()

"""Runs kvlane-context-parallel on four ranks: outputs have the bits of one call, and the bytes sent are those of model.py.

Arguments: mpirun, the program and, if each rank runs in a network namespace of its own, the names of these.
"""

import json
import subprocess
import sys

import cluster
import model

N_RANKS = 4
N_STEPS = 2
N_LAYERS = 2
SHAPE = {"--query-heads": 6, "--kv-heads": 2, "--head-dim": 48, "--v-head-dim": 41}
CASES = [
    {"--ctx": 5000},
    {"--ctx": 0},  # fewer chunks than ranks
    {"--ctx": 700, "--format": "f32"},
    {"--ctx": 511, "--chunks": "1,1,1,1"},  # the new tokens are the first rank's, then the second's
    {"--ctx": 3000, "--chunks": "3,0,1,2", "--format": "q8", "--sink-logits": None},
    {"--ctx": 3000, "--queries": 37, "--format": "q4", "--pieces": 5, "--threads": 2},
    {"--ctx": 1000, "--queries": 600, "--sink-logits": None},  # a prompt over two ranks
    {"--ctx": 2500, "--window": 900, "--sink-tokens": 7, "--softcap": 20, "--format": "bf16", "--pieces": 1},
]


def check(mpirun, program, case):
    options = {**SHAPE, "--layers": N_LAYERS, "--steps": N_STEPS, **case}
    words = [str(word) for option in options.items() for word in option if word is not None]
    results = cluster.run(mpirun, program, N_RANKS, ["--check", *words])
    rows = model.Rows(options.get("--queries", 1) * options["--query-heads"], options["--v-head-dim"], 1)
    expected = [n * N_LAYERS * N_STEPS for n in model.bytes_sent(rows, N_RANKS)]
    assert results["identical_outputs"] == [N_LAYERS * N_STEPS], results
    assert results["bytes_sent"] == expected, (results, expected)


def transmitted(namespace):
    """The bytes that the namespace's network interface has sent."""
    shown = subprocess.run(["ip", "-n", namespace, "-s", "-j", "link", "show", "eth0"], capture_output=True, check=True)
    return json.loads(shown.stdout)[0]["stats64"]["tx"]["bytes"]


def check_interfaces(mpirun, program, namespaces):
    """What leaves a rank's interface is its messages, TCP's and Ethernet's headers, and Open MPI's own messages."""
    before = [transmitted(namespace) for namespace in namespaces]
    sent = cluster.run(mpirun, program, N_RANKS, ["--layers", "4", "--steps", "50", "--ctx", "512"])["bytes_sent"]
    for namespace, start, n_bytes in zip(namespaces, before, sent):
        on_wire = transmitted(namespace) - start
        print(f"{namespace}: {n_bytes:.0f} bytes of messages, {on_wire} bytes on the interface")
        assert n_bytes <= on_wire <= 1.1 * n_bytes + 100_000, on_wire / n_bytes


def main(mpirun, program, *namespaces):
    for case in CASES:
        check(mpirun, program, case)
    if namespaces:
        check_interfaces(mpirun, program, namespaces)


main(*sys.argv[1:])

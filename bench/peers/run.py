#!/usr/bin/env python3
"""Compares kvlane's decode attention with that of other libraries. Every library runs in a process of its own; blocks of calls are
timed by turns, with pauses in which spinning threads fall asleep. Prints a table of ratios of times (kvlane is so many times
faster); a run of everything also writes it, with a picture, into docs. ./dev peers sets up what this needs."""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import time

import page
import shapes

HERE = pathlib.Path(__file__).parent
VENVS = {  # by peer; kvlane is the one that the others are compared with
    "kvlane": "main",
    "onnxruntime": "main",
    "openvino": "main",
    "torch": "torch",
    "vllm": "torch",
    "ggml": "ggml",
    "numpy": "main",
}
REQUEST_SECONDS = 120


class PeerFailed(Exception):
    """A request that a peer cannot serve."""


class Process:
    """One peer's worker (worker.py)."""

    def __init__(self, command, environment=None):
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                      bufsize=1, env=environment)  # fmt: skip
        try:
            self.read_answer()  # whether the peer could be loaded
        except PeerFailed:
            self.stop()
            raise

    def request(self, do, **arguments):
        try:
            print(json.dumps({"do": do, **arguments}), file=self.child.stdin, flush=True)
        except (BrokenPipeError, ValueError):
            raise PeerFailed("its process ended") from None
        return self.read_answer()

    def read_answer(self):
        if not select.select([self.child.stdout], [], [], REQUEST_SECONDS)[0]:
            self.stop()
            raise PeerFailed(f"no answer within {REQUEST_SECONDS} s")
        line = self.child.stdout.readline()
        if not line:
            status = self.child.wait()
            self.stop()
            raise PeerFailed(f"its process ended with status {status}")
        answer = json.loads(line)
        if "failed" in answer:
            raise PeerFailed(answer["failed"])
        return answer

    def stop(self):
        self.child.kill()
        self.child.communicate()  # closes the pipes

    @property
    def runs(self):
        return self.child.poll() is None


# malloc and torch ask the system for huge pages, as kvlane does; numpy's threads spin for 2^20 cycles after a call, not 2^26, so
# that they sleep before the next library's block.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "THP_MEM_ALLOC_ENABLE": "1", "OPENBLAS_THREAD_TIMEOUT": "20"}


def start(peer, venvs):
    python = venvs / VENVS[peer] / "bin" / "python"
    if not python.exists():
        raise PeerFailed(f"there is no {python}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}  # its own choice
    environment |= ENVIRONMENT
    return Process([python, "-B", HERE / "worker.py", peer], environment)


@dataclasses.dataclass
class Entry:
    """A configuration of a peer, with a process of its own."""

    peer: str
    configuration: str
    format: str
    process: Process | None = None
    error: float = 0.0
    bytes: int = 0
    blocks: list = dataclasses.field(default_factory=list)  # median call of each, in seconds
    failure: str = ""  # why it is left out

    @contextlib.contextmanager
    def failing(self):
        """What fails inside leaves the entry out from then on."""
        try:
            yield
        except PeerFailed as error:
            self.failure = str(error)

    def use_threads(self, threads):
        self.blocks = []
        with self.failing():
            answer = self.process.request("use_threads", threads=threads)
            self.error, self.bytes = answer["error"], answer.get("bytes", 0)
            if not self.error <= shapes.TOLERANCE[self.format]:
                raise PeerFailed(f"its output is wrong: relative error {self.error:.1e}")

    def run_block(self, seconds):
        with self.failing():
            times = self.process.request("block", seconds=seconds)["times"]
            self.blocks.append(statistics.median(times) / 1e9)


class Processes:
    """The workers, each started when it is first needed, and again after it has ended."""

    def __init__(self, peers, start_peer):
        self.start_peer = start_peer
        self.running = {}
        self.versions, self.configurations, self.missing = {}, {}, {}
        for peer in peers:
            try:
                description = self.of(peer, 0).request("describe")
            except PeerFailed as error:
                self.missing[peer] = str(error)
                continue
            self.versions[peer] = description["version"]
            self.configurations[peer] = description["configurations"]

    def of(self, peer, i):
        """Returns the worker of a peer's i-th configuration of a format."""
        process = self.running.get((peer, i))
        if process is None or not process.runs:
            process = self.running[peer, i] = self.start_peer(peer)
        return process

    def stop(self):
        for process in self.running.values():
            process.stop()


def entries_of(processes, shape):
    """Returns an entry for every configuration, all set up, as many at a time as there are CPUs."""

    def set_up(peer, i, configuration):
        entry = Entry(peer, configuration, shape.format)
        with entry.failing():
            entry.process = processes.of(peer, i)
            entry.process.request("setup", shape=shape.as_json(), configuration=configuration)
        return entry

    of_format = {peer: by_format.get(shape.format, ()) for peer, by_format in processes.configurations.items()}
    wanted = [(peer, i, name) for peer, names in of_format.items() for i, name in enumerate(names)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda entry: set_up(*entry), wanted))


def run_blocks(entries, rounds, block_seconds, pause_seconds):
    """Times blocks of all entries by turns, each round beginning with another one, and samples of the read bandwidth after them.
    Returns this bandwidth in bytes per second."""
    for i in range(rounds):
        for entry in entries[i % len(entries) :] + entries[: i % len(entries)]:
            if not entry.failure:
                time.sleep(pause_seconds)
                entry.run_block(block_seconds)
        time.sleep(pause_seconds)
        bandwidth = kvlane_of(entries).process.request("sample_limits")["bandwidth"]
    return bandwidth


def kvlane_of(entries):
    """Returns kvlane's entry, without which there is nothing to compare."""
    kvlane = next(entry for entry in entries if entry.peer == "kvlane")
    if kvlane.failure:
        raise PeerFailed(f"kvlane {kvlane.configuration}: {kvlane.failure}")
    return kvlane


def ratios(entry, kvlane):
    """Returns quartiles of the ratios of the two's times, round by round."""
    paired = [theirs / ours for theirs, ours in zip(entry.blocks, kvlane.blocks, strict=True)]
    low, middle, high = statistics.quantiles(paired, n=4, method="inclusive") if len(paired) > 1 else paired * 3
    return {"low": low, "median": middle, "high": high}


def summary(entry, kvlane):
    return {
        "peer": entry.peer,
        "configuration": entry.configuration,
        "error": entry.error,
        "seconds": statistics.median(entry.blocks),
        "ratio": ratios(entry, kvlane),
    }


def measure(entries, shape, threads, rounds, block_seconds, pause_seconds):
    """Returns the row of one shape on so many threads."""
    for entry in entries:
        if not entry.failure:
            entry.use_threads(threads)
    bandwidth = run_blocks(entries, rounds, block_seconds, pause_seconds)
    kvlane = kvlane_of(entries)
    return {
        **shape.as_json(),
        "threads": threads,
        "bytes": kvlane.bytes,
        "bandwidth": bandwidth,
        "entries": [summary(entry, kvlane) for entry in entries if not entry.failure],
        "failures": {f"{entry.peer} {entry.configuration}": entry.failure for entry in entries if entry.failure},
    }


def measure_shape(processes, shape, all_threads, rounds):
    """Yields a row for each number of threads."""
    entries = entries_of(processes, shape)
    for threads in all_threads:
        yield measure(entries, shape, threads, rounds, block_seconds=0.01, pause_seconds=0.01)
    for entry in entries:
        if entry.process:
            with entry.failing():
                entry.process.request("drop")


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    fields = dict(line.split("\t: ", 1) for line in info.split("\n\n")[0].replace("\t\t", "\t").splitlines() if "\t: " in line)
    return {
        "cpu": f"{fields.get('model name', 'unknown')} (family {fields.get('cpu family')}, model {fields.get('model')})",
        "n_cpus": os.cpu_count(),
        "last_level_cache_mb": shapes.last_level_cache_bytes() >> 20,
    }


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def arguments_of(argv):
    parser = argparse.ArgumentParser(prog="./dev peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one model: whether everything works")
    parser.add_argument("--peers", default=",".join(VENVS), help="which libraries, by commas; kvlane always is among them")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only shapes with TEXT in their label, model/format/ctx:n/cold say")
    parser.add_argument("--rounds", type=int, default=11, help="blocks of every library and shape (default %(default)s)")
    parser.add_argument("--json", type=argparse.FileType("w"), metavar="FILE", help="write the results there")
    parser.add_argument("--from", type=pathlib.Path, metavar="FILE", dest="results", help="no run: the page of such results")
    parser.add_argument("--venvs", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.peers = list(dict.fromkeys(["kvlane", *arguments.peers.split(",")]))
    unknown = set(arguments.peers) - set(VENVS)
    if unknown:
        parser.error(f"--peers has {', '.join(sorted(unknown))}; it must be of {', '.join(VENVS)}")
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; it must be 1 or more")
    return arguments


def shapes_of(arguments):
    models = shapes.MODELS[:1] if arguments.quick else shapes.MODELS
    every = [
        shapes.Shape(model, format, 8192 if is_cold else 512, is_cold)
        for is_cold in (True, False)
        for model in models
        for format in shapes.BITS
    ]
    return [shape for shape in every if arguments.filter in shape.label]


def run(arguments):
    """Returns the results of all shapes."""
    processes = Processes(arguments.peers, lambda peer: start(peer, arguments.venvs))
    is_whole = not (arguments.quick or arguments.filter) and set(arguments.peers) == set(VENVS)
    results = {"commit": commit(), "machine": machine(), "rounds": arguments.rounds, "is_whole": is_whole, "rows": []}
    try:
        if "kvlane" in processes.missing:
            sys.exit(f"kvlane: {processes.missing['kvlane']}")
        (results["smallest"],) = measure_shape(processes, shapes.SMALLEST, [1], arguments.rounds)
        for shape in shapes_of(arguments):
            began = time.monotonic()
            results["rows"].extend(measure_shape(processes, shape, sorted({1, os.cpu_count()}), arguments.rounds))
            print(f"{shape.label}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    finally:
        processes.stop()
    return {**results, "versions": processes.versions, "missing": processes.missing}


def main():
    arguments = arguments_of(sys.argv[1:])
    results = json.loads(arguments.results.read_text()) if arguments.results else run(arguments)
    if arguments.json:
        print(json.dumps(results, indent=1), file=arguments.json, flush=True)
    print("\n".join(page.lines(results)))
    if results["is_whole"]:
        page.write(results, HERE.parent.parent / "docs")


if __name__ == "__main__":
    main()

"""The process of one peer: `worker.py NAME` reads requests from standard input and answers them on standard output, one JSON object
a line. A request names what to do; an answer has "failed", a reason, where it could not be done.

    {"do": "describe"}                      -> version, configurations
    {"do": "setup", "shape",
     "configuration"}                       -> {}
    {"do": "use_threads", "threads"}        -> error: of one output against the oracle; and from kvlane, bytes: of one call
    {"do": "block", "seconds"}              -> times: of single calls in nanoseconds, for as long
    {"do": "sample_limits"}                 -> bandwidth: bytes per second (kvlane alone)
    {"do": "drop"}                          -> {}: frees the layers
"""

import gc
import importlib
import json
import os
import sys
import time

import shapes


class Worker:
    def __init__(self, make_peer):
        self.make_peer = make_peer
        self.peer = make_peer()

    def describe(self):
        return {"version": self.peer.version(), "configurations": self.peer.configurations}

    def drop(self):
        self.peer = None
        gc.collect()
        return {}

    def setup(self, shape, configuration):
        self.drop()
        self.peer = self.make_peer()
        shape = shapes.Shape.from_json(shape)
        self.peer.setup(shape, configuration, *shapes.numbers(shape))
        return {}

    def use_threads(self, threads):
        self.peer.use_threads(threads)
        self.peer.prepare()
        self.peer.run()
        answer = {"error": shapes.error(self.peer.output(), shapes.oracle(*self.peer.stored()))}
        if hasattr(self.peer, "bytes_per_call"):
            answer["bytes"] = self.peer.bytes_per_call()
        return answer

    def block(self, seconds):
        """The first call, which wakes threads and loads caches, is not timed."""
        run, now = self.peer.run, time.perf_counter_ns
        self.peer.prepare()
        run()
        times = []
        end = now() + seconds * 1e9
        while not times or (now() < end and len(times) + 1 < self.peer.max_calls):
            start = now()
            run()
            times.append(now() - start)
        return {"times": times}

    def sample_limits(self):
        return {"bandwidth": self.peer.sample_limits()}

    def answer(self, line):
        """Whatever goes wrong is the answer."""
        try:
            request = json.loads(line)
            return getattr(self, request.pop("do"))(**request)
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}"}


def import_peer(name):
    return importlib.import_module(f"peer_{name}").Peer


def main():
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    try:
        worker = Worker(import_peer(sys.argv[1]))
    except Exception as error:
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), file=answers)
        return
    print(json.dumps({}), file=answers)
    for line in sys.stdin:
        print(json.dumps(worker.answer(line)), file=answers)


if __name__ == "__main__":
    main()

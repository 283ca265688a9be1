"""The comparison with other libraries, on made-up peers and numbers; of real ones kvlane, whose library is in the environment as
KVLANE_PEER_LIBRARY, and numpy. Exits with 77 if numpy is missing."""

import argparse
import contextlib
import io
import os
import pathlib
import sys
import tempfile
import unittest
import xml.etree.ElementTree

try:
    import numpy
except ImportError:
    print("skipped: numpy is not installed")
    sys.exit(77)

import page
import run
import shapes
import worker

HERE = pathlib.Path(__file__).parent
TINY = shapes.Shape(shapes.Model("tiny", 4, 2, 32), "f32", 70, False)

# A peer that prints, and whose configurations say what it does: right, wrong, raises, ends.
FAKE = """
import os
import peer, shapes
class Peer(peer.Base):
    configurations = {"f32": ("right", "wrong")}
    def version(self):
        return "1.2"
    def setup(self, shape, configuration, q, k, v):
        print("this is no answer", flush=True)
        os.system("echo nor is this")
        self.configuration, self.numbers = configuration, (q, k, v)
        if configuration == "raises":
            raise ValueError("cannot")
    def use_threads(self, threads):
        self.threads = threads
    def stored(self):
        return self.numbers
    def run(self):
        if self.configuration == "ends":
            os._exit(3)
    def output(self):
        return shapes.oracle(*self.numbers) * (2 if self.configuration == "wrong" else 1)
"""


def start_fake(source=FAKE):
    """Starts the worker of a peer of that source."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "peer_fake.py").write_text(source)
        environment = {**os.environ, "PYTHONPATH": folder}
        return run.Process([sys.executable, "-B", HERE / "worker.py", "fake"], environment)


def set_up_fake(process, configuration):
    """Returns the answer to use_threads."""
    process.request("setup", shape=TINY.as_json(), configuration=configuration)
    return process.request("use_threads", threads=1)


class Workers(unittest.TestCase):
    def setUp(self):
        self.process = start_fake()
        self.addCleanup(self.process.stop)

    def test_describe(self):
        self.assertEqual(self.process.request("describe"), {"version": "1.2", "configurations": {"f32": ["right", "wrong"]}})

    def test_outputs_are_compared_with_the_oracle(self):
        self.assertEqual(set_up_fake(self.process, "right"), {"error": 0})
        self.assertAlmostEqual(set_up_fake(self.process, "wrong")["error"], 1)

    def test_a_block_lasts_as_long_as_it_shall(self):
        set_up_fake(self.process, "right")
        times = self.process.request("block", seconds=0.01)["times"]
        self.assertGreater(len(times), 1)
        self.assertLess(sum(times), 1e9)
        self.assertEqual(len(self.process.request("block", seconds=0)["times"]), 1)

    def test_what_goes_wrong_is_an_answer(self):
        with self.assertRaisesRegex(run.PeerFailed, "ValueError: cannot"):
            set_up_fake(self.process, "raises")
        with self.assertRaisesRegex(run.PeerFailed, "no attribute 'fly'"):
            self.process.request("fly")
        self.assertEqual(set_up_fake(self.process, "right"), {"error": 0})

    def test_a_process_that_ends(self):
        with self.assertRaisesRegex(run.PeerFailed, "its process ended with status 3"):
            set_up_fake(self.process, "ends")
        self.assertFalse(self.process.runs)
        with self.assertRaisesRegex(run.PeerFailed, "its process ended"):
            self.process.request("describe")


class Missing(unittest.TestCase):
    def test_a_peer_that_cannot_be_loaded(self):
        def start(peer):
            return start_fake("import not_installed")

        processes = run.Processes(["fake"], start)
        self.assertEqual(processes.missing, {"fake": "ModuleNotFoundError: No module named 'not_installed'"})
        self.assertEqual(processes.versions, {})

    def test_a_peer_without_a_virtual_environment(self):
        with self.assertRaisesRegex(run.PeerFailed, "there is no /nowhere/torch/bin/python"):
            run.start("torch", pathlib.Path("/nowhere"))


class Scripted:
    """A process that gives answers from a list, one after the other, and writes down who was asked."""

    runs = True

    def __init__(self, name, log, answers=()):
        self.name, self.log, self.answers = name, log, list(answers)

    def request(self, do, **_):
        self.log.append(f"{self.name} {do}")
        answer = self.answers.pop(0) if self.answers else {"times": [1000, 3000, 2000], "bandwidth": 5e9}
        if isinstance(answer, Exception):
            raise answer
        return answer


def entries_of(log, **answers):
    return [run.Entry(peer, "x", "f32", Scripted(peer, log, answers.get(peer, ()))) for peer in ("kvlane", "a", "b")]


class Turns(unittest.TestCase):
    def test_every_round_begins_with_another_one_and_ends_with_the_bandwidth(self):
        log = []
        entries = entries_of(log)
        self.assertEqual(run.run_blocks(entries, 2, 0.01, 0), 5e9)
        self.assertEqual(log, ["kvlane block", "a block", "b block", "kvlane sample_limits",
                               "a block", "b block", "kvlane block", "kvlane sample_limits"])  # fmt: skip
        self.assertEqual(entries[1].blocks, [2e-6, 2e-6])

    def test_who_fails_is_left_out_from_then_on(self):
        log = []
        entries = entries_of(log, a=[{"times": [1]}, run.PeerFailed("crash")])
        run.run_blocks(entries, 3, 0.01, 0)
        self.assertEqual(log.count("a block"), 2)
        self.assertEqual(log.count("b block"), 3)
        self.assertEqual([entry.failure for entry in entries], ["", "crash", ""])

    def test_ratios_are_of_the_same_round(self):
        kvlane, other = run.Entry("kvlane", "x", "f32"), run.Entry("a", "x", "f32")
        kvlane.blocks, other.blocks = [1, 10, 100, 1, 1], [2, 30, 400, 5, 6]
        self.assertEqual(run.ratios(other, kvlane), {"low": 3, "median": 4, "high": 5})
        kvlane.blocks, other.blocks = [2], [3]
        self.assertEqual(run.ratios(other, kvlane), {"low": 1.5, "median": 1.5, "high": 1.5})

    def test_wrong_outputs_are_not_timed(self):
        log = []
        right, times, bandwidth = {"error": 1e-7, "bytes": 9}, {"times": [1000]}, {"bandwidth": 5e9}
        wrong = {"error": 1.5e-5}  # more than f32's tolerance
        entries = entries_of(log, kvlane=[right, times, bandwidth], a=[wrong], b=[{"error": float("nan")}])
        row = run.measure(entries, TINY, 1, 1, 0.01, 0)
        self.assertEqual([entry["peer"] for entry in row["entries"]], ["kvlane"])
        self.assertEqual(row["failures"], {"a x": "its output is wrong: relative error 1.5e-05",
                                           "b x": "its output is wrong: relative error nan"})  # fmt: skip
        self.assertEqual([row["bytes"], row["bandwidth"], row["threads"]], [9, 5e9, 1])
        self.assertEqual(log, ["kvlane use_threads", "a use_threads", "b use_threads", "kvlane block", "kvlane sample_limits"])

    def test_without_kvlane_there_is_nothing_to_compare(self):
        with self.assertRaisesRegex(run.PeerFailed, "kvlane x: its output is wrong"):
            run.measure(entries_of([], kvlane=[{"error": 1}], a=[{"error": 0}], b=[{"error": 0}]), TINY, 1, 1, 0.01, 0)

    def test_every_configuration_of_a_format_has_a_process_of_its_own(self):
        log, answers = [], {"a0": [run.PeerFailed("no memory")]}
        processes = argparse.Namespace(
            configurations={"kvlane": {"f32": ["f32"]}, "a": {"f32": ["x", "y"]}, "b": {"q8": ["z"]}},
            of=lambda peer, i: Scripted(f"{peer}{i}", log, answers.get(f"{peer}{i}", ())),
        )
        entries = run.entries_of(processes, TINY)
        self.assertEqual(sorted(log), ["a0 setup", "a1 setup", "kvlane0 setup"])
        self.assertEqual([(entry.peer, entry.configuration, entry.failure) for entry in entries],
                         [("kvlane", "f32", ""), ("a", "x", "no memory"), ("a", "y", "")])  # fmt: skip


class Oracle(unittest.TestCase):
    def test_against_plain_loops(self):
        q, k, v = shapes.numbers(TINY)
        expected = numpy.zeros(q.shape)
        for head in range(4):
            scores = [sum(float(a) * float(b) for a, b in zip(q[head], row)) / 32**0.5 for row in k[head // 2]]
            weights = [2.718281828459045**score for score in scores]
            for weight, row in zip(weights, v[head // 2]):
                expected[head] += weight / sum(weights) * row.astype(float)
        self.assertLess(shapes.error(shapes.oracle(q, k, v), expected), 1e-12)

    def test_cold_calls_rotate_over_more_than_the_cache(self):
        cold = shapes.Shape(shapes.MODELS[0], "q8", 8192, True)
        self.assertEqual(cold.layer_bytes, 2 * 8 * 8192 * 128)
        self.assertGreater(cold.n_layers() * cold.layer_bytes, 2 * shapes.last_level_cache_bytes())
        self.assertEqual(TINY.n_layers(), 1)


class RealPeers(unittest.TestCase):
    def check(self, peer):
        try:
            real = worker.Worker(worker.import_peer(peer))
        except ImportError as error:
            self.skipTest(f"{error.name} is not installed")
        for form, configurations in real.describe()["configurations"].items():
            for configuration in configurations:
                shape = shapes.Shape(TINY.model, form, 150, False)
                with self.subTest(form=form, configuration=configuration):
                    real.setup(shape.as_json(), configuration)
                    for threads in (1, 2):
                        self.assertLess(real.use_threads(threads)["error"], shapes.TOLERANCE[form])
                        self.assertTrue(real.block(0.001)["times"])
        return real

    def test_numpy(self):
        self.check("numpy")

    def test_kvlane(self):
        if "KVLANE_PEER_LIBRARY" not in os.environ:
            self.skipTest("KVLANE_PEER_LIBRARY is not set")
        real = self.check("kvlane")
        self.assertGreater(real.sample_limits()["bandwidth"], 1e6)
        with self.assertRaisesRegex(RuntimeError, "q9"):
            real.setup(TINY.as_json(), "q9")


def entry(peer, configuration, seconds, ratio, error=1e-7):
    quartiles = {"low": ratio * 0.9, "median": ratio, "high": ratio * 1.1}
    return {"peer": peer, "configuration": configuration, "error": error, "seconds": seconds, "ratio": quartiles}


def row(is_cold, threads, entries, failures=()):
    shape = shapes.Shape(shapes.MODELS[0], "f16", 8192 if is_cold else 512, is_cold)
    return {**shape.as_json(), "threads": threads, "bytes": 40_000, "bandwidth": 8e9, "entries": entries, "failures": dict(failures)}


KVLANE = entry("kvlane", "f16", 10e-6, 1)
RESULTS = {
    "commit": "0123456",
    "machine": {"cpu": "A CPU (family 6, model 1)", "n_cpus": 2, "last_level_cache_mb": 32},
    "rounds": 11,
    "versions": {"kvlane": "0.2.0 avx2", "torch": "2.0", "ggml": "0.9", "vllm": "0.1"},
    "missing": {"openvino": "ModuleNotFoundError: No module named 'openvino'"},
    "smallest": row(False, 1, [KVLANE, entry("torch", "f32", 12e-6, 1.2)]),
    "rows": [
        row(True, 1, [KVLANE, entry("torch", "bf16", 30e-6, 3), entry("torch", "f16", 20e-6, 2, 3e-4), entry("ggml", "f16", 12e-6, 1.2)]),
        row(False, 2, [KVLANE, entry("torch", "bf16", 15e-6, 1.5), entry("torch", "f16", 20e-6, 2)], {"ggml f16": "crash"}),
    ],
}  # fmt: skip


class Page(unittest.TestCase):
    text = "\n".join(page.lines(RESULTS))

    def test_the_fastest_configuration_counts_and_near_ones_stand_out(self):
        self.assertIn("\n8192 tokens, from memory, 1 thread:\n", self.text)
        self.assertIn("| llama-3-8b, f16 | 10.0 | 4.0 (50%) | 2.00 (1.80 to 2.20) | **1.20** (1.08 to 1.32) |", self.text)

    def test_a_peer_without_a_figure_has_an_empty_cell(self):
        self.assertIn("\n512 tokens, hot, 2 threads:\n", self.text)
        self.assertIn("| llama-3-8b, f16 | 10.0 | 4.0 (50%) | 1.50 (1.35 to 1.65) |  |", self.text)

    def test_the_legend_says_versions_and_what_is_missing(self):
        self.assertIn("| torch | 2.0 | f16, bf16 | 3e-04 | 12.0 |", self.text)
        self.assertIn("| ggml | 0.9 | f16 | 1e-07 |  |", self.text)
        self.assertIn("| openvino | not measured: ModuleNotFoundError: No module named 'openvino' | | | |", self.text)
        self.assertIn("ggml f16 was not measured in 1 cases, the first one llama-3-8b/f16, 512 tokens, hot, 2 threads: crash", self.text)
        self.assertNotIn("| vllm", self.text)

    def test_only_what_lies_between_the_marks_changes(self):
        old = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
        new = page.between_marks(old, ["new", "lines"])
        self.assertEqual(new, f"before\n{page.BEGIN}\nnew\nlines\n{page.END}\nafter\n")
        self.assertEqual(page.between_marks(new, ["new", "lines"]), new)
        with self.assertRaisesRegex(ValueError, "no marks"):
            page.between_marks("before\n", [])

    def test_performance_md_has_the_marks(self):
        text = (HERE.parent.parent / "docs" / "performance.md").read_text(encoding="utf-8")
        self.assertEqual(page.between_marks(text, ["x"]).count("\nx\n"), 1)

    def test_the_picture_names_every_peer(self):
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            self.skipTest("matplotlib is not installed")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "peers.svg"
            page.draw(RESULTS, path)
            texts = {"".join(text.itertext()) for text in xml.etree.ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")}
        self.assertLessEqual({"torch", "ggml", "all threads", "llama-3-8b", "f16, hot", "f16, from memory"}, texts)


class Arguments(unittest.TestCase):
    def test_peers(self):
        parsed = run.arguments_of(["--venvs", "x", "--peers", "ggml,numpy"])
        self.assertEqual(parsed.peers, ["kvlane", "ggml", "numpy"])
        for wrong in (["--peers", "ggml,gmml"], ["--rounds", "0"]):
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as errors:
                run.arguments_of(["--venvs", "x", *wrong])
            self.assertRegex(errors.getvalue(), "--peers has gmml; it must be of kvlane|--rounds is 0; it must be 1 or more")

    def test_shapes(self):
        every = run.shapes_of(run.arguments_of(["--venvs", "x"]))
        self.assertEqual(len({shape.label for shape in every}), len(shapes.MODELS) * len(shapes.BITS) * 2)
        cold = run.shapes_of(run.arguments_of(["--venvs", "x", "--quick", "--filter", "q4/ctx:8192/cold"]))
        self.assertEqual([shape.label for shape in cold], ["llama-3-8b/q4/ctx:8192/cold"])


if __name__ == "__main__":
    unittest.main()

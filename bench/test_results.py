"""What compare.py says of made-up files."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

here = pathlib.Path(__file__).parent


def row(label, fraction, bytes_per_second=1e9):
    return {
        "name": f"{label}/min_time:0.200/manual_time",
        "run_type": "iteration",
        "bytes_per_second" if label.startswith("append/") else "kv_bytes_per_second": bytes_per_second,
        "limit_fraction": fraction,
    }


def compare(before, after, *arguments, isas=("avx2", "avx2")):
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, rows, isa in zip(("before.json", "after.json"), (before, after), isas):
            if rows is None:
                continue
            path = pathlib.Path(folder) / name
            run = {"context": {"kvlane_isa": isa}, "benchmarks": rows}
            path.write_text(rows if isinstance(rows, str) else json.dumps(run))
            paths.append(str(path))
        command = [sys.executable, str(here / "compare.py"), *paths, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)


label = "decode/llama-3-8b/f16/ctx:8192/threads:1/cold"


class Compare(unittest.TestCase):
    def test_a_label_that_got_slower_is_named_and_fails(self):
        done = compare([row(label, 0.8)], [row(label, 0.4)])
        self.assertEqual(done.returncode, 1)
        self.assertIn("slower 100.0%", done.stdout)
        self.assertIn(label, done.stdout)

    def test_a_slower_machine_is_not_a_slower_library(self):
        done = compare([row(label, 0.8, 2e9)], [row(label, 0.8, 1e9)])
        self.assertEqual((done.returncode, done.stdout), (0, "1 labels compared, 0 slower\n"))

    def test_what_got_faster_does_not_fail(self):
        done = compare([row(label, 0.4)], [row(label, 0.8)])
        self.assertEqual(done.returncode, 0)
        self.assertIn("faster", done.stdout)

    def test_the_spread_of_repetitions_is_noise(self):
        done = compare([row(label, 0.9), row(label, 0.8), row(label, 0.6)], [row(label, 0.7)])
        self.assertEqual((done.returncode, done.stdout), (0, "1 labels compared, 0 slower\n"))

    def test_noise_is_the_callers_to_choose(self):
        self.assertEqual(compare([row(label, 0.8)], [row(label, 0.7)], "--noise", "0.2").returncode, 0)
        self.assertEqual(compare([row(label, 0.8)], [row(label, 0.7)]).returncode, 1)

    def test_appends_are_compared_too(self):
        append = "append/llama-3-8b/f16/ctx:2048/threads:1/cold"
        done = compare([row(append, 0.8)], [row(append, 0.4)])
        self.assertIn("slower 100.0% (noise 5.0%)  append/llama-3-8b", done.stdout)

    def test_files_of_different_isas_are_not_compared(self):
        done = compare([row(label, 0.8)], [row(label, 0.8)], isas=("avx2", "avx512"))
        self.assertIn("is of isa avx2", done.stderr)
        self.assertNotEqual(done.returncode, 0)

    def test_one_file_alone_gives_the_filter_of_its_labels(self):
        done = compare([row(label, 0.8), row(label.replace("8192", "512"), 0.8)], None)
        pattern = done.stdout.strip()
        self.assertTrue(re.match(pattern, row(label, 0.8)["name"]))
        self.assertFalse(re.match(pattern, row(label.replace("8192", "2048"), 0.8)["name"]))

    def test_files_without_a_common_label_are_an_error(self):
        done = compare([row(label, 0.8)], [row(label.replace("8b", "70b"), 0.8)])
        self.assertIn("no label in common", done.stderr)
        self.assertNotEqual(done.returncode, 0)

    def test_a_file_that_is_something_else_is_an_error_that_names_it(self):
        done = compare("not JSON", [row(label, 0.8)])
        self.assertIn("before.json: not a JSON file that kvlane-bench wrote", done.stderr)
        self.assertNotEqual(done.returncode, 0)

    def test_queries_are_part_of_a_label(self):
        several = label.replace("/threads", "/queries:4/threads")
        done = compare([row(label, 0.8), row(several, 0.8)], [row(label, 0.8), row(several, 0.4)])
        self.assertEqual(done.returncode, 1)
        self.assertIn(several, done.stdout)
        self.assertIn("2 labels compared, 1 slower", done.stdout)

    def test_what_is_no_label_is_refused(self):
        done = compare([row("decode/llama-3-8b", 0.8)], [row(label, 0.8)])
        self.assertIn("no label", done.stderr)
        self.assertNotEqual(done.returncode, 0)


if __name__ == "__main__":
    unittest.main()

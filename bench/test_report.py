"""What report.py makes of a made-up file."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

here = pathlib.Path(__file__).parent
svg = "{http://www.w3.org/2000/svg}"
name = "decode-cold-threads-1"

models = ("llama-3-8b", "gemma-2-2b", "gpt-oss-20b")
forms = ("f32", "f16+q8")
contexts = (512, 2048, 8192)


def row(label, bytes_per_second, limit_fraction):
    return {
        "name": f"{label}/min_time:0.200/manual_time",
        "run_type": "iteration",
        "kv_bytes_per_second": bytes_per_second,
        "limit_fraction": limit_fraction,
    }


def rows():
    """Three repetitions of every label, of which the middle one counts: 10 GB/s and more, at 50 % and more of the limit."""
    for i, model in enumerate(models):
        for j, form in enumerate(forms):
            for ctx in contexts:
                for noise in (0.5, 1.0, 1.8):
                    speed, fraction = (10 + 3 * i + j) * 1e9, 0.5 + 0.1 * i + 0.01 * j
                    yield row(f"decode/{model}/{form}/ctx:{ctx}/threads:1/cold", speed * noise, fraction * noise)
    yield row(f"decode/{models[0]}/f32/ctx:512/threads:2/cold", 99e9, 0.99)
    yield row(f"decode/{models[0]}/f32/ctx:512/threads:1/hot", 99e9, 0.99)
    yield row(f"naive/{models[0]}/f32/ctx:512/threads:1/cold", 99e9, 0.99)


context = {"kvlane_version": "1.2.3", "kvlane_isa": "avx2", "num_cpus": 4, "caches": [{"size": 32768}, {"size": 6 << 20}]}


def report(benchmarks, *arguments):
    """Returns what report.py did, and the text of every file that it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "results.json"
        path.write_text(json.dumps({"context": context, "benchmarks": benchmarks}))
        out = pathlib.Path(folder) / "out"
        command = [sys.executable, "-B", str(here / "report.py"), str(path), "--out", str(out), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done, {file.name: file.read_text() for file in out.glob("*")}


def heights(path):
    """Returns the y of every point of a path."""
    return [float(y) for y in re.findall(r"[ML] \S+ (\S+)", path.get("d"))]


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.done, cls.files = report(list(rows()))
        cls.page = cls.files[f"{name}.md"]
        cls.picture = xml.etree.ElementTree.fromstring(cls.files[f"{name}.svg"])

    def test_the_table_has_the_median_of_every_label_that_is_asked_for(self):
        table = [line for line in self.page.splitlines() if line.startswith("|")]
        self.assertEqual(table, [
            "| model | format | ctx 512 | ctx 2048 | ctx 8192 |",
            "| --- | --- | ---: | ---: | ---: |",
            "| llama-3-8b | f32 | 10.0 (50%) | 10.0 (50%) | 10.0 (50%) |",
            "| llama-3-8b | f16+q8 | 11.0 (51%) | 11.0 (51%) | 11.0 (51%) |",
            "| gemma-2-2b | f32 | 13.0 (60%) | 13.0 (60%) | 13.0 (60%) |",
            "| gemma-2-2b | f16+q8 | 14.0 (61%) | 14.0 (61%) | 14.0 (61%) |",
            "| gpt-oss-20b | f32 | 16.0 (70%) | 16.0 (70%) | 16.0 (70%) |",
            "| gpt-oss-20b | f16+q8 | 17.0 (71%) | 17.0 (71%) | 17.0 (71%) |",
        ])

    def test_the_page_tells_the_library_and_the_machine_and_shows_the_picture(self):
        self.assertIn("kvlane 1.2.3, avx2, 4 CPUs, 6 MB last-level cache", self.page)
        self.assertIn(f"({name}.svg)", self.page)

    def panels(self):
        return [group for group in self.picture.iter(f"{svg}g") if group.get("id", "").startswith("axes_")]

    def test_the_picture_has_a_panel_for_each_model(self):
        texts = [text.text for text in self.picture.iter(f"{svg}text")]
        self.assertEqual([texts.count(model) for model in models], [1] * len(models))
        self.assertEqual(len(self.panels()), len(models))

    def test_a_panel_has_a_curve_and_a_limit_for_each_format(self):
        for model, panel in zip(models, self.panels()):
            frame = heights(panel.find(f".//{svg}path"))
            for form in forms:
                curve, limit = (
                    heights(panel.find(f".//{svg}g[@id='{model}.{form}{kind}']/{svg}path")) for kind in ("", ".limit")
                )
                self.assertEqual(len(curve), len(contexts))
                self.assertEqual(len(limit), len(contexts))
                self.assertTrue(max(frame) > max(curve) > max(limit) > min(frame), "y goes down")

    def test_the_same_file_gives_the_same_picture(self):
        self.assertEqual(report(list(rows()))[1], self.files)

    def test_other_threads_and_states_are_the_callers_to_choose(self):
        self.assertIn("99.0 (99%)", report(list(rows()), "--threads", "2")[1]["decode-cold-threads-2.md"])
        self.assertIn("99.0 (99%)", report(list(rows()), "--state", "hot")[1]["decode-hot-threads-1.md"])

    def test_a_file_without_such_rows_is_an_error_and_writes_nothing(self):
        done, files = report(list(rows()), "--threads", "3")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no decode row with --threads 3 and --state cold", done.stderr)
        self.assertEqual(files, {})


if __name__ == "__main__":
    if importlib.util.find_spec("matplotlib") is None:
        print("skipped: matplotlib is not installed")
        sys.exit(77)  # ctest's SKIP_RETURN_CODE
    unittest.main()

"""The examples and the README's code run."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

PACKAGE = Path(__file__).parents[1]


def test_speed_over_context(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    out = tmp_path / "speed.svg"
    sizes = ["--contexts", "64", "128", "--query-heads", "4", "--kv-heads", "2", "--head-dim", "64", "--seconds", "0.01", "--megabytes", "1"]
    command = [sys.executable, PACKAGE / "examples/speed_over_context.py", "--out", out, *sizes]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    table = [line.split() for line in result.stdout.splitlines()[1:3]]
    assert [row[0] for row in table] == ["64", "128"]
    assert all(len(row) == 6 and min(map(float, row[1:])) > 0 for row in table)
    texts = {element.text for element in ElementTree.parse(out).iter()}
    assert {"torch float32", "torch bfloat16", "kvlane f16", "kvlane q8", "kvlane q4", "context (tokens)"} <= texts


def test_the_readme():
    program = re.search(r"```python\n(import numpy.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL).group(1)
    names = {}
    exec(program, names)
    assert names["out"].shape == (10, 32, 128) and len(names["cache"]) == 10

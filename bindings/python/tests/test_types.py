"""The package's types and documentation."""

import inspect
import subprocess
import sys

import pytest

import kvlane

USE = """
import numpy as np
import torch
import kvlane

cache = kvlane.Cache(n_layers=1, n_kv_heads=2, head_dim=64, format="q8")
attention = kvlane.Attention.for_cache(cache, n_query_heads=4, softcap=30.0)
k = np.zeros((1, 2, 64), np.float16)
cache.append(0, k, k)
reveal_type(attention.attend(cache.view(0), torch.zeros(1, 4, 64)))
reveal_type(attention.attend_partial(cache.view(0), k, first=0, end=1))
reveal_type(cache.read_k(0))
WRONG
"""
WRONG = {
    'cache.append("0", k, k)': 'Argument 1 to "append" of "Cache" has incompatible type "str"',
    "attention.attend(cache, k)": 'Argument 1 to "attend" of "Attention" has incompatible type "Cache"',
    "cache.append(0, [1.0], k)": 'Argument 2 to "append" of "Cache" has incompatible type "list[float]"',
}


@pytest.mark.parametrize("wrong", ["", *WRONG])
def test_mypy(tmp_path, wrong):
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(USE.replace("WRONG", wrong))
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path.parent / "mypy", "use.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    for revealed in ("Tensor", "kvlane._types.Partial", "floating[numpy._typing._nbit_base._32Bit]"):
        assert revealed in result.stdout
    if wrong:
        assert result.returncode == 1 and WRONG[wrong] in result.stdout and "Found 1 error" in result.stdout
    else:
        assert result.returncode == 0, result.stdout


def test_everything_is_documented():
    for name in kvlane.__all__:
        public = getattr(kvlane, name)
        if not inspect.isclass(public) and not callable(public):
            continue
        assert public.__doc__, name
        for member_name, member in vars(public).items() if inspect.isclass(public) else ():
            if not member_name.startswith("_") and (callable(member) or inspect.isdatadescriptor(member)):
                assert member.__doc__, f"{name}.{member_name}"


def test_isas():
    assert kvlane.isa() in kvlane.isas() and "scalar" in kvlane.isas()

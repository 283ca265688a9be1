"""The GIL, concurrent calls, and who keeps what alive."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest

import kvlane


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def filled_cache(n_tokens, n_layers=1, **more):
    cache = kvlane.Cache(**{"n_layers": n_layers, "n_kv_heads": 2, "head_dim": 32, "format": "f32", **more})
    for layer in range(n_layers):
        cache.append(layer, normal(n_tokens, 2, 32), normal(n_tokens, 2, 32, seed=1))
    cache.advance(n_tokens)
    return cache


@pytest.mark.parametrize("n_threads", [0, 2], ids=["calling thread", "pool"])
def test_other_threads_run_during_a_call(n_threads):
    threads = kvlane.Threads(n_threads) if n_threads else None
    cache = filled_cache(40_000)
    attention = kvlane.Attention.for_cache(cache, n_query_heads=4)
    q = normal(64, 4, 32)
    count, counts_at = 0, []

    def counts():
        nonlocal count
        while not counts_at:
            count += 1
            time.sleep(0)  # offers the GIL

    counter = threading.Thread(target=counts)
    counter.start()
    try:
        while count == 0:
            time.sleep(0.001)
        before = count
        attention.attend(cache.view(0), q, threads=threads)
        during = count - before
    finally:
        counts_at.append(True)
        counter.join()
    assert during > 10  # with the GIL held it is 0: the call has no point at which Python switches threads


def test_calls_of_many_threads_have_the_bits_of_one():
    cache = filled_cache(2000)
    attention = kvlane.Attention.for_cache(cache, n_query_heads=4)
    threads = kvlane.Threads(3)
    q = normal(2, 4, 32)
    expected = attention.attend(cache.view(0), q)
    results = []

    def attend():
        for _ in range(20):
            results.append(np.array_equal(attention.attend(cache.view(0), q, threads=threads), expected))

    workers = [threading.Thread(target=attend) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [True] * 80


def test_a_cache_that_changes_is_read_before_or_after():
    cache = filled_cache(20_000)
    attention = kvlane.Attention.for_cache(cache, n_query_heads=4)
    view, q = cache.view(0), normal(64, 4, 32)
    other = normal(20_000, 2, 32, seed=3)
    outs = []
    reader = threading.Thread(target=lambda: outs.extend(attention.attend(view, q) for _ in range(3)))
    before = attention.attend(view, q)
    reader.start()
    while not outs:  # the second call has begun, or is about to
        time.sleep(0.001)
    cache.clear()
    cache.append(0, other, other)
    reader.join()
    after = attention.attend(view, q)
    for out in outs:
        assert any(np.array_equal(out, whole) for whole in (before, np.zeros_like(before), after))


def test_a_view_keeps_its_cache_alive():
    cache = filled_cache(100)
    attention = kvlane.Attention.for_cache(cache, n_query_heads=4)
    q = normal(1, 4, 32)
    expected = attention.attend(cache.view(0), q)
    view = cache.view(0)
    del cache
    gc.collect()
    assert np.array_equal(attention.attend(view, q), expected)


def test_a_view_keeps_its_arrays_alive_and_lets_them_go():
    k = normal(10, 1, 16)
    finalized = weakref.finalize(k, lambda: None)
    view = kvlane.View(k, k)
    del k
    gc.collect()
    assert finalized.alive
    del view
    gc.collect()
    assert not finalized.alive


def test_calls_keep_no_reference():
    cache = filled_cache(100)
    attention = kvlane.Attention.for_cache(cache, n_query_heads=4)
    k, q, out = normal(1, 2, 32), normal(1, 4, 32), normal(1, 4, 32)
    lse, mask, bias = normal(1, 4), np.ones((1, 101), bool), normal(1, 101)
    arrays = (k, q, out, lse, mask, bias)
    before = [sys.getrefcount(array) for array in arrays]
    cache.append(0, k, k)
    attention.attend(cache.view(0), q, out, lse=lse, mask=mask, bias=bias)
    attention.attend_batch([kvlane.Sequence(cache.view(0), q, out=out, lse=lse, mask=mask, bias=bias)])
    attention.merge([attention.attend_partial(cache.view(0), q, first=0, end=101)], lse=lse)
    with pytest.raises(kvlane.Error):
        attention.attend(cache.view(0), q, out, mask=mask, bias=bias, len=102)
    assert [sys.getrefcount(array) for array in arrays] == before


def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow():
    def work():
        cache = filled_cache(3000)
        attention = kvlane.Attention.for_cache(cache, n_query_heads=4)
        attention.attend(cache.view(0), normal(8, 4, 32))
        attention.attend_partial(cache.copy().view(0), normal(8, 4, 32), first=0, end=512)

    for _ in range(5):
        work()
    before = resident_bytes()
    for _ in range(40):
        work()
    assert resident_bytes() - before < 8e6  # a cache has 1.5 MB: 40 of them, 60


def test_nothing_is_left_at_exit():
    """At exit, nanobind reports objects that are still alive, if asked."""
    script = """
        import kvlane, numpy as np
        cache = kvlane.Cache(n_layers=1, n_kv_heads=1, head_dim=8)
        attention = kvlane.Attention.for_cache(cache, n_query_heads=1)
        row = np.ones((1, 1, 8), np.float32)
        cache.append(0, row, row)
        view, threads = cache.view(0), kvlane.Threads(2)
        sequence = kvlane.Sequence(view, row)
        attention.attend_batch([sequence], threads=threads)
        try:
            cache.append(0, row, row)
        except kvlane.Error:
            pass
    """
    environment = {**os.environ, "KVLANE_LEAK_WARNINGS": "1"}
    command = [sys.executable, "-c"]
    result = subprocess.run([*command, textwrap.dedent(script)], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    leak = textwrap.dedent(script) + "import ctypes; ctypes.pythonapi.Py_IncRef(ctypes.py_object(cache))"
    result = subprocess.run([*command, leak], env=environment, capture_output=True, text=True)
    assert 'of type "kvlane._core.Cache"' in result.stderr


def test_threads_that_the_system_does_not_start():
    with pytest.raises(kvlane.Error, match="n_threads is 65537; it must be at most 65536"):
        kvlane.Threads(65537)
    program = """
        import resource
        import kvlane
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))  # too little for so many stacks
        try:
            kvlane.Threads(60000)
        except kvlane.Error as error:
            assert error.status == "KVL_ERROR_MEMORY"
            print(error)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("n_threads is 60000; the system started ")

"""The cache: what it stores, from which arrays, and what it refuses."""

import numpy as np
import pytest

import kvlane

torch = pytest.importorskip("torch")

# Largest relative error of a row in the format, for normally distributed elements.
ROUNDING = {"f32": 0, "f16": 2**-11, "bf16": 2**-8, "q8": 0.01, "q4": 0.12}


def rows(n_tokens, n_heads, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((n_tokens, n_heads, dim)).astype(np.float32)


def make_cache(format="f32", **more):
    return kvlane.Cache(**{"n_layers": 2, "n_kv_heads": 3, "head_dim": 64, "v_head_dim": 32, "format": format, **more})


@pytest.mark.parametrize("format", ROUNDING)
def test_reads_back_what_was_appended(format):
    cache = make_cache(format)
    k, v = rows(100, 3, 64), rows(100, 3, 32, seed=1)
    for layer in range(2):
        cache.append(layer, k, v)
    assert len(cache) == 0 and cache.info(0).len == 100
    cache.advance(100)
    assert len(cache) == 100
    for read, expected in ((cache.read_k(1), k), (cache.read_v(1), v)):
        assert read.dtype == np.float32 and read.shape == expected.shape
        error = np.abs(read - expected).max(axis=2) / np.abs(expected).max(axis=2)
        assert error.max() <= 4 * ROUNDING[format]  # elements of a row against its largest
    assert np.array_equal(cache.read_k(0, 10, 5), cache.read_k(0)[10:15])


def test_formats_of_keys_and_values_and_info():
    cache = make_cache(k_format="q8", v_format="q4", n_recent_f16=100, max_tokens=500)
    info = cache.info(1)
    assert (info.n_kv_heads, info.head_dim, info.v_head_dim) == (3, 64, 32)
    assert (info.k_format, info.v_format, info.k_rotation, info.v_rotation) == ("q8", "q4", "hadamard", "hadamard")
    assert (info.n_first_f16, info.n_recent_f16, info.len) == (0, 128, 0)
    assert (cache.max_tokens, cache.n_layers, cache.bytes) == (500, 2, 0)
    assert make_cache("q8", k_rotation="none").info(0).k_rotation == "none"


def test_layers_may_differ():
    cache = kvlane.Cache([kvlane.Layer(n_kv_heads=1, head_dim=16), kvlane.Layer(n_kv_heads=2, head_dim=32, format="bf16")])
    cache.append(0, rows(1, 1, 16), rows(1, 1, 16))
    cache.append(1, rows(1, 2, 32), rows(1, 2, 32))
    cache.advance()
    assert cache.read_k(0).shape == (1, 1, 16) and cache.read_k(1).shape == (1, 2, 32)


def test_truncate_clear_and_copy():
    cache = kvlane.Cache(n_layers=1, n_kv_heads=1, head_dim=16, format="f32")
    k = rows(10, 1, 16)
    cache.append(0, k, k)
    cache.advance(10)
    copy = cache.copy()
    cache.truncate(4)
    assert len(cache) == 4 and np.array_equal(cache.read_k(0), k[:4])
    cache.clear()
    assert len(cache) == 0 and cache.bytes == 0
    assert len(copy) == 10 and np.array_equal(copy.read_v(0), k)


def test_key_offset_is_copied_and_added_back():
    offset = np.full((1, 32), 100, np.float32)
    cache = kvlane.Cache(n_layers=1, n_kv_heads=1, head_dim=32, format="q8", k_offset=offset)
    offset[:] = 0
    k = 100 + rows(10, 1, 32)
    cache.append(0, k, k)
    assert np.abs(cache.read_k(0) - k).max() < 0.05  # without the offset, 100 / 253


@pytest.mark.parametrize("dtype", [np.float32, np.float16, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_rows_of_any_type_are_converted_exactly(dtype):
    k = torch.from_numpy(rows(70, 3, 64))
    v = torch.from_numpy(rows(70, 3, 32, seed=1))
    if isinstance(dtype, torch.dtype):
        k, v = k.to(dtype), v.to(dtype)
    else:
        k, v = k.numpy().astype(dtype), v.numpy().astype(dtype)
    cache = make_cache()
    cache.append(0, k, v)
    to_f32 = lambda x: x.float().numpy() if isinstance(x, torch.Tensor) else x.astype(np.float32)
    assert np.array_equal(cache.read_k(0), to_f32(k)) and np.array_equal(cache.read_v(0), to_f32(v))


@pytest.mark.parametrize("layout", ["heads first", "part of a row", "every other token", "one token", "read-only"])
def test_strides(layout):
    k, v = rows(66, 3, 64), rows(66, 3, 32, seed=1)
    given_k = k
    if layout == "heads first":
        given_k = np.ascontiguousarray(k.swapaxes(0, 1)).swapaxes(0, 1)
    elif layout == "part of a row":
        given_k = np.concatenate([k, k], axis=2)[:, :, :64]
    elif layout == "every other token":
        given_k = np.repeat(k, 2, axis=0)[::2]
    elif layout == "one token":
        given_k, k, v = k[7], k[7:8], v[7]
    else:
        given_k.flags.writeable = False
    cache = make_cache()
    cache.append(0, given_k, v)
    assert np.array_equal(cache.read_k(0), k)


@pytest.mark.parametrize("k, status, text", [
    (rows(4, 2, 64), "KVL_ERROR_LENGTH", r"k has shape \[4, 2, 64\]; it must be \[n_tokens, 3, 64\]"),
    (rows(4, 3, 128)[:, :, ::2], "KVL_ERROR_STRIDE", "k has a stride of 2 elements in its last axis"),
    (np.broadcast_to(rows(1, 3, 64), (4, 3, 64)), "KVL_ERROR_STRIDE", "k has a stride of 0 in axis 0"),
    (rows(4, 3, 64)[::-1], "KVL_ERROR_STRIDE", "k_token_stride_bytes is -768"),
    (rows(4, 3, 64).astype(np.float64), "KVL_ERROR_FORMAT", "k has elements of float64"),
    (rows(5, 3, 64), "KVL_ERROR_LENGTH", "v has 4 tokens; it must have as many as k, 5"),
    (rows(0, 3, 64), "KVL_ERROR_RANGE", "n_tokens must be at least 1"),
])  # fmt: skip
def test_rows_that_cannot_be_read_in_place(k, status, text):
    cache = make_cache()
    with pytest.raises(kvlane.Error, match=text) as error:
        cache.append(0, k, rows(4, 3, 32))
    assert error.value.status == status
    assert cache.info(0).len == 0


def test_what_is_no_array():
    with pytest.raises(TypeError, match="k is of type list; it must be an array"):
        make_cache().append(0, [1.0], rows(1, 3, 32))


@pytest.mark.parametrize("arguments, status, text", [
    ({"format": "q9"}, "KVL_ERROR_FORMAT", 'format is "q9"; it must be one of "f32", "f16", "bf16", "q8", "q4"'),
    ({"v_format": "x"}, "KVL_ERROR_FORMAT", 'v_format is "x"'),
    ({"k_rotation": "left"}, "KVL_ERROR_ROTATION", 'k_rotation is "left"'),
    ({"n_layers": -1}, "KVL_ERROR_RANGE", "n_layers is -1"),
    ({"n_layers": 0}, "KVL_ERROR_RANGE", "n_layers is 0"),
    ({"head_dim": 2000}, "KVL_ERROR_HEAD_DIM", "head_dim is 2000"),
    ({"max_tokens": -5}, "KVL_ERROR_RANGE", "max_tokens is -5"),
    ({"k_offset": np.zeros((3, 63), np.float32)}, "KVL_ERROR_LENGTH", r"k_offset has shape \[3, 63\] of float32"),
    ({"k_offset": np.zeros((3, 128), np.float32)[:, ::2]}, "KVL_ERROR_LENGTH", "must be a contiguous"),
])  # fmt: skip
def test_arguments_of_a_cache(arguments, status, text):
    with pytest.raises(kvlane.Error, match=text) as error:
        make_cache(**arguments)
    assert error.value.status == status


def test_calls_in_the_wrong_order():
    cache = make_cache(max_tokens=3)
    k, v = rows(2, 3, 64), rows(2, 3, 32)
    cache.append(0, k, v)
    for status, call in {
        "KVL_ERROR_APPEND_TWICE": lambda: cache.append(0, k, v),
        "KVL_ERROR_LAYER_MISSING": lambda: cache.advance(2),
        "KVL_ERROR_LAYER": lambda: cache.append(2, k, v),
        "KVL_ERROR_CAPACITY": lambda: cache.append(1, rows(4, 3, 64), rows(4, 3, 32)),
        "KVL_ERROR_LENGTH": lambda: cache.truncate(1),
        "KVL_ERROR_RANGE": lambda: cache.read_k(0, 0, 3),
    }.items():
        with pytest.raises(kvlane.Error) as error:
            call()
        assert error.value.status == status
        assert isinstance(error.value, ValueError)

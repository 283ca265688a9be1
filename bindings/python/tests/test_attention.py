"""Attention against numpy in double precision on the stored values."""

import pickle

import numpy as np
import pytest

import kvlane
from oracle import attention, relative_error

torch = pytest.importorskip("torch")

FORMATS = ["f32", "f16", "bf16", "q8", "q4"]
N_QUERY_HEADS, N_KV_HEADS, HEAD_DIM, V_HEAD_DIM = 6, 2, 48, 40


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def filled_cache(format="f32", n_tokens=700, **more):
    cache = kvlane.Cache(n_layers=1, n_kv_heads=N_KV_HEADS, head_dim=HEAD_DIM, v_head_dim=V_HEAD_DIM, format=format, **more)
    cache.append(0, normal(n_tokens, N_KV_HEADS, HEAD_DIM), normal(n_tokens, N_KV_HEADS, V_HEAD_DIM))
    cache.advance(n_tokens)
    return cache


def queries(n_queries, seed=5):
    return normal(n_queries, N_QUERY_HEADS, HEAD_DIM, seed=seed)


def attention_for(cache, **rules):
    return kvlane.Attention.for_cache(cache, n_query_heads=N_QUERY_HEADS, **rules)


@pytest.mark.parametrize("n_queries", [1, 5])
@pytest.mark.parametrize("format", FORMATS)
def test_formats(format, n_queries):
    cache, q = filled_cache(format), queries(n_queries)
    out = attention_for(cache, precision="exact").attend(cache.view(0), q)
    assert out.dtype == np.float32 and out.shape == (n_queries, N_QUERY_HEADS, V_HEAD_DIM)
    assert relative_error(out, attention(q, cache.read_k(0), cache.read_v(0))) < 4e-6


RULES = {
    "scale": {"scale": 0.3},
    "window": {"window": 100},
    "window and first tokens": {"window": 100, "n_sink_tokens": 3},
    "softcap": {"softcap": 2.0},
    "ALiBi": {"alibi_slopes": [0.5, 0.25, 0.1, 0.05, 0.02, 0.01]},
    "sink logits": {"sink_logits": np.linspace(0, 8, N_QUERY_HEADS)},
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_score_rules(rules):
    cache, q = filled_cache(), queries(3)
    lse = np.empty((3, N_QUERY_HEADS), np.float32)
    out = attention_for(cache, **rules).attend(cache.view(0), q, lse=lse)
    expected, expected_lse = attention(q, cache.read_k(0), cache.read_v(0), returns_lse=True, **rules)
    assert relative_error(out, expected) < 4e-6
    assert np.abs(lse - expected_lse).max() < 2e-5


MASK = np.random.default_rng(1).random((N_QUERY_HEADS, 4, 700)) < 0.5
VISIBILITY = {
    "causal": {},
    "not causal": {"causal": False},
    "offset": {"causal_offset": -300},
    "mask": {"causal": False, "mask": MASK},
    "mask of all heads": {"mask": MASK[0]},
    "mask of all queries": {"mask": MASK[:, :1]},
    "expanded mask": {"mask": np.broadcast_to(MASK[:1, :1], MASK.shape)},
    "bias": {"bias": normal(N_QUERY_HEADS, 4, 700)},
    "bias of all heads and mask": {"bias": normal(4, 700), "mask": MASK},
    "bias of -infinity": {"bias": np.where(MASK, np.float32(0), np.float32(-np.inf))},
}


@pytest.mark.parametrize("visibility", VISIBILITY.values(), ids=VISIBILITY)
def test_visibility(visibility):
    cache, q = filled_cache(), queries(4)
    out = attention_for(cache).attend(cache.view(0), q, **visibility)
    assert relative_error(out, attention(q, cache.read_k(0), cache.read_v(0), **visibility)) < 4e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_torch(dtype):
    cache = filled_cache()
    q = torch.from_numpy(queries(2)).to(dtype)
    attend = attention_for(cache).attend
    out = attend(cache.view(0), q)
    assert isinstance(out, torch.Tensor) and out.dtype == dtype
    f32 = attend(cache.view(0), q.float())
    assert torch.equal(out, f32.to(dtype))  # rounded once, to nearest
    mask = torch.rand(2, 700) < 0.5
    assert torch.equal(attend(cache.view(0), q.float(), mask=mask), torch.from_numpy(
        attend(cache.view(0), q.float().numpy(), mask=mask.numpy())))


def test_out_is_written_in_place_in_its_own_type_and_strides():
    cache, q = filled_cache(), queries(3)
    attend = attention_for(cache).attend
    expected = attend(cache.view(0), q)
    heads_first = np.zeros((N_QUERY_HEADS, 3, V_HEAD_DIM), np.float16)
    out = heads_first.swapaxes(0, 1)
    assert attend(cache.view(0), q.swapaxes(0, 1).copy().swapaxes(0, 1), out) is out
    assert np.array_equal(heads_first.swapaxes(0, 1), expected.astype(np.float16))


def test_one_query_without_an_axis():
    cache, q = filled_cache(), queries(1)
    attend = attention_for(cache).attend
    lse = np.empty(N_QUERY_HEADS, np.float32)
    out = attend(cache.view(0), q[0], lse=lse)
    assert out.shape == (N_QUERY_HEADS, V_HEAD_DIM) and np.array_equal(out, attend(cache.view(0), q)[0])
    assert np.isfinite(lse).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_rows_give_the_bits_of_a_cache(dtype):
    k = torch.from_numpy(normal(300, N_KV_HEADS, HEAD_DIM)).to(dtype)
    v = torch.from_numpy(normal(N_KV_HEADS, 300, V_HEAD_DIM)).to(dtype).transpose(0, 1)
    format = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    cache = kvlane.Cache(n_layers=1, n_kv_heads=N_KV_HEADS, head_dim=HEAD_DIM, v_head_dim=V_HEAD_DIM, format=format)
    cache.append(0, k, v)
    view = kvlane.View(k, v)
    assert len(view) == len(cache.view(0)) == 300
    attend = attention_for(cache).attend
    assert np.array_equal(attend(view, queries(2)), attend(cache.view(0), queries(2)))


def test_len_hides_later_tokens():
    cache, q = filled_cache(), queries(2)
    out = attention_for(cache).attend(cache.view(0), q, len=500)
    assert relative_error(out, attention(q, cache.read_k(0)[:500], cache.read_v(0)[:500])) < 4e-6


def test_a_view_follows_its_cache():
    cache, q = filled_cache("q8", n_recent_f16=64), queries(1)
    view = cache.view(0)
    cache.append(0, normal(1, N_KV_HEADS, HEAD_DIM, seed=1), normal(1, N_KV_HEADS, V_HEAD_DIM, seed=1))
    assert len(view) == 701
    attend = attention_for(cache).attend
    pending = attend(view, q)
    cache.advance()
    assert np.array_equal(pending, attend(cache.view(0), q))


def test_batch():
    caches = [filled_cache(n_tokens=n) for n in (1, 64, 700)]
    qs = [queries(n, seed=n) for n in (1, 3, 2)]
    attention_ = attention_for(caches[0])
    outs = attention_.attend_batch([kvlane.Sequence(cache.view(0), q) for cache, q in zip(caches, qs)])
    for cache, q, out in zip(caches, qs, outs):
        assert np.array_equal(out, attention_.attend(cache.view(0), q))
    with pytest.raises(kvlane.Error, match=r"sequences\[1\]"):
        attention_.attend_batch([kvlane.Sequence(caches[0].view(0), qs[0]), kvlane.Sequence(caches[0].view(0), qs[0], len=2)])


@pytest.mark.parametrize("format", FORMATS)
def test_threads_give_the_same_bits(format):
    cache, q = filled_cache(format, n_tokens=3000), queries(7)
    attend = attention_for(cache).attend
    expected = attend(cache.view(0), q)
    for n_threads in (1, 2, 5):
        threads = kvlane.Threads(n_threads)
        assert threads.n_threads == n_threads
        for _ in range(10):
            assert np.array_equal(attend(cache.view(0), q, threads=threads), expected)


def test_partials():
    cache, q = filled_cache(n_tokens=1500), queries(2)
    attention_ = attention_for(cache, sink_logits=np.zeros(N_QUERY_HEADS))
    partials = [attention_.attend_partial(cache.view(0), q, first=first, end=min(first + 512, 1500)) for first in (0, 512, 1024)]
    partials = pickle.loads(pickle.dumps(partials))
    lse = np.empty((2, N_QUERY_HEADS), np.float32)
    whole_lse = np.empty_like(lse)
    merged = attention_.merge(partials, lse=lse)
    assert np.array_equal(merged, attention_.attend(cache.view(0), q, lse=whole_lse)) and np.array_equal(lse, whole_lse)

    # The same from a machine that holds the last tokens alone.
    k, v = cache.read_k(0)[1024:], cache.read_v(0)[1024:]
    part = attention_.attend_partial(kvlane.View(k, v), q, first=1024, end=1500, view_first=1024)
    assert all(np.array_equal(a, b) for a, b in zip(part, partials[2]))


def test_an_empty_cache():
    cache = kvlane.Cache(n_layers=1, n_kv_heads=N_KV_HEADS, head_dim=HEAD_DIM)
    lse = np.zeros((1, N_QUERY_HEADS), np.float32)
    assert not attention_for(cache).attend(cache.view(0), queries(1), lse=lse).any()
    assert (lse == -np.inf).all()


def read_only(array):
    array.flags.writeable = False
    return array


ERRORS = {
    "heads of q": (dict(q=queries(1)[:, :5]), "KVL_ERROR_LENGTH", r"q has shape \[1, 5, 48\]"),
    "type of q": (dict(q=queries(1).astype(int)), "KVL_ERROR_FORMAT", "q has elements of int64"),
    "no queries": (dict(q=queries(0)), "KVL_ERROR_RANGE", "n_queries must be at least 1"),
    "shape of out": (dict(out=np.empty((1, 6, 48), np.float32)), "KVL_ERROR_LENGTH", "out has shape"),
    "queries of out": (dict(out=np.empty((2, 6, 40), np.float32)), "KVL_ERROR_LENGTH", "out has 2 queries"),
    "type of lse": (dict(lse=np.empty((1, 6), np.float16)), "KVL_ERROR_FORMAT", "lse has elements of 16 bits"),
    "len": (dict(len=701), "KVL_ERROR_LENGTH", "len is 701"),
    "type of mask": (dict(mask=np.ones((1, 700), np.int32)), "KVL_ERROR_FORMAT", "mask has elements of int32; they must be bool"),
    "shape of mask": (dict(mask=np.ones((2, 700), bool)), "KVL_ERROR_LENGTH", r"mask has shape \[2, 700\]"),
    "short mask": (dict(mask=np.ones((1, 699), bool)), "KVL_ERROR_MASK", "n_tokens is 699"),
    "strides of bias": (dict(bias=np.ones((1, 1400), np.float32)[:, ::2]), "KVL_ERROR_STRIDE", "bias has a stride of 2"),
    "tokens of bias": (dict(bias=np.ones((1, 700), np.float32), mask=np.ones((1, 701), bool)), "KVL_ERROR_LENGTH", "bias has 700"),
}  # fmt: skip


@pytest.mark.parametrize("arguments, status, text", ERRORS.values(), ids=ERRORS)
def test_errors(arguments, status, text):
    cache = filled_cache()
    with pytest.raises(kvlane.Error, match=text) as error:
        attention_for(cache).attend(cache.view(0), **{"q": queries(1), **arguments})
    assert error.value.status == status


def test_outputs_must_be_writable_and_apart():
    cache, q = filled_cache(), queries(1)
    with pytest.raises(TypeError, match="out is read-only"):
        attention_for(cache).attend(cache.view(0), q, read_only(np.empty((1, 6, 40), np.float32)))
    k = normal(10, 1, 16)
    with pytest.raises(kvlane.Error) as error:
        kvlane.Attention(n_query_heads=1, n_kv_heads=1, head_dim=16, format="f32").attend(kvlane.View(k, k), normal(1, 1, 16), k[:1])
    assert error.value.status == "KVL_ERROR_OVERLAP"


@pytest.mark.parametrize("arguments, status", [
    ({"n_query_heads": 5}, "KVL_ERROR_HEADS"),
    ({"softcap": -1.0}, "KVL_ERROR_RULE"),
    ({"alibi_slopes": [1.0]}, "KVL_ERROR_LENGTH"),
    ({"precision": "fast"}, "KVL_ERROR_PRECISION"),
    ({"precision": "slow"}, "KVL_ERROR_PRECISION"),
    ({"window": -1}, "KVL_ERROR_RANGE"),
])  # fmt: skip
def test_arguments_of_attention(arguments, status):
    with pytest.raises(kvlane.Error) as error:
        kvlane.Attention(**{"n_query_heads": 6, "n_kv_heads": 2, "head_dim": 48, "format": "f16", **arguments})
    assert error.value.status == status


def test_a_view_must_fit():
    cache = filled_cache("f16")
    with pytest.raises(kvlane.Error) as error:
        attention_for(filled_cache("f32")).attend(cache.view(0), queries(1))
    assert error.value.status in ("KVL_ERROR_FORMAT", "KVL_ERROR_GEOMETRY")

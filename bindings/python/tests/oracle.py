"""Attention in double precision, from plain numpy."""

import numpy as np


def attention(q, k, v, *, scale=None, window=0, n_sink_tokens=0, softcap=0.0, alibi_slopes=None, sink_logits=None,
              causal=True, causal_offset=0, mask=None, bias=None, returns_lse=False):
    """q [n_queries, n_query_heads, head_dim], k and v [n_tokens, n_kv_heads, ...] -> [n_queries, n_query_heads, v_head_dim]"""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    n_queries, n_query_heads, head_dim = q.shape
    n_tokens, n_kv_heads, _ = k.shape
    out = np.zeros((n_queries, n_query_heads, v.shape[2]))
    lse = np.full((n_queries, n_query_heads), -np.inf)
    tokens = np.arange(n_tokens)
    for i in range(n_queries):
        position = n_tokens - n_queries + i + causal_offset
        for h in range(n_query_heads):
            kv_head = h // (n_query_heads // n_kv_heads)
            scores = k[:, kv_head] @ q[i, h] * (scale or head_dim**-0.5)
            if softcap:
                scores = softcap * np.tanh(scores / softcap)
            if alibi_slopes is not None:
                scores = scores + alibi_slopes[h] * (tokens - position)
            if bias is not None:
                scores = scores + np.broadcast_to(bias, (n_query_heads, n_queries, n_tokens))[h, i]
            visible = np.ones(n_tokens, bool)
            if causal:
                visible &= tokens <= position
            if window:
                visible &= (tokens > position - window) | (tokens < n_sink_tokens)
            if mask is not None:
                visible &= np.broadcast_to(mask, (n_query_heads, n_queries, n_tokens))[h, i]
            scores = np.append(scores[visible], [] if sink_logits is None else sink_logits[h])
            if len(scores):
                weights = np.exp(scores - scores.max())
                lse[i, h] = scores.max() + np.log(weights.sum())
                n_visible = visible.sum()
                out[i, h] = weights[:n_visible] / weights.sum() @ v[visible, kv_head]
    return (out, lse) if returns_lse else out


def relative_error(actual, expected):
    """|actual - expected| / |expected|, of all elements"""
    expected = np.asarray(expected, np.float64)
    return np.linalg.norm(np.asarray(actual, np.float64) - expected) / np.linalg.norm(expected)

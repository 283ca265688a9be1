#!/usr/bin/env python3
"""How finely scales of q8 and q4 are to be divided: relative L2 error of attention's output, in Markdown.

As tests/accuracy.hpp: 1024 tokens of normal data, head_dim 128, 4 query heads a KV head; once as they are, once with 4
channels of the keys 20 times larger; keys and values as they are, or rotated by a Walsh-Hadamard matrix. Needs numpy.
"""

import numpy as np

N_TOKENS, HEAD_DIM, GROUP, N_DRAWS = 1024, 128, 4, 4


def hadamard(n):
    h = np.ones((1, 1))
    while h.shape[0] < n:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(n)


def symmetric(x, most, least, of):
    """Integers from least to most times the largest magnitude's share, one for `of` elements."""
    groups = x.reshape(-1, of)
    scale = np.abs(groups).max(axis=1, keepdims=True) / most
    return (np.clip(np.rint(groups / scale), least, np.floor(most)) * scale).reshape(x.shape)


def q8(of):
    return lambda x: symmetric(x, 127, -127, of)


def q4(of):
    return lambda x: symmetric(x, 7.5, -8, of)


def q4_multipliers(x):
    """As stored: a multiplier of 4 bits for 32 elements, a scale for the row."""
    rows = x.reshape(-1, HEAD_DIM)
    scale = np.abs(rows).max(axis=1, keepdims=True) / (7.5 * 15)
    groups = rows.reshape(len(rows), -1, 32)
    multiplier = np.minimum(np.ceil(np.abs(groups).max(axis=2, keepdims=True) / (7.5 * scale[:, :, None])), 15)
    step = multiplier * scale[:, :, None]
    return (np.clip(np.rint(groups / step), -8, 7) * step).reshape(x.shape)


def q4_minimum(of):
    """16 levels between the least and the largest of `of` elements."""

    def encode(x):
        groups = x.reshape(-1, of)
        least = groups.min(axis=1, keepdims=True)
        step = (groups.max(axis=1, keepdims=True) - least) / 15
        return (np.rint((groups - least) / step) * step + least).reshape(x.shape)

    return encode


# Name, bits of a value with its scales, and the codec.
CODECS = [
    ('q8, a scale of 32 bits a row (stored so)', 8.25, q8(128)),
    ('q8, one of 16 bits for 64 elements', 8.25, q8(64)),
    ('q8, one of 16 bits for 32 elements', 8.5, q8(32)),
    ('q4, multipliers of 4 bits for 32 elements, a scale of 32 a row (a byte each as stored)', 4.5, q4_multipliers),
    ('q4, a scale of 32 bits a row', 4.25, q4(128)),
    ('q4, one of 16 bits for 32 elements', 4.5, q4(32)),
    ('q4, a scale and a minimum of 16 bits for 32 elements', 5.0, q4_minimum(32)),
    ('q4, a scale and a minimum of 16 bits for 64 elements', 4.5, q4_minimum(64)),
]


def attention(q, k, v):
    scores = q @ k.T / np.sqrt(HEAD_DIM)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights @ v / weights.sum(axis=1, keepdims=True)


def error(codec, has_outliers, is_rotated):
    rotation = hadamard(HEAD_DIM) if is_rotated else np.eye(HEAD_DIM)
    of, off = 0.0, 0.0
    for draw in range(N_DRAWS):
        random = np.random.default_rng(draw)
        k, v = random.standard_normal((2, N_TOKENS, HEAD_DIM))
        q = random.standard_normal((GROUP, HEAD_DIM))
        if has_outliers:
            k[:, 5::32] *= 20
        want = attention(q, k, v)
        got = attention(q @ rotation, codec(k @ rotation), codec(v @ rotation)) @ rotation.T
        of, off = of + np.sum(want**2), off + np.sum((got - want) ** 2)
    return np.sqrt(off / of)


def main():
    print('| keys and values | bits | normal | normal, rotated | outliers | outliers, rotated |')
    print('| --- | ---: | ---: | ---: | ---: | ---: |')
    for name, bits, codec in CODECS:
        errors = [error(codec, outliers, rotated) for outliers in (False, True) for rotated in (False, True)]
        print(f'| {name} | {bits:.2f} | ' + ' | '.join(f'{e:.1e}' for e in errors) + ' |')


if __name__ == '__main__':
    main()

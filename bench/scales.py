#!/usr/bin/env python3
"""Codecs of 8 and 4 bits: relative L2 error of attention's output, in Markdown.

As tests/accuracy.hpp: 1024 tokens of normal data, head_dim 128, 4 query heads a KV head; once as they are, once with 4
channels of the keys 20 times larger; keys and values as they are, or rotated by a Walsh-Hadamard matrix. Needs numpy.
"""

import numpy as np

N_TOKENS, HEAD_DIM, GROUP, N_DRAWS = 1024, 128, 4, 64


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


def half(x):
    return x.astype(np.float16).astype(np.float64)


def nearest(levels, x):
    """The index of the level nearest to each x; levels ascend."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, x)


Q4_LEVELS = np.array([-127, -108, -90, -73, -57, -42, -28, -14, 0, 14, 28, 42, 57, 73, 90, 108])


def q4_index(x):
    """kernels/q4-inl.hpp's nearest_index, from 0."""
    even = np.clip(x, -49.5, 49.5)
    beyond = x - even
    return np.clip(np.rint(even * 3.5 / 49.5 + beyond * (0.0662 - 1.084e-4 * np.abs(beyond))), -8, 7).astype(int) + 8


def q4_stored(x):
    """As stored: uneven levels, a multiplier of 8 bits for 32 elements, a scale for the row."""
    groups = x.reshape(-1, HEAD_DIM // 32, 32)
    most, least = groups.max(axis=2, keepdims=True), groups.min(axis=2, keepdims=True)
    largest = np.where(most > -least, most, least)
    steps, gains = [], []
    for reach in (128, 108):
        levels = Q4_LEVELS[q4_index(groups * -reach / largest)]
        products, squares = (np.sum(of * levels, axis=2, keepdims=True) for of in (groups, levels))
        steps.append(products / squares)
        gains.append(products**2 / squares)
    step = np.where(gains[1] > gains[0], steps[1], steps[0])
    scale = np.abs(step).max(axis=1, keepdims=True) * 128 / 127
    multiplier = np.rint(step / scale * 128)
    with np.errstate(divide='ignore', invalid='ignore'):
        index = np.where(multiplier == 0, 8, q4_index(np.nan_to_num(groups / scale * 128 / multiplier)))
    return (scale * (Q4_LEVELS[index] * multiplier / 128)).reshape(x.shape)


def q4_even(x):
    """15 even levels and a multiplier from 0 to 15 that reaches the largest of 32 elements; a scale for the row."""
    groups = x.reshape(-1, HEAD_DIM // 32, 32)
    largest = np.abs(groups).max(axis=2, keepdims=True)
    scale = largest.max(axis=1, keepdims=True) / (7 * 15)
    step = scale * np.minimum(np.ceil(largest / (7 * scale) - 1e-6), 15)
    return (np.clip(np.rint(groups / step), -7, 7) * step).reshape(x.shape)


def q4_0(x):
    """llama.cpp's: the element of largest magnitude of 32 is -8."""
    groups = x.reshape(-1, 32)
    scale = np.take_along_axis(groups, np.abs(groups).argmax(axis=1)[:, None], axis=1) / -8
    return ((np.clip(np.floor(groups / scale + 8.5), 0, 15) - 8) * half(scale)).reshape(x.shape)


def q4_k(x):
    """After llama.cpp's q4_K, without its search: 6 bits for scale and minimum of 32 elements, two of 16 bits for 256."""
    groups = x.reshape(-1, 8, 32)
    least = np.minimum(groups.min(axis=2, keepdims=True), 0)
    scales = [(groups.max(axis=2, keepdims=True) - least) / 15, -least]
    steps = [half(scale.max(axis=1, keepdims=True) / 63) for scale in scales]
    scale, minimum = (np.rint(scale / step) * step for scale, step in zip(scales, steps))
    return (np.clip(np.rint((groups + minimum) / scale), 0, 15) * scale - minimum).reshape(x.shape)


def q4_minimum(of):
    """16 levels between the least and the largest of `of` elements."""

    def encode(x):
        groups = x.reshape(-1, of)
        least = groups.min(axis=1, keepdims=True)
        step = half((groups.max(axis=1, keepdims=True) - least) / 15)
        return (np.clip(np.rint((groups - half(least)) / step), 0, 15) * step + half(least)).reshape(x.shape)

    return encode


# T. Dettmers et al., "QLoRA" (2023), table 4 of its appendix.
NF4_LEVELS = np.array(
    [-1, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.09105004, 0]
    + [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.562617, 0.7229568, 1]
)


def nf4(x):
    groups = x.reshape(-1, 32)
    scale = half(np.abs(groups).max(axis=1, keepdims=True))
    return (NF4_LEVELS[nearest(NF4_LEVELS, groups / scale)] * scale).reshape(x.shape)


E2M1_LEVELS = np.array([-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6])


def nvfp4(x):
    """e2m1 elements, a scale of e4m3 for 16 of them, one of f32 for all."""
    groups = x.reshape(-1, 16)
    scale = np.abs(groups).max(axis=1, keepdims=True) / 6
    whole = scale.max() / 448
    exponent = np.maximum(np.floor(np.log2(scale / whole)), -6)
    unit = np.exp2(exponent - 3) * whole
    scale = np.maximum(np.rint(scale / unit), 1) * unit
    return (E2M1_LEVELS[nearest(E2M1_LEVELS, groups / scale)] * scale).reshape(x.shape)


# Name, bits of a value with its scales, and the codec.
CODECS = [
    ('q8, a scale of 32 bits a row (as stored)', 8.25, q8(128)),
    ('q8, one of 16 bits for 64 elements', 8.25, q8(64)),
    ('q8, one of 16 bits for 32 elements', 8.5, q8(32)),
    ('q4, uneven levels, multipliers of 8 bits for 32 elements, a scale of 32 a row (as stored)', 4.5, q4_stored),
    ('15 even levels, multipliers of 4 bits for 32 elements, a scale of 32 a row (q4 of b109164)', 4.5, q4_even),
    ('q4_0: even levels, a scale of 16 bits for 32', 4.5, q4_0),
    ('q4_K without its search: scale and minimum of 6 bits for 32', 4.5, q4_k),
    ('even levels, scale and minimum of 16 bits for 64', 4.5, q4_minimum(64)),
    ('even levels, scale and minimum of 16 bits for 32', 5.0, q4_minimum(32)),
    ('nf4, a scale of 16 bits for 32', 4.5, nf4),
    ('nvfp4: e2m1, a scale of 8 bits for 16', 4.5, nvfp4),
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
        print(f'| {name} | {bits:.2f} | ' + ' | '.join(f'{e:.2e}' for e in errors) + ' |')


if __name__ == '__main__':
    main()

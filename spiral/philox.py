"""Philox4x32-10 in NumPy: spiral's random streams as kernels/common/philox.h defines them (Salmon et al. 2011, SC'11).

A stream is named by a 64-bit seed (the key: low word, high word) and a 64-bit stream number. Element i
takes word ``i % 4`` of block ``i // 4``, whose counter is (block low, block high, stream low, stream
high). So the numbers do not depend on tiling, thread count or backend.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def block(counter: Any, key: tuple[int, int]) -> Any:
    """Ten rounds on four uint64 arrays that hold 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            (p1 >> _32) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _32) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def random_bits(seed: int, stream: int, start: int, n: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Words ``start`` to ``start + n`` of a stream."""
    first, last = start // 4, (start + n + 3) // 4
    blocks = np.arange(first, last, dtype=np.uint64)
    counter = (
        blocks & _LOW,
        blocks >> _32,
        np.full(len(blocks), stream & 0xFFFFFFFF, np.uint64),
        np.full(len(blocks), (stream >> 32) & 0xFFFFFFFF, np.uint64),
    )
    words = np.stack(block(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)), 1)
    return words.astype(np.uint32).reshape(-1)[start - 4 * first : start - 4 * first + n]


def kept(seed: int, stream: int, n: int, p: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the first n elements a dropout keeps: those whose word is at least p * 2^32, rounded.

    Example:
        >>> int(kept(7, 0, 10_000, 0.25).sum())
        7480
    """
    edge = math.floor(p * 2.0**32 + 0.5)  # 2^32 where p is nearly 1: nothing is kept
    return random_bits(seed, stream, 0, n).astype(np.uint64) >= np.uint64(edge)


def uniform(seed: int, stream: int, start: int, n: int, low: float, high: float) -> Any:
    """float32 in [low, high): the 24 high bits of each word times 2^-24, scaled in float64 and rounded once."""
    first, last = np.float32(low), np.float32(high)
    step = np.float64(last - first) * 2.0**-24
    u = (random_bits(seed, stream, start, n) >> np.uint32(8)).astype(np.float64)
    x = (np.float64(first) + step * u).astype(np.float32)
    return np.minimum(x, np.nextafter(last, np.float32(-np.inf)) if last > first else first)


def normal(seed: int, stream: int, start: int, n: int, mean: float, std: float) -> Any:
    """float32 normal numbers by Box and Muller's transform of lanes (0, 1) and (2, 3) of a block.

    The radius has u1 = (bits div 2^8 + 1/2) 2^-24, which is never 0, the angle u2 = (bits div 2^8) 2^-24; the even lane
    takes the cosine, the odd one the sine.
    """
    first = start // 2 * 2
    count = (start + n - first + 1) // 2 * 2
    u = (random_bits(seed, stream, first, count) >> np.uint32(8)).astype(np.float64)
    radius, angle = np.sqrt(-2.0 * np.log((u[0::2] + 0.5) * 2.0**-24)), u[1::2] * (2.0 * np.pi * 2.0**-24)
    z = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)
    return (mean + std * z[start - first : start - first + n]).astype(np.float32)


def integers(seed: int, stream: int, start: int, n: int, low: int, high: int) -> Any:
    """int64 in [low, high) by a 32-bit multiply and shift; high - low < 2^32."""
    bits = random_bits(seed, stream, start, n).astype(np.uint64)
    return low + ((bits * np.uint64(high - low)) >> _32).astype(np.int64)

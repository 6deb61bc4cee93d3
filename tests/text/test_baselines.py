"""zlib and Witten-Bell figures."""

from __future__ import annotations

import math
import sys
import zlib
from collections import Counter, defaultdict

import pytest

from spiral.errors import ArgumentError, DataError
from spiral.text import demo_corpus, split, witten_bell_bits_per_byte, zlib_bits_per_byte


def witten_bell_by_definition(train: bytes, held_out: bytes, order: int) -> float:
    """The recursion of the docstring with dictionaries, one byte at a time."""
    followers: defaultdict[bytes, Counter[int]] = defaultdict(Counter)
    for i, byte in enumerate(train):
        for length in range(min(order - 1, i) + 1):
            followers[train[i - length : i]][byte] += 1

    def probability(context: bytes, byte: int) -> float:
        lower = probability(context[1:], byte) if context else 1 / 256
        seen = followers.get(context)
        if seen is None:
            return lower
        return (seen[byte] + len(seen) * lower) / (seen.total() + len(seen))

    text = train + held_out
    bits = [-math.log2(probability(text[i - order + 1 : i], text[i])) for i in range(len(train), len(text))]
    return sum(bits) / len(bits)


@pytest.mark.parametrize("order", [1, 2, 5, 8])
def test_witten_bell_follows_its_definition(order: int) -> None:
    text = demo_corpus().encode()
    train, held_out = text[:20_000], text[50_000:52_000] + bytes(range(256))
    expected = witten_bell_by_definition(train, held_out, order)
    assert witten_bell_bits_per_byte(train, held_out, order) == pytest.approx(expected, rel=1e-12)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="figures of CPython 3.11's corpus")
def test_demo_corpus_figures() -> None:
    train, held_out = (part.encode() for part in split(demo_corpus()))
    assert zlib_bits_per_byte(train, held_out) == pytest.approx(2.39, abs=0.01)
    assert zlib_bits_per_byte(train, held_out, primed=True) == pytest.approx(2.19, abs=0.01)
    assert witten_bell_bits_per_byte(train, held_out) == pytest.approx(2.04, abs=0.01)


def test_zlib_compresses_the_held_out_part_alone() -> None:
    held_out = b"spiral " * 50
    alone = 8 * len(zlib.compress(held_out, 9)) / len(held_out)
    assert zlib_bits_per_byte(held_out, held_out) == alone
    assert zlib_bits_per_byte(held_out, held_out, primed=True) < alone


def test_unusable_input_is_refused() -> None:
    with pytest.raises(DataError, match="received none"):
        zlib_bits_per_byte(b"abc", b"")
    with pytest.raises(DataError, match="received none"):
        witten_bell_bits_per_byte(b"abcdef", b"")
    with pytest.raises(DataError, match="at least 5 training bytes; received 3"):
        witten_bell_bits_per_byte(b"abc", b"abc")
    with pytest.raises(ArgumentError, match="1 to 8; received 9"):
        witten_bell_bits_per_byte(b"abc", b"abc", order=9)

"""What a language model must beat: bits per byte of zlib and of a byte n-gram model.

Bits per byte compare models with different tokenizers: ``loss / ln(2) / bytes_per_token`` of a
token model (loss in nats per token) is on the same scale as the figures given here.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from spiral.errors import ArgumentError, DataError

_MAX_ORDER = 8  # an n-gram is packed into one uint64


def zlib_bits_per_byte(train: bytes, held_out: bytes, *, primed: bool = False) -> float:
    """Bits per byte that zlib, level 9, needs for the held-out part.

    By default the held-out part is compressed alone, as a user of ``gzip`` would, and the
    training part is not looked at: ``8 * len(compress(held_out)) / len(held_out)``, with zlib's
    6 bytes of framing. With `primed`, it is what the held-out part costs once the training part
    has been seen: ``8 * (len(compress(train + held_out)) - len(compress(train))) /
    len(held_out)``; zlib looks back 32 KiB only, so that is a little better, not much.

    Args:
        train: The training part; used only when `primed`.
        held_out: The text to compress; not empty.
        primed: Whether zlib has seen the training part before.

    Returns:
        Bits per byte; demo corpus of CPython 3.11: 2.39, and 2.19 when primed.

    Raises:
        DataError: `held_out` is empty.

    Example:
        >>> zlib_bits_per_byte(b"", b"abc" * 1000) < 0.1
        True
    """
    _require_held_out("zlib_bits_per_byte", held_out, train)
    size = len(zlib.compress(held_out, 9))
    if primed:
        size = len(zlib.compress(train + held_out, 9)) - len(zlib.compress(train, 9))
    return 8.0 * size / len(held_out)


def witten_bell_bits_per_byte(train: bytes, held_out: bytes, order: int = 5) -> float:
    """Bits per byte of an interpolated Witten-Bell n-gram model over bytes.

    With ``c(h b)`` how often byte b follows context h in the training part, ``c(h)`` their sum
    over b and ``T(h)`` the number of distinct bytes seen after h::

        P(b | h) = (c(h b) + T(h) P(b | h')) / (c(h) + T(h))

    where h' is h without its first byte; an unseen context has ``P(b | h) = P(b | h')``, and
    below the empty context stands the uniform 1/256. Counts come from the training part only
    and are not updated; the first held-out bytes have the end of the training part as context.

    Source: method C of Witten & Bell, "The zero-frequency problem", IEEE Trans. Information
    Theory 37(4), 1991; its interpolated form in Chen & Goodman, "An empirical study of smoothing
    techniques for language modeling", ACL 1996, section 2.

    Args:
        train: Bytes to count; at least `order` of them.
        held_out: Bytes to predict; not empty.
        order: Length of the n-grams, 1 to 8: contexts have up to ``order - 1`` bytes.

    Returns:
        Mean of ``-log2 P`` over the held-out bytes; demo corpus of CPython 3.11, order 5: 2.04.

    Raises:
        ArgumentError: `order` is not between 1 and 8.
        DataError: A part is too short.

    Example:
        >>> round(witten_bell_bits_per_byte(b"ab" * 1000, b"ab" * 10, order=2), 4)
        0.0007
    """
    if not 1 <= order <= _MAX_ORDER:
        raise ArgumentError(f"witten_bell_bits_per_byte: order must be 1 to {_MAX_ORDER}; received {order!r}.")
    _require_held_out("witten_bell_bits_per_byte", held_out, train)
    if len(train) < order:
        raise DataError(
            f"witten_bell_bits_per_byte: order {order} needs at least {order} training bytes; "
            f"received {len(train)}; give more text or a lower order."
        )
    train_bytes = np.frombuffer(train, np.uint8)
    # Each held-out byte with the order - 1 bytes before it.
    context_and_held = np.frombuffer(train[len(train) - (order - 1) :] + held_out, np.uint8)
    probability = np.full(len(held_out), 1.0 / 256.0)
    for length in range(1, order + 1):
        seen = _packed_ngrams(train_bytes, length)
        asked = _packed_ngrams(context_and_held[order - length :], length)
        probability = _interpolate(seen, asked, probability)
    return float(-np.log2(probability).mean())


def _interpolate(
    seen: NDArray[np.uint64], asked: NDArray[np.uint64], lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One order of the model: P(b | h) for the asked n-grams from P(b | h')."""
    ngrams, counts = np.unique(seen, return_counts=True)
    # An n-gram's last byte is its lowest: n-grams with one context stand side by side.
    contexts = ngrams >> np.uint64(8)
    starts = np.flatnonzero(np.concatenate(([True], contexts[1:] != contexts[:-1])))
    totals = np.add.reduceat(counts, starts)
    distinct = np.diff(starts, append=len(ngrams))
    count = _look_up(ngrams, counts, asked)
    asked_context = asked >> np.uint64(8)
    total = _look_up(contexts[starts], totals, asked_context)
    types = _look_up(contexts[starts], distinct, asked_context)
    known = total > 0
    return np.where(known, (count + types * lower) / np.where(known, total + types, 1), lower)


def _packed_ngrams(data: NDArray[np.uint8], length: int) -> NDArray[np.uint64]:
    """Every n-gram of the data as one integer, its first byte highest."""
    n_grams = len(data) - length + 1
    packed = np.zeros(n_grams, np.uint64)
    for i in range(length):
        packed = (packed << np.uint64(8)) | data[i : i + n_grams]
    return packed


def _look_up(keys: NDArray[np.uint64], values: NDArray[np.intp], asked: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Values at the asked keys, 0 where a key is missing; `keys` are sorted."""
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[at] == asked, values[at], 0)


def _require_held_out(name: str, held_out: bytes, train: bytes) -> None:
    for part in (held_out, train):
        if not isinstance(part, bytes):
            raise DataError(f"{name}: expected bytes; received {type(part).__name__}; encode text as UTF-8.")
    if not held_out:
        raise DataError(f"{name}: expected held-out bytes to predict; received none.")

"""Random tensors from Philox streams: the same seed gives the same numbers on every backend.

The state is a seed and the number of the next stream; every call takes one stream. It is
process-wide and advances under a lock.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from spiral import philox
from spiral.abstract import valueless
from spiral.dispatch import shapes_only
from spiral.dtype import DEFAULT_FLOAT, DEFAULT_INT, DType, as_dtype
from spiral.errors import ArgumentError
from spiral.tensor import Tensor, from_numpy

_lock = threading.Lock()
_state = {"seed": 0, "stream": 0}


def manual_seed(seed: int) -> None:
    """Restarts all random numbers from a seed of up to 64 bits."""
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ArgumentError(f"manual_seed: expected an integer in [0, 2^64); received {seed!r}.")
    seed = int(seed)
    if shapes_only():
        return
    with _lock:
        _state.update(seed=seed, stream=0)


def get_state() -> dict[str, int]:
    """Seed and next stream, as plain integers."""
    with _lock:
        return dict(_state)


def set_state(state: dict[str, int]) -> None:
    """Restores what `get_state` returned."""
    if shapes_only():
        return
    with _lock:
        _state.update(seed=int(state["seed"]), stream=int(state["stream"]))


def next_stream() -> tuple[int, int]:
    """Takes the next stream: (seed, stream). Where only shapes are evaluated it stays for the next caller."""
    kept = shapes_only()
    with _lock:
        stream = _state["stream"]
        _state["stream"] = stream + (not kept)
        return _state["seed"], stream


def _shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _finish(values: Any, shape: tuple[int, ...], dtype: DType | None, device: Any) -> Tensor:
    t = from_numpy(values.reshape(shape), copy=True)
    if dtype is not None:
        t = t.astype(as_dtype(dtype), copy=False)
    return t if device is None else t.to(device)


def uniform(
    shape: int | tuple[int, ...],
    *,
    low: float = 0.0,
    high: float = 1.0,
    dtype: DType = DEFAULT_FLOAT,
    device: Any = None,
) -> Tensor:
    """Uniform numbers in [low, high)."""
    shape = _shape(shape)
    if shapes_only():
        return valueless(shape, as_dtype(dtype or DEFAULT_FLOAT))
    return _finish(philox.uniform(*next_stream(), 0, int(np.prod(shape)), low, high), shape, dtype, device)


def normal(
    shape: int | tuple[int, ...],
    *,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: DType = DEFAULT_FLOAT,
    device: Any = None,
) -> Tensor:
    """Normal numbers."""
    shape = _shape(shape)
    if shapes_only():
        return valueless(shape, as_dtype(dtype or DEFAULT_FLOAT))
    return _finish(philox.normal(*next_stream(), 0, int(np.prod(shape)), mean, std), shape, dtype, device)


def integers(low: int, high: int, shape: int | tuple[int, ...], *, device: Any = None) -> Tensor:
    """int64 in [low, high)."""
    shape = _shape(shape)
    if not 0 < high - low < 2**32:
        raise ArgumentError(f"integers: expected 0 < high - low < 2^32; received low={low}, high={high}.")
    if shapes_only():
        return valueless(shape, DEFAULT_INT)
    return _finish(philox.integers(*next_stream(), 0, int(np.prod(shape)), low, high), shape, None, device)


def permutation(n: int) -> Tensor:
    """The numbers 0 to n - 1 in random order."""
    if shapes_only():
        return valueless((n,), DEFAULT_INT)
    return from_numpy(np.argsort(philox.random_bits(*next_stream(), 0, n), kind="stable").astype(np.int64), copy=True)

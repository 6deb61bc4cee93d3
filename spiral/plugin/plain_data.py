"""Values as JSON can hold them: what has no counterpart becomes a text that says what it was, never a guess."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

from spiral.errors import kind_of

MAX_DEPTH = 8
MAX_TEXT = 500


def plain(value: object, depth: int = 0) -> Any:
    """A value of None, booleans, numbers, strings, lists and dicts with string keys only.

    Numbers that are not finite become ``"nan"``, ``"inf"`` and ``"-inf"``, as JSON has none; arrays and tensors are
    named by type, shape and dtype; of other objects the ``repr`` is kept.

    Args:
        value: anything.
        depth: how deep it lies in what is being converted; below 8 only its ``repr`` is kept.

    Example:
        >>> import numpy as np
        >>> plain({1: (np.float32(0.5), float("nan")), "x": np.zeros(3)})
        {'1': [0.5, 'nan'], 'x': 'ndarray (3,) float64'}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and not isinstance(value, type):
        item = getattr(value, "item", None)
        if shape == () and type(value).__module__ == "numpy" and callable(item):
            return plain(item(), depth + 1) if depth < MAX_DEPTH else _text(value)
        return kind_of(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {k if isinstance(k, str) else _text(k): plain(v, depth + 1) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item, depth + 1) for item in value]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name), depth + 1) for f in dataclasses.fields(value)}
    return _text(value)


def _text(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # what somebody else's object does must not keep an event from being written
        text = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"

"""Values of a type hint: from text, JSON or YAML to Python, and what a hint allows in words and in JSON Schema.

Nothing is evaluated: a text is taken apart by the rules here.
"""

from __future__ import annotations

import collections.abc
import enum
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; an open end is itself excluded, None is no limit.

    Example:
        >>> str(Range(0, 1, open_high=True)), 1.0 in Range(0, 1, open_high=True), str(Range(1))
        ('at least 0 and below 1', False, 'at least 1')
    """

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        below = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return above and below

    def __str__(self) -> str:
        ends = []
        if self.low is not None:
            ends.append(f"{'above' if self.open_low else 'at least'} {_plain_number(self.low)}")
        if self.high is not None:
            ends.append(f"{'below' if self.open_high else 'at most'} {_plain_number(self.high)}")
        return " and ".join(ends)


def _plain_number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


@dataclass(frozen=True)
class OneOf:
    """One of some texts, for ``Annotated[str, OneOf("mean", "sum")]`` where the hint itself shall stay ``str``."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


class Refused(ValueError):
    """A value does not fit its hint."""


_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_INTEGER = re.compile(r"[+-]?\d{1,4000}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_NONES = (None, types.NoneType)


def parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A hint without ``Annotated``, and what it was annotated with."""
    notes: tuple[Any, ...] = ()
    while get_origin(hint) is typing.Annotated:
        notes += hint.__metadata__
        hint = hint.__origin__
    return hint, notes


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union; another hint alone."""
    plain, _ = parts(hint)
    return get_args(plain) if get_origin(plain) in (typing.Union, types.UnionType) else (hint,)


def convert(value: Any, hint: Any) -> Any:
    """The value as what the hint asks for.

    Raises:
        Refused: it is no such thing, and no text of one.
    """
    plain, notes = parts(hint)
    made = _convert(value, plain)
    for note in notes:
        if isinstance(note, Range):
            _check_range(made, note)
        elif isinstance(note, OneOf) and isinstance(made, str) and made not in note.names:
            raise Refused
    return made


def _check_range(value: Any, allowed: Range) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_range(item, allowed)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and value not in allowed:
        raise Refused


def _convert(value: Any, hint: Any) -> Any:
    if hint in (Any, object, Ellipsis) or isinstance(hint, typing.TypeVar):
        return value
    if get_origin(hint) in (typing.Union, types.UnionType):
        return _of_union(value, get_args(hint))
    if get_origin(hint) is Literal:
        for allowed in get_args(hint):
            if type(value) is type(allowed) and value == allowed:
                return allowed
        return _first(value, [a for a in get_args(hint) if isinstance(value, str) and value.strip() == str(a)])
    if hint in _NONES:
        return _first(None, [None] if value is None or _word(value) in ("none", "null") else [])
    simple = _SIMPLE.get(hint)
    if simple is not None:
        return simple(value)
    origin = get_origin(hint) or hint
    if origin in _SEQUENCES:
        return _sequence(value, origin, get_args(hint))
    if origin in _MAPPINGS:
        return _mapping(value, get_args(hint))
    if origin in (collections.abc.Callable, typing.Callable):
        return _first(value, [value] if callable(value) else [])
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        said = (e for e in origin if type(e.value) is type(value) and e.value == value)
        same = [value] if isinstance(value, origin) else [*said, *(e for e in origin if _word(value) in _spellings(e))]
        return _first(value, same)
    if isinstance(origin, type):
        return _first(value, [value] if isinstance(value, origin) else [])
    return value  # a hint that says nothing about values, such as a NewType


def _first(value: Any, found: list[Any]) -> Any:
    if not found:
        raise Refused
    return found[0]


def _word(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else None


def _spellings(member: enum.Enum) -> tuple[str, str]:
    return member.name.lower(), str(member.value).lower()


def _integer(value: Any) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
        return int(value)
    raise Refused


def _number(value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, np.bool_)):
        try:
            number = float(value)
        except OverflowError:
            raise Refused from None
        if math.isfinite(number):
            return number
    raise Refused


def _flag(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if _word(value) in (*_TRUE, *_FALSE):
        return _word(value) in _TRUE
    raise Refused


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise Refused


def _path(value: Any) -> Path:
    if isinstance(value, (str, Path)) and "\0" not in str(value):
        return Path(value)
    raise Refused


_SIMPLE: dict[Any, Any] = {int: _integer, float: _number, bool: _flag, str: _text, Path: _path}


def _of_union(value: Any, hints: tuple[Any, ...]) -> Any:
    """What is one of the types already stays; else the first that takes it, text last, for everything is text."""
    for hint in hints:
        plain, _ = parts(hint)
        exact = value is None if plain in _NONES else isinstance(plain, type) and type(value) is plain
        if exact and not (isinstance(value, str) and len(hints) > 1):
            return convert(value, hint)
    texts = isinstance(value, str) and str in [parts(h)[0] for h in hints]
    for hint in sorted(hints, key=lambda h: (parts(h)[0] is str, parts(h)[0] not in _NONES)):
        if texts and parts(hint)[0] in _NONES and _word(value) != "null":
            continue  # `none` is a word, and null is not
        try:
            return convert(value, hint)
        except Refused:
            continue
    raise Refused


def _sequence(value: Any, origin: Any, hints: tuple[Any, ...]) -> Any:
    if isinstance(value, str):
        value = _split(value)
    if not isinstance(value, (list, tuple)):
        raise Refused
    if origin is tuple and hints and hints[-1] is not Ellipsis:
        if len(hints) != len(value) and hints != ((),):
            raise Refused
        return tuple(convert(v, h) for v, h in zip(value, hints, strict=True))
    made = [convert(v, hints[0]) for v in value] if hints else list(value)
    return made if origin is list else tuple(made)


def _split(text: str) -> list[str]:
    """The parts of ``3,5``, ``(3, 5)``, ``[3, [4, 5]]`` or ``3x5``."""
    text = text.strip()
    if re.fullmatch(r"\d+(x\d+)+", text):
        return text.split("x")
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1]
    found, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            found.append(text[start:i].strip())
            start = i + 1
    if text[start:].strip():
        found.append(text[start:].strip())
    return found


def _mapping(value: Any, hints: tuple[Any, ...]) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Refused from None
    if not isinstance(value, Mapping):
        raise Refused
    if len(hints) != 2:
        return dict(value)
    return {convert(k, hints[0]): convert(v, hints[1]) for k, v in value.items()}


def plain(value: Any) -> Any:
    """The value as JSON and YAML have it.

    Raises:
        Refused: it is an object that no file can hold.
    """
    if isinstance(value, enum.Enum):
        return plain(value.value) if isinstance(value.value, str) else value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {k: plain(v) for k, v in value.items()}
    raise Refused

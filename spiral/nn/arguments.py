"""Checks of arguments that are no tensors: each returns the value it checked, or names who refused what.

For constructors, and for functions that are not called once per layer; what a forward needs is checked by the op's
``meta``, once per shape.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import numpy as np

from spiral.errors import ArgumentError, DTypeError, kind_of, received
from spiral.schema_values import Range
from spiral.tensor_core import TensorCore

# what constructors declare, so that a configuration is refused before anything is built
Size = Annotated[int, Range(1)]
Count = Annotated[int, Range(0)]
Probability = Annotated[float, Range(0, 1)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]


def integer(owner: str, what: str, value: Any, least: int | None = None) -> int:
    """A Python integer from anything that is one (NumPy's too, but no boolean).

    Raises:
        ArgumentError: it is none, or less than ``least``.

    Example:
        >>> import numpy as np
        >>> integer("Linear", "in_features", np.int32(3), least=1)
        3
    """
    if value.__class__ is int and (least is None or value >= least):
        return value
    number = None
    if not isinstance(value, (bool, np.bool_, np.ndarray, TensorCore)):
        try:
            number = operator.index(value)
        except TypeError:
            number = None
    if number is None or (least is not None and number < least):
        raise ArgumentError(f"{owner}: {what} must be {_kind(least)}; received {received(value)}.")
    return number


def _kind(least: int | None) -> str:
    if least is None:
        return "an integer"
    return "a positive integer" if least == 1 else f"an integer of at least {least}"


def integers(owner: str, what: str, value: Any, least: int, count: int | None = None) -> tuple[int, ...]:
    """One integer or several; with ``count`` one stands for that many.

    Raises:
        ArgumentError: there are others than that, none, or one is less than ``least``.
    """
    given = tuple(value) if isinstance(value, (list, tuple)) else (value,) * (count or 1)
    try:
        if given and count in (None, len(given)):
            return tuple([integer(owner, what, v, least) for v in given])
    except ArgumentError:
        pass  # the message below shows the whole
    wanted = f"{_kind(least)} or {'a tuple' if count is None else count} of them"
    raise ArgumentError(f"{owner}: {what} must be {wanted}; received {received(value)}.")


def real(
    owner: str,
    what: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    infinite: bool = False,
) -> float:
    """A real number in [least, most].

    Args:
        owner: The function or class that asks.
        what: The argument's name.
        value: What was given: a Python or NumPy number.
        least: Smallest value.
        most: Largest value.
        above: Whether ``least`` itself is refused.
        below: Whether ``most`` itself is refused.
        infinite: Whether infinity is taken.

    Raises:
        ArgumentError: it is no number, NaN, or out of range.
    """
    if value.__class__ is float and (least < value < most or (value == least == 0.0 and not above)):
        return value  # the common case: 0.15 µs instead of 0.6
    number = not isinstance(value, (bool, np.bool_)) and isinstance(value, (int, float, np.integer, np.floating))
    inside = number and (least < value if above else least <= value) and (value < most if below else value <= most)
    if not inside or (not infinite and not math.isfinite(value)):
        raise ArgumentError(
            f"{owner}: {what} must be {_interval(least, most, above, below, infinite)}; received {received(value)}."
        )
    return value if isinstance(value, (int, float)) else float(value)


def _interval(least: float, most: float, above: bool, below: bool, infinite: bool) -> str:
    if math.isfinite(most):
        return f"a number in {'(' if above else '['}{least:g}, {most:g}{')' if below else ']'}"
    kind = "a number" if infinite else "a finite number"
    if math.isfinite(least):
        return f"{kind} above {least:g}" if above else f"{kind} of at least {least:g}"
    return kind


def flag(owner: str, what: str, value: Any) -> bool:
    """True or False, NumPy's too; any other object would be true or false by accident.

    Raises:
        ArgumentError: it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{owner}: {what} must be True or False; received {received(value)}.")
    return bool(value)


def choice(owner: str, what: str, value: Any, allowed: Iterable[str]) -> str:
    """One of some names.

    Raises:
        ArgumentError: it is another; the message lists them.
    """
    names = tuple(allowed)
    if not isinstance(value, str) or value not in names:
        raise ArgumentError(f"{owner}: {what} must be {_or(list(map(repr, names)))}; received {received(value)}.")
    return value


def _or(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def function(owner: str, what: str, value: Any) -> Callable[..., Any]:
    """Something that can be called.

    Raises:
        ArgumentError: it cannot.
    """
    if not callable(value):
        raise ArgumentError(f"{owner}: {what} must be a function; received {received(value)}.")
    return value  # type: ignore[no-any-return]


def tensors(owner: str, **given: Any) -> None:
    """Raises DTypeError unless every given argument is a tensor."""
    for what, value in given.items():
        if not isinstance(value, TensorCore):
            hint = " Wrap it with spiral.asarray()." if isinstance(value, (np.ndarray, np.generic, list, tuple)) else ""
            raise DTypeError(f"{owner}: {what} must be a Tensor; received {kind_of(value)}.{hint}")


def tensor_list(owner: str, what: str, value: Any) -> list[Any]:
    """The tensors of an iterable, or one tensor, as a list.

    Raises:
        ArgumentError: it is neither, or something else is among them.
    """
    if isinstance(value, TensorCore):
        return [value]
    try:
        found = list(value)
    except TypeError:
        raise ArgumentError(f"{owner}: {what} must be tensors; received {kind_of(value)}.") from None
    for i, item in enumerate(found):
        if not isinstance(item, TensorCore):
            raise ArgumentError(f"{owner}: {what}[{i}] must be a Tensor; received {kind_of(item)}.")
    return found

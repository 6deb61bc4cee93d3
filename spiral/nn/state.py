"""Loading a state dict: everything that does not fit is reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from spiral.creation import asarray
from spiral.dtype import as_dtype
from spiral.errors import DTypeError, SpiralError, kind_of
from spiral.tensor import Tensor


class StateDictError(SpiralError, ValueError):
    """A state dict does not fit a module or an optimizer.

    Attributes:
        missing: Names that the module has and the state dict has not.
        unexpected: Names that the state dict has and the module has not.
        mismatched: Name, expected shape and received shape of each tensor of the wrong shape.
    """

    def __init__(
        self,
        message: str,
        missing: tuple[str, ...] = (),
        unexpected: tuple[str, ...] = (),
        mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = (),
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.unexpected = unexpected
        self.mismatched = mismatched


class LoadReport(NamedTuple):
    """Names that a non-strict load left out."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def need_mapping(owner: str, state: Any) -> None:
    """Raises StateDictError unless a state is a mapping."""
    if not isinstance(state, Mapping):
        raise StateDictError(f"{owner}: expected a mapping, what state_dict() returns; received {kind_of(state)}.")


def is_array(value: Any) -> bool:
    """Whether a value is a tensor, or another array whose elements are real numbers."""
    if not hasattr(value, "shape"):
        return False
    if not isinstance(value, (np.ndarray, np.generic)):
        return True  # ours, or one that brings DLPack
    try:
        as_dtype(value.dtype)
    except DTypeError:
        return False
    return True


def load_tensors(owner: str, targets: Mapping[str, Tensor], source: Mapping[str, Any], strict: bool) -> LoadReport:
    """Overwrites ``targets`` with the tensors of the same names in ``source``; nothing changes on an error.

    Args:
        owner: Class that loads, for the message.
        targets: Tensors to overwrite.
        source: Tensors or NumPy arrays.
        strict: Whether names on one side only are errors. Shapes must always fit.

    Returns:
        The names found on one side only.

    Raises:
        StateDictError: names or shapes do not fit; the message lists all of them.
    """
    need_mapping(f"{owner}.load_state_dict", source)
    refused = [
        f"{k}: expected a tensor or an array of numbers; received {kind_of(v)}"
        for k, v in source.items()
        if not is_array(v)
    ]
    if refused:
        raise StateDictError(f"{owner}.load_state_dict: the state dict does not fit:" + _lines(refused))
    missing = tuple(name for name in targets if name not in source)
    unexpected = tuple(name for name in source if name not in targets)
    mismatched = tuple(
        (name, target.shape, tuple(source[name].shape))
        for name, target in targets.items()
        if name in source and tuple(source[name].shape) != target.shape
    )
    problems = []
    if strict and missing:
        problems.append(f"missing: {', '.join(missing)}")
    if strict and unexpected:
        problems.append(f"unexpected: {', '.join(map(str, unexpected))}")
    problems += [f"{name}: expected shape {wanted}; received {got}" for name, wanted, got in mismatched]
    if problems:
        raise StateDictError(
            f"{owner}.load_state_dict: the state dict does not fit:{_lines(problems)}", missing, unexpected, mismatched
        )
    for name, target in targets.items():
        if name in source:
            target.copy_(asarray(source[name], dtype=target.dtype, device=target.device))
    return LoadReport(missing, unexpected)


def _lines(problems: list[str]) -> str:
    return "".join(f"\n  {p}" for p in problems)

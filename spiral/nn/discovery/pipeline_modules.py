"""What a built pipeline consists of: modules in a row, side by side, and around a shortcut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spiral import ops
from spiral.errors import ArgumentError, ShapeError
from spiral.nn.arguments import choice, integer
from spiral.nn.container import Sequential
from spiral.nn.discovery.shapes import first_of
from spiral.nn.module import Module

MERGES = ("concat", "add", "mean", "multiply")


class Pipeline(Sequential):
    """Modules called one after the other; of several results the first goes on.

    Args:
        *modules: in order, or as one mapping from names to modules.
        name: what it is called.
    """

    def __init__(self, *modules: Module | Mapping[str, Module], name: str = "") -> None:
        super().__init__(*modules)
        self.name = name

    def forward(self, x: Any) -> Any:
        for module in self.children():
            x = first_of(module(x))
        return x

    def extra_repr(self) -> str:
        return repr(self.name) if self.name else ""


class Parallel(Module):
    """Modules that all get the same input, and whose results are merged.

    Args:
        branches: the modules.
        merge: ``concat`` along an axis; ``add``, ``mean`` or ``multiply`` of equal shapes.
        axis: of the tensors, so that 0 is the batch and cannot be it.
    """

    def __init__(self, branches: Sequence[Module], merge: str = "concat", axis: int = 1) -> None:
        super().__init__()
        self.merge, self.axis = check_merge("Parallel", len(branches), merge, axis)
        for number, branch in enumerate(branches, 1):
            self.add_module(f"branch_{number}", branch)

    def forward(self, x: Any) -> Any:
        return merged([first_of(branch(x)) for branch in self.children()], self.merge, self.axis)

    def extra_repr(self) -> str:
        return f"{self.merge}, axis={self.axis}" if self.merge == "concat" else self.merge


class Residual(Module):
    """x + branch(x).

    Args:
        branch: gives the shape that it gets.
    """

    branch: Module

    def __init__(self, branch: Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Any) -> Any:
        return merged([x, first_of(self.branch(x))], "add")


def check_merge(owner: str, branches: int, merge: Any, axis: Any) -> tuple[str, int]:
    """The way of merging and its axis.

    Raises:
        ArgumentError: one is not allowed, or there is no branch.
    """
    if branches < 1:
        raise ArgumentError(f"{owner}: expected at least one branch; received none.")
    merge, axis = choice(owner, "merge", merge, MERGES), integer(owner, "axis", axis)
    if axis == 0:
        raise ArgumentError(f"{owner}: axis must not be 0, the batch; 1 is the first axis of a sample.")
    return merge, axis


def merged(results: Sequence[Any], merge: str, axis: int = 1) -> Any:
    """The results of branches as one.

    Raises:
        ShapeError: their shapes do not fit; nothing is broadcast.
    """
    shapes = [tuple(r.shape) for r in results]
    first = shapes[0]
    if merge == "concat":
        place = axis if axis >= 0 else axis + len(first)
        if not 0 < place < len(first):
            raise ShapeError(f"concat along axis {axis}: the first branch gives {first}, which has no such axis")
        rest = [s[:place] + s[place + 1 :] for s in shapes]
        if any(len(s) != len(first) for s in shapes) or any(r != rest[0] for r in rest):
            raise ShapeError(
                f"concat along axis {axis}: the other axes must be equal; the branches give {_all(shapes)}"
            )
        return ops.concat(list(results), axis=axis)
    if any(s != first for s in shapes):
        raise ShapeError(f"{merge}: the branches must give equal shapes; they give {_all(shapes)}")
    total = results[0]
    for other in results[1:]:
        total = total * other if merge == "multiply" else total + other
    return total * (1.0 / len(results)) if merge == "mean" else total


def _all(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes))

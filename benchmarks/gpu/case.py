"""What a case is: one thing to compute, in spiral, in PyTorch and in Liger-Kernel, at one size.

A case's functions take a framework and a list of sets of inputs, and give a run per set. `forward` and `with_gradient`
make them from one line per framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gpu.side import Array, Drawn, Run

Sets = Sequence[Sequence[Any]]
Make = Callable[[Any, Sets], list[Run]]
"""(framework, sets of inputs) -> a run per set."""

_DRAWN = (1 << 20) - 3  # different random numbers; larger arrays repeat them, but not row by row


@dataclass(frozen=True)
class Input:
    """An array that a case takes.

    Attributes:
        shape: of it.
        below: integers from 0 to here, without; 0: standard normal numbers.
        positive: only positive numbers.
        scale: factor of normal numbers.
        shapes: of a list of arrays instead of one.
    """

    shape: tuple[int, ...] = ()
    below: int = 0
    positive: bool = False
    scale: float = 1.0
    shapes: tuple[tuple[int, ...], ...] = ()

    def draw(self, rng: np.random.Generator) -> Drawn | list[Drawn]:
        """One set's values."""
        if self.shapes:
            return [self._one(rng, shape) for shape in self.shapes]
        return self._one(rng, self.shape)

    def _one(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Drawn:
        count = min(math.prod(shape), _DRAWN)
        values: Array
        if self.below:
            values = rng.integers(0, self.below, count)
        else:
            values = np.float32(self.scale) * rng.standard_normal(count, dtype=np.float32)
            values = np.abs(values) if self.positive else values
        return Drawn(values, shape)


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        name: of what is computed.
        size: how reports call the shapes.
        dtype: of the floating inputs.
        ops: spiral's ops in it: a backend without a kernel for one of them is no side of it.
        inputs: what it takes.
        spiral: its runs in spiral.
        torch: its runs in PyTorch, given ``(torch, compiled)`` where ``compiled`` wraps a function or leaves it.
        liger: its runs in Liger-Kernel's functional module, given ``(torch, liger)``; None: there are none.
        moved: bytes that it must move at least.
        flops: floating-point operations that it must do at least, of matrix products.
        tolerance: relative distance that results may have from PyTorch's in the same dtype.
        large: whether the bar for its share of the bandwidth or rate holds.
        compiled: whether torch.compile is worth its time.
        matches: whether results are compared; random ones are not.
        mutates: it writes its inputs, so that every side needs its own.
        speed_aim: times PyTorch's speed that it should have.
        memory_aim: times PyTorch's peak memory that it may have; 0: no aim.
    """

    name: str
    size: str
    dtype: str
    ops: tuple[str, ...]
    inputs: tuple[Input, ...]
    spiral: Make
    torch: Make
    liger: Make | None = None
    moved: int = 0
    flops: int = 0
    tolerance: float = 1e-4
    large: bool = False
    compiled: bool = True
    matches: bool = True
    mutates: bool = False
    speed_aim: float = 0.9
    memory_aim: float = 0.0

    @property
    def key(self) -> str:
        """What it is called on the command line."""
        return f"{self.name} {self.size} {self.dtype}"


def _bind(fn: Callable[..., Any], values: Sequence[Any]) -> Run:
    return lambda: fn(*values)


def forward_spiral(fn: Callable[..., Any]) -> Make:
    """``fn(sp, *inputs)``, nothing recorded for a gradient."""

    def make(sp: Any, sets: Sets) -> list[Run]:
        return [_bind(lambda *xs: fn(sp, *xs), s) for s in sets]

    return make


def forward_torch(fn: Callable[..., Any]) -> Make:
    """``fn(torch, *inputs)`` without gradients."""

    def make(framework: Any, sets: Sets) -> list[Run]:
        torch, compiled = framework
        step = compiled(lambda *xs: fn(torch, *xs))

        def run(*xs: Any) -> Any:
            with torch.no_grad():
                return step(*xs)

        return [_bind(run, s) for s in sets]

    return make


def gradient_spiral(fn: Callable[..., Any], leaves: Sequence[int]) -> Make:
    """``fn(sp, *inputs)`` but the last, which is its upstream gradient (absent: of a scalar); result and gradients."""

    def make(sp: Any, sets: Sets) -> list[Run]:
        from spiral.autograd import grad_of

        def prepared(values: Sequence[Any]) -> Run:
            *xs, g = values
            for i in leaves:
                xs[i].requires_grad_()
            wanted = [xs[i] for i in leaves]

            def run() -> Any:
                y = fn(sp, *xs)
                return [y.detach(), *grad_of([y], wanted, None if y.ndim == 0 else [g])]

            return run

        return [prepared(s) for s in sets]

    return make


def gradient_torch(fn: Callable[..., Any], leaves: Sequence[int]) -> Make:
    """As `gradient_spiral`."""

    def make(framework: Any, sets: Sets) -> list[Run]:
        torch, compiled = framework
        step = compiled(lambda *xs: fn(torch, *xs))

        def prepared(values: Sequence[Any]) -> Run:
            *xs, g = values
            for i in leaves:
                xs[i].requires_grad_()
            wanted = [xs[i] for i in leaves]

            def run() -> Any:
                y = step(*xs)
                return [y.detach(), *torch.autograd.grad(y, wanted, None if y.ndim == 0 else g)]

            return run

        return [prepared(s) for s in sets]

    return make


def with_liger(name: str, *more: Any, leaves: Sequence[int] = (), **options: Any) -> Make:
    """A function of ``liger_kernel.transformers.functional``, with its gradient where leaves are given."""

    def make(framework: Any, sets: Sets) -> list[Run]:
        torch, liger = framework
        call = getattr(liger, name)

        def fn(_: Any, *xs: Any) -> Any:
            y = call(*xs, *more, **options)
            return y[0] if isinstance(y, tuple) else y

        plain = (torch, lambda f: f)
        return gradient_torch(fn, leaves)(plain, sets) if leaves else forward_torch(fn)(plain, sets)

    return make

"""checkpoint: a function's intermediate values are dropped, and computed again in backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from spiral import random
from spiral.autograd import (
    Leaf,
    Node,
    check_fresh,
    enable_grad,
    grad_enabled,
    map_tensors,
    next_sequence,
    run_backward,
)
from spiral.errors import AutogradError
from spiral.op import F
from spiral.tensor_core import TensorCore, wrap

_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic)
Edge = tuple[Any, int]


def checkpoint(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Runs ``fn(*args, **kwargs)`` without keeping its intermediate values; backward runs it again.

    Nested checkpoints and gradients of gradients work. Tensors that ``fn`` closes over get their
    gradients like arguments. Random ops draw the same numbers again, because the stream's position is
    restored; other side effects (running statistics) happen twice.

    Args:
        fn: a pure function; a module is one.
        *args: tensors and other values, also nested in lists, tuples and dictionaries.
        **kwargs: the same, by name.

    Returns:
        What ``fn`` returns: tensors, plain values, and (nested) lists, tuples and dictionaries of them.

    Raises:
        AutogradError: ``fn`` returns something else; or, in backward, its second run returned other
            outputs or used other tensors than the first, or an argument was overwritten in between.

    Example:
        >>> import spiral as sp
        >>> x = sp.asarray([1.0, 2.0]).requires_grad_()
        >>> checkpoint(lambda t: (t * t).sum(), x).backward()
        >>> x.grad.tolist()
        [2.0, 4.0]
    """
    if not grad_enabled():
        return fn(*args, **kwargs)
    # snapshots: an argument that is changed later by `x += 1` is another value then
    call = _Call(fn, *map_tensors((args, kwargs), lambda t: wrap(t._a, t._key, t._node, t._index)))
    start = next_sequence()
    result, outputs, aliases = call.run(lambda t: wrap(t._a, t._key, Leaf()))
    tracked = [k for k, t in enumerate(outputs) if t._node is not None]
    if not tracked:
        return result
    own = {id(a._node) for a in aliases}
    outer = _edges_out([outputs[k] for k in tracked], start, own)
    edges = (*((t._node, t._index) for t in call.sources), *outer)
    op = _Recompute(call, tracked, [t.shape for t in outputs], outer)
    node: Any = Node(op, edges, (), (), ())  # type: ignore[arg-type]
    node.n_out = len(tracked)
    op.seq = node.seq
    numbers = iter(range(len(outputs)))

    def connect(t: Any) -> Any:
        k = next(numbers)
        return wrap(t._a, t._key, node, tracked.index(k)) if k in tracked else t

    return map_tensors(result, connect)


class _Call:
    """The function with its arguments and the state of the random stream, to be run as often as needed."""

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.fn, self.args, self.kwargs = fn, args, kwargs
        self.random_state = random.get_state()
        self.sources: list[Any] = []  # arguments that require gradients, in order
        map_tensors((args, kwargs), lambda t: self.sources.append(t) if t._node is not None else None)

    def run(self, alias: Callable[[Any], Any]) -> tuple[Any, list[Any], list[Any]]:
        """Result, the tensors in it, and what ``alias`` made of the sources."""
        aliases: list[Any] = []

        def stand_in(t: Any) -> Any:
            if t._node is None:
                return t
            aliases.append(alias(t))
            return aliases[-1]

        args, kwargs = map_tensors((self.args, self.kwargs), stand_in)
        result = self.fn(*args, **kwargs)
        return result, _tensors(result), aliases


class _Recompute:
    """Stands where a node's op stands; its vjp runs the function again, recorded, and through it."""

    name = "checkpoint"
    hooked = False
    many_outputs = True
    exact_vjp = True
    decompose = None
    wants: tuple[Any, ...] = ()
    seq = 0

    def __init__(self, call: _Call, tracked: list[int], shapes: list[Any], outer: list[Edge]) -> None:
        self.call, self.tracked, self.shapes, self.outer = call, tracked, shapes, outer

    def vjp(self, need: tuple[bool, ...], gradients: list[Any]) -> tuple[Any, ...]:
        create_graph = grad_enabled()
        for t in self.call.sources:
            check_fresh(self.name, self.seq, t._a)
        now = random.get_state()
        random.set_state(self.call.random_state)
        try:
            with enable_grad():
                start = next_sequence()
                # with create_graph an identity node ties the second run to the outer graph
                _, outputs, aliases = self.call.run(
                    F.identity if create_graph else lambda t: wrap(t._a, t._key, Leaf())
                )
        finally:
            random.set_state(now)
        roots = self._same_outputs(outputs)
        used = [(r, g) for r, g in zip(roots, gradients, strict=True) if g is not None]
        sources = [(id(a._node), a._index) for a in aliases]
        targets = sources + [(id(n), i) for n, i in self.outer]
        own = {ident for ident, _ in sources}
        stop = own | {id(n) for n, _ in self.outer}
        if any(id(n) not in stop for n, _ in _edges_out(roots, start, own)):
            raise AutogradError("checkpoint: in backward the function used other tensors than in the forward.")
        wanted = {t for t, w in zip(targets, need, strict=True) if w}
        found = run_backward([r for r, _ in used], [g for _, g in used], create_graph, wanted, stop)
        return tuple(found.get(t) for t in targets)

    def _same_outputs(self, outputs: list[Any]) -> list[Any]:
        shapes = [t.shape for t in outputs]
        if shapes != self.shapes or any(outputs[k]._node is None for k in self.tracked):
            raise AutogradError(
                f"checkpoint: the function must return the same outputs when it runs again; it returned {self.shapes}, "
                f"then {shapes}."
            )
        return [outputs[k] for k in self.tracked]


def _edges_out(outputs: list[Any], start: int, own: set[int]) -> list[Edge]:
    """The values from before ``start`` (leaves, and results that the function closes over) outputs depend on."""
    found: dict[tuple[int, int], Edge] = {}
    seen: set[int] = set()
    stack: list[Edge] = [(t._node, t._index) for t in outputs]
    while stack:
        node, index = stack.pop()
        if id(node) in own:
            continue
        if node.seq <= start:
            found[id(node), index] = (node, index)
        elif id(node) not in seen:
            seen.add(id(node))
            for edge in node.edges:
                stack.extend(e for e in (edge if isinstance(edge, list) else (edge,)) if e is not None)
    return list(found.values())


def _tensors(result: Any) -> list[Any]:
    """The tensors in a result, in the order of `map_tensors`.

    Raises:
        AutogradError: there is something in it that may hide tensors.
    """
    if isinstance(result, TensorCore):
        return [result]
    if isinstance(result, dict):
        return [t for v in result.values() for t in _tensors(v)]
    if isinstance(result, (list, tuple)):
        return [t for v in result for t in _tensors(v)]
    if isinstance(result, _PLAIN):
        return []
    raise AutogradError(
        "checkpoint: the function must return tensors, plain values, or lists, tuples and dictionaries of them; "
        f"received {type(result).__name__}."
    )

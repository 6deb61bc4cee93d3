"""The tape: nodes, backward, grad, value_and_grad, no_grad, checkpoint.

A result that depends on a leaf holds a `Node` with edges to the nodes of its inputs and exactly the
buffers that its op's vjp names. Nothing points from a node to its own result, so a graph nobody can
reach is freed by reference counting. Backward visits nodes by falling sequence number.
"""

from __future__ import annotations

import heapq
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

import numpy as np

from spiral.dtype import ALL
from spiral.errors import ArgumentError, AutogradError, ShapeError
from spiral.op import F, Op
from spiral.storage import native, stamp_of
from spiral.tensor_core import DTYPE_MASK, TensorCore, wrap

sequence = itertools.count(1)
grad_mode: ContextVar[bool] = ContextVar("spiral_grad", default=True)
grad_enabled = grad_mode.get

# where declared mutations happened, for the error message: stamp -> (op, file, line)
_mutations: dict[int, tuple[str, str, int]] = {}


class Leaf:
    """The node of a tensor that collects gradients."""

    __slots__ = ("grad", "hooks", "seq")

    def __init__(self) -> None:
        self.grad: Any = None
        self.hooks: list[Callable[[Any], Any]] = []
        self.seq = 0


class Node:
    """One recorded call."""

    __slots__ = ("attrs", "edges", "keys", "n_out", "op", "saved", "seq")

    def __init__(self, op: Op, edges: tuple[Any, ...], saved: Sequence[Any], keys: Any, attrs: Any) -> None:
        self.op = op
        self.edges = edges  # per input: None, (node, index), or a list of these
        self.saved = saved  # per wanted value: raw buffer, attribute or Spec
        self.keys = keys  # dispatch keys of saved buffers
        self.attrs = attrs
        self.seq = next(sequence)
        self.n_out = 1


# ---------------------------------------------------------------- recording
def _edge(a: Any) -> Any:
    if isinstance(a, TensorCore):
        return None if a._node is None else (a._node, a._index)
    if isinstance(a, (list, tuple)):
        return [_edge(t) for t in a]
    return None


def record(
    op: Op,
    args: tuple[Any, ...],
    raw: list[Any],
    attrs: tuple[Any, ...],
    outs: tuple[Any, ...],
    out_keys: tuple[int, ...],
) -> Any:
    """Makes the node of a call and returns its visible results as tensors."""
    wants = op.wants if op.exact_vjp or op.decompose is None else wants_all(op)
    saved: list[Any] = []
    keys: list[Any] = []
    for kind, i in wants:
        if kind == "input":
            a = args[i]
            saved.append(raw[i])
            keys.append(
                a._key
                if isinstance(a, TensorCore)
                else [None if t is None else t._key for t in a]
                if isinstance(a, (list, tuple))
                else None
            )
        elif kind == "output":
            saved.append(outs[i])
            keys.append(out_keys[i])
        elif kind == "attr":
            saved.append(attrs[i])
            keys.append(None)
        else:
            a = args[i]
            saved.append(
                [t.spec for t in a]
                if isinstance(a, (list, tuple))
                else SpecOf(a._a.shape, a._key)
                if isinstance(a, TensorCore)
                else a
            )
            keys.append(None)
    node = Node(op, tuple([_edge(a) for a in args]), tuple(saved), tuple(keys), attrs)
    if op.many_outputs:
        node.n_out = len(outs)
        return tuple([wrap(o, out_keys[0], node, i) for i, o in enumerate(outs)])
    if op.n_visible == 1:
        return wrap(outs[0], out_keys[0], node)
    node.n_out = op.n_visible
    return tuple([wrap(outs[i], out_keys[i], node, i) for i in range(op.n_visible)])


class SpecOf(NamedTuple):
    """Shape and dispatch key of an input: what `Spec` says, at a third of the price."""

    shape: tuple[int, ...]
    key: int

    @property
    def dtype(self) -> Any:
        return ALL[self.key & DTYPE_MASK]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


_wants_cache: dict[str, tuple[tuple[str, int], ...]] = {}


def wants_all(op: Op) -> tuple[tuple[str, int], ...]:
    """For a fused op whose vjp cannot be differentiated: its wants, and every input for decompose."""
    found = _wants_cache.get(op.name)
    if found is None:
        extra = [("input", i) for i in range(len(op.inputs)) if ("input", i) not in op.wants]
        found = _wants_cache[op.name] = (*op.wants, *extra)
    return found


def note_mutation(op: Op, buffers: Iterable[Any], stamp: Callable[[Any, int], None]) -> None:
    """Stamps what a declared mutation has overwritten, and remembers where in the program that was."""
    now = next(sequence)
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("spiral."):
        frame = frame.f_back
    if len(_mutations) > 4096:
        _mutations.clear()
    _mutations[now] = (op.name, frame.f_code.co_filename, frame.f_lineno)
    for b in buffers:
        for a in b if isinstance(b, list) else (b,):
            if a is not None:
                stamp(a, now)


def _check_fresh(node: Node, array: Any) -> None:
    time = stamp_of(array)
    if time > node.seq:
        op, file, line = _mutations.get(time, ("a mutating op", "unknown file", 0))
        raise AutogradError(
            f"backward: a value that {node.op.name} saved (shape {tuple(array.shape)}) was overwritten by {op} at "
            f"{file}:{line}; call backward before it, or run the forward again."
        )


def _restore(node: Node, raw: Any, key: Any, edge: Any) -> Any:
    """A saved buffer as a tensor, connected to the graph when ``edge`` is given."""
    if key is None:
        return raw
    if isinstance(raw, list):
        edges = edge if edge is not None else [None] * len(raw)
        return [_restore(node, r, k, e) for r, k, e in zip(raw, key, edges, strict=True)]
    _check_fresh(node, raw)
    return wrap(raw, key) if edge is None else wrap(raw, key, edge[0], edge[1])


def _vjp(node: Node, grads: list[Any], need: tuple[Any, ...], create_graph: bool) -> Any:
    op = node.op
    if op.vjp is None or (create_graph and not op.exact_vjp and op.decompose is not None):
        return _vjp_of_decomposition(node, grads, need, create_graph)
    values = None if create_graph or native is None else native.restore(node, len(op.wants))
    if values is None:
        values = []
        for (kind, i), raw, key in zip(op.wants, node.saved, node.keys, strict=False):
            edge = None
            if create_graph:
                edge = node.edges[i] if kind == "input" else (node, i) if kind == "output" else None
            values.append(_restore(node, raw, key, edge))
    g = grads if node.n_out > 1 or op.many_outputs else grads[0]
    out = op.vjp(need, g, *values)
    return out if isinstance(out, tuple) else (out,)


def _vjp_of_decomposition(node: Node, grads: list[Any], need: tuple[Any, ...], create_graph: bool) -> Any:
    """Differentiates ``decompose``, recorded again from the saved inputs."""
    op = node.op
    if op.decompose is None:
        raise AutogradError(f"backward: {op.name} has neither a vjp nor a decomposition.")
    wants = op.wants if op.exact_vjp else wants_all(op)
    inputs: list[Any] = [None] * len(op.inputs)
    for (kind, i), raw, key in zip(wants, node.saved, node.keys, strict=True):
        if kind == "input":
            inputs[i] = _restore(node, raw, key, node.edges[i] if create_graph else None)
    token = grad_mode.set(True)
    try:
        sources: list[Any] = []
        for i, wanted in enumerate(need):
            if isinstance(wanted, list):
                raise AutogradError(f"backward: second derivatives through {op.name} (a list of tensors) need a vjp.")
            if wanted:
                # an alias with a leaf of its own, so that the inner gradient stops here; with
                # create_graph the alias is an identity node of the outer graph
                x = inputs[i]
                alias = F.identity(x) if create_graph else wrap(x._a, x._key, Leaf())
                inputs[i] = alias
                sources.append(alias)
        result = op.decompose(*inputs, *node.attrs)
        results = result if isinstance(result, tuple) else (result,)
        # an output may depend on some inputs only, and a gradient reach some outputs only
        used = [(r, g) for r, g in zip(results, grads, strict=False) if g is not None and r._node is not None]
        found = iter(grad_of([r for r, _ in used], sources, [g for _, g in used], create_graph=create_graph))
    finally:
        grad_mode.reset(token)
    return tuple(next(found) if wanted else None for wanted in need)


# ---------------------------------------------------------------- backward
def _accumulate(store: dict[tuple[int, int], Any], key: tuple[int, int], g: Any) -> None:
    have = store.get(key)
    store[key] = g if have is None else have + g


def _run(
    roots: Sequence[Any],
    seeds: Sequence[Any],
    create_graph: bool,
    targets: set[tuple[int, int]] | None,
) -> dict[tuple[int, int], Any]:
    """Propagates gradients from roots.

    With ``targets`` (pairs of id of node and output number) returns their gradients and leaves every
    leaf alone, without it accumulates into leaves.
    """
    grads: dict[tuple[int, int], Any] = {}
    kept: dict[tuple[int, int], Any] = {}
    heap: list[tuple[int, int]] = []
    nodes: dict[int, Any] = {}
    useful = _ancestors(roots, targets) if targets is not None else None

    def push(node: Any, index: int, g: Any) -> None:
        ident = id(node)
        if ident not in nodes:
            nodes[ident] = node
            heapq.heappush(heap, (-node.seq, ident))
        _accumulate(grads, (ident, index), g)

    for root, seed in zip(roots, seeds, strict=True):
        if root._node is None:
            raise AutogradError("backward: this tensor does not depend on any tensor that requires a gradient.")
        push(root._node, root._index, seed)
    token = grad_mode.set(create_graph)
    try:
        while heap:
            _, ident = heapq.heappop(heap)
            node = nodes.pop(ident)
            if targets is not None:
                for i in range(getattr(node, "n_out", 1)):
                    if (ident, i) in targets and (ident, i) in grads:
                        kept[ident, i] = grads[ident, i]
            if isinstance(node, Leaf):
                g = grads.pop((ident, 0))
                if targets is None:
                    for hook in node.hooks:
                        replaced = hook(g)
                        g = g if replaced is None else replaced
                    node.grad = g if node.grad is None else node.grad + g
                continue
            outs = [grads.pop((ident, i), None) for i in range(node.n_out)]
            edges = node.edges
            if useful is None and not any([type(e) is list for e in edges]):
                need = tuple([e is not None for e in edges])
            else:
                need = tuple([_needed(e, useful) for e in edges])
            if not node.op.always and not any(any(n) if isinstance(n, list) else n for n in need):
                continue
            found = _vjp(node, outs, need, create_graph)
            for edge, wanted, g in zip(node.edges, need, found, strict=True):
                if isinstance(edge, list):
                    if g is not None:
                        for e, w, gi in zip(edge, wanted, g, strict=True):
                            if w and gi is not None:
                                push(e[0], e[1], gi)
                elif wanted and g is not None:
                    push(edge[0], edge[1], g)
    finally:
        grad_mode.reset(token)
    return kept


def _needed(edge: Any, useful: set[int] | None) -> Any:
    if edge is None:
        return False
    if isinstance(edge, list):
        return [_needed(e, useful) for e in edge]
    return useful is None or id(edge[0]) in useful


def _ancestors(roots: Sequence[Any], targets: set[tuple[int, int]]) -> set[int]:
    """Ids of nodes from which a target can be reached (so that no other gradient is computed)."""
    goal = {ident for ident, _ in targets}
    useful: set[int] = set()
    done: set[int] = set()
    stack: list[tuple[Any, bool]] = [(r._node, False) for r in roots if r._node is not None]
    while stack:
        node, children_done = stack.pop()
        ident = id(node)
        edges = _flat_edges(node)
        if children_done:
            if ident in goal or any(id(e) in useful for e in edges):
                useful.add(ident)
            continue
        if ident in done:
            continue
        done.add(ident)
        stack.append((node, True))
        stack.extend((e, False) for e in edges)
    return useful


def _flat_edges(node: Any) -> list[Any]:
    out = []
    for edge in getattr(node, "edges", ()):
        for e in edge if isinstance(edge, list) else (edge,):
            if e is not None:
                out.append(e[0])
    return out


def _seed(root: Any, gradient: Any) -> Any:
    if gradient is not None:
        if gradient.shape != root.shape:
            raise ShapeError(f"backward: the gradient must have the shape {root.shape}; received {gradient.shape}.")
        return gradient
    if root.size != 1:
        raise AutogradError(
            f"backward: a tensor of shape {root.shape} needs an explicit gradient; reduce it to a scalar first."
        )
    return wrap(np.ones(root.shape, root.dtype.numpy), root._key)


def backward(root: Any, gradient: Any = None, *, create_graph: bool = False) -> None:
    """Accumulates the gradient of ``root`` into the ``.grad`` of every leaf it depends on.

    Args:
        root: a scalar tensor, or any tensor when ``gradient`` is given.
        gradient: the gradient with respect to ``root``, of its shape.
        create_graph: record the computation of gradients, so that they can be differentiated.

    Raises:
        AutogradError: ``root`` depends on no leaf, or a value saved for backward was overwritten.
    """
    _run([root], [_seed(root, gradient)], create_graph, None)


def grad_of(
    outputs: Sequence[Any],
    inputs: Sequence[Any],
    gradients: Sequence[Any] | None = None,
    *,
    create_graph: bool = False,
) -> list[Any]:
    """Gradients of outputs with respect to inputs; leaves' ``.grad`` are untouched.

    Inputs that the outputs do not depend on get zeros.
    """
    seeds = [_seed(o, g) for o, g in zip(outputs, gradients or [None] * len(outputs), strict=True)]
    for x in inputs:
        if x._node is None:
            raise AutogradError("grad: an input does not require a gradient; set requires_grad before the forward.")
    targets = {(id(x._node), x._index) for x in inputs}
    found = _run(outputs, seeds, create_graph, targets)
    out = []
    for x in inputs:
        g = found.get((id(x._node), x._index))
        out.append(wrap(np.zeros(x.shape, x.dtype.numpy), x._key) if g is None else g)
    return out


# ---------------------------------------------------------------- functional form
def value_and_grad(fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., tuple[Any, Any]]:
    """A function that returns the value of ``fn`` and its gradient with respect to some arguments.

    Args:
        fn: returns a scalar tensor. Arguments named by ``argnums`` may be tensors or (nested) lists,
            tuples and dictionaries of tensors.
        argnums: which positional arguments to differentiate.

    Example:
        >>> import spiral as sp
        >>> value, g = value_and_grad(lambda x: (x * x).sum())(sp.asarray([1.0, 2.0]))
        >>> g.tolist()
        [2.0, 4.0]
    """
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        token = grad_mode.set(True)
        try:
            leaves: list[Any] = []
            fresh = list(args)
            for i in positions:
                if not -len(args) <= i < len(args):
                    raise ArgumentError(f"grad: argnums names argument {i}; received {len(args)} arguments.")
                fresh[i] = _map_tensors(args[i], lambda t: _track(t, leaves))
            value = fn(*fresh, **kwargs)
            if not isinstance(value, TensorCore):
                raise AutogradError(f"grad: the function must return a tensor; received {type(value).__name__}.")
            # inside another grad the gradients are part of its graph
            outer = any(t._node is not None and not isinstance(t._node, Leaf) for t in leaves)
            if value._node is None:
                found = [wrap(np.zeros(t.shape, t.dtype.numpy), t._key) for t in leaves]
            else:
                found = grad_of([value], leaves, create_graph=outer or _nested.get())
        finally:
            grad_mode.reset(token)
        it = iter(found)
        grads = tuple(_map_tensors(fresh[i], lambda t: next(it)) for i in positions)
        return value, grads[0] if isinstance(argnums, int) else grads

    return run


_nested: ContextVar[bool] = ContextVar("spiral_nested_grad", default=False)


def _track(t: Any, leaves: list[Any]) -> Any:
    """An alias of ``t`` whose gradient can be asked for; connected when ``t`` is part of a graph."""
    alias = wrap(t._a, t._key, Leaf()) if t._node is None else F.identity(t)
    leaves.append(alias)
    return alias


def _map_tensors(x: Any, fn: Callable[[Any], Any]) -> Any:
    if isinstance(x, TensorCore):
        return fn(x)
    if isinstance(x, dict):
        return {k: _map_tensors(v, fn) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(_map_tensors(v, fn) for v in x)
    return x


def grad(fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """A function that returns the gradient of ``fn``; see `value_and_grad`.

    Example:
        >>> import spiral as sp
        >>> cube = lambda x: x * x * x
        >>> grad(grad(cube))(sp.asarray(2.0)).item()
        12.0
    """
    both = value_and_grad(fn, argnums)

    def run(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return run


class _GradMode(ContextDecorator):
    """Context manager and decorator that sets whether calls are recorded; safe to nest and reuse."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.tokens: list[Token[bool]] = []

    def __enter__(self) -> None:
        self.tokens.append(grad_mode.set(self.enabled))

    def __exit__(self, *exc: object) -> None:
        grad_mode.reset(self.tokens.pop())

    def _recreate_cm(self) -> _GradMode:
        return _GradMode(self.enabled)


def no_grad() -> _GradMode:
    """Within the block (or decorated function) nothing is recorded."""
    return _GradMode(False)


def enable_grad() -> _GradMode:
    """Within the block calls are recorded, also inside `no_grad`."""
    return _GradMode(True)


def checkpoint(fn: Callable[..., Any], *args: Any) -> Any:
    """Runs ``fn(*args)`` without keeping its intermediate values; backward runs it again.

    Args:
        fn: returns one tensor; must be pure (random ops draw the same numbers again because their
            stream position is restored).
        *args: tensors and other values. Tensors that ``fn`` closes over get gradients when they are leaves.

    Returns:
        The result of ``fn``.
    """
    from spiral import random

    state = random.get_state()
    with no_grad():
        value = fn(*args)
    if not grad_mode.get():
        return value
    if not isinstance(value, TensorCore):
        raise AutogradError(f"checkpoint: the function must return one tensor; received {type(value).__name__}.")
    tracked = [i for i, a in enumerate(args) if isinstance(a, TensorCore) and a._node is not None]
    node = Node(_checkpoint_op(fn, args, tracked, state), tuple(_edge(args[i]) for i in tracked), (), [], ())
    return wrap(value._a, value._key, node)


class _Recompute:
    """Stands where a node's op stands; its vjp runs the function again, recorded, and through it."""

    name = "checkpoint"
    many_outputs = False
    always = True  # the function may close over leaves, which its edges do not show
    exact_vjp = True
    decompose = None
    wants: tuple[Any, ...] = ()

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], tracked: list[int], state: Any) -> None:
        self.fn, self.args, self.tracked, self.state = fn, args, tracked, state

    def vjp(self, need: tuple[bool, ...], g: Any) -> tuple[Any, ...]:
        from spiral import random

        args = list(self.args)
        leaves = []
        for i in self.tracked:
            t = args[i]
            args[i] = wrap(t._a, t._key, Leaf())
            leaves.append(args[i])
        now = random.get_state()
        random.set_state(self.state)
        try:
            with enable_grad():
                value = self.fn(*args)
        finally:
            random.set_state(now)
        if value._node is not None:
            # also reaches leaves that fn closes over (parameters of a module)
            _run([value], [g], False, None)
        return tuple(leaf._node.grad for leaf in leaves)


def _checkpoint_op(fn: Callable[..., Any], args: tuple[Any, ...], tracked: list[int], state: Any) -> Any:
    return _Recompute(fn, args, tracked, state)


def iterate_graph(root: Any) -> Iterator[Any]:
    """Every node that ``root`` depends on, for inspection."""
    seen: set[int] = set()
    stack = [root._node]
    while stack:
        node = stack.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        stack.extend(_flat_edges(node))

"""The tape: nodes, backward, grad, value_and_grad, no_grad. (`spiral.recompute` has checkpoint, `spiral.hooks` hooks.)

A result that depends on a leaf holds a `Node` with edges to the nodes of its inputs and exactly the
buffers that its op's vjp names. Nothing points from a node to its own result, so a graph nobody can
reach is freed by reference counting. Backward visits nodes by falling sequence number.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from spiral.dtype import ALL
from spiral.errors import ArgumentError, AutogradError, DTypeError, ShapeError
from spiral.op import F, Op
from spiral.placement import filled
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


def wants_all(op: Op) -> tuple[tuple[str, int], ...]:
    """For a fused op whose vjp cannot be differentiated: its wants, and every input for decompose."""
    if op.wants_all is None:
        extra = [("input", i) for i in range(len(op.inputs)) if ("input", i) not in op.wants]
        op.wants_all = (*op.wants, *extra)
    return op.wants_all


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


def check_fresh(name: str, seq: int, array: Any) -> None:
    """Raises AutogradError when ``array``, which an op ``name`` saved at time ``seq``, was overwritten since."""
    time = stamp_of(array)
    if time > seq:
        op, file, line = _mutations.get(time, ("a mutating op", "unknown file", 0))
        raise AutogradError(
            f"backward: a value that {name} saved (shape {tuple(array.shape)}) was overwritten by {op} at "
            f"{file}:{line}; call backward before it, or run the forward again."
        )


def _restore(node: Node, raw: Any, key: Any, edge: Any) -> Any:
    """A saved buffer as a tensor, connected to the graph when ``edge`` is given."""
    if key is None:
        return raw
    if isinstance(raw, list):
        edges = edge if edge is not None else [None] * len(raw)
        return [_restore(node, r, k, e) for r, k, e in zip(raw, key, edges, strict=True)]
    check_fresh(node.op.name, node.seq, raw)
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

        def alias(x: Any) -> Any:
            # a leaf of its own, so that the inner gradient stops here; with create_graph the alias
            # is an identity node of the outer graph
            sources.append(F.identity(x) if create_graph else wrap(x._a, x._key, Leaf()))
            return sources[-1]

        for i, wanted in enumerate(need):
            if isinstance(wanted, list):
                inputs[i] = [alias(x) if w else x for x, w in zip(inputs[i], wanted, strict=True)]
            elif wanted:
                inputs[i] = alias(inputs[i])
        result = op.decompose(*inputs, *node.attrs)
        results = result if isinstance(result, tuple) else (result,)
        # an output may depend on some inputs only, and a gradient reach some outputs only
        used = [(r, g) for r, g in zip(results, grads, strict=False) if g is not None and r._node is not None]
        found = iter(grad_of([r for r, _ in used], sources, [g for _, g in used], create_graph=create_graph))
    finally:
        grad_mode.reset(token)
    return tuple(
        [next(found) if w else None for w in wanted] if isinstance(wanted, list) else next(found) if wanted else None
        for wanted in need
    )


# ---------------------------------------------------------------- backward
def _accumulate(store: dict[tuple[int, int], Any], key: tuple[int, int], g: Any) -> None:
    have = store.get(key)
    store[key] = g if have is None else have + g


# leaves are shared by threads that train together; a read, an addition and a write must not interleave
_leaf_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child would find it taken for ever by a thread that it does not have
    os.register_at_fork(
        before=_leaf_lock.acquire, after_in_parent=_leaf_lock.release, after_in_child=_leaf_lock.release
    )


def run_backward(
    roots: Sequence[Any],
    seeds: Sequence[Any],
    create_graph: bool,
    targets: set[tuple[int, int]] | None,
    stop: Set[int] = frozenset(),
) -> dict[tuple[int, int], Any]:
    """Propagates gradients from roots.

    With ``targets`` (pairs of id of node and output number) returns their gradients and leaves every
    leaf alone, without it accumulates into leaves. Nothing is propagated beyond the nodes in ``stop``.
    """
    grads: dict[tuple[int, int], Any] = {}
    kept: dict[tuple[int, int], Any] = {}
    arrived: list[tuple[Leaf, Any]] = []  # at leaves, which change when nothing can fail any more
    heap: list[tuple[int, int]] = []
    nodes: dict[int, Any] = {}
    useful = _ancestors(roots, targets, stop) if targets is not None else None

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
            if isinstance(node, Leaf):
                g = grads.pop((ident, 0))
                for hook in tuple(node.hooks):  # one may take itself away
                    g = hook(g)
                if targets is not None:
                    kept[ident, 0] = g
                else:
                    arrived.append((node, g))
                continue
            outs = [grads.pop((ident, i), None) for i in range(node.n_out)]
            op = node.op
            if op.hooked:
                outs = op.call_hooks(outs)
            if targets is not None:
                for i, g in enumerate(outs):
                    if g is not None and (ident, i) in targets:
                        kept[ident, i] = g
                if ident in stop:
                    continue
            edges = node.edges
            if useful is None and not any([type(e) is list for e in edges]):
                need: tuple[Any, ...] = tuple([e is not None for e in edges])
            else:
                need = tuple([_needed(e, useful) for e in edges])
            if not any([any(n) if isinstance(n, list) else n for n in need]):
                continue
            try:
                found = _vjp(node, outs, need, create_graph)
            except Exception as error:
                error.add_note(f"spiral: raised while differentiating {op.name}")
                raise
            for edge, wanted, g in zip(node.edges, need, found, strict=True):
                if isinstance(edge, list):
                    if g is not None:
                        for e, w, gi in zip(edge, wanted, g, strict=True):
                            if w and gi is not None:
                                push(e[0], e[1], gi)
                elif wanted and g is not None:
                    push(edge[0], edge[1], g)
        for node, g in arrived:
            with _leaf_lock:
                node.grad = _alone(g) if node.grad is None else node.grad + g
    finally:
        grad_mode.reset(token)
    return kept


def _alone(g: Any) -> Any:
    """The gradient as a tensor of its own: that of a sum is one object for both operands, which `+=` would change."""
    return wrap(g._a, g._key, g._node, g._index)


def _needed(edge: Any, useful: set[int] | None) -> Any:
    if edge is None:
        return False
    if isinstance(edge, list):
        return [_needed(e, useful) for e in edge]
    return useful is None or id(edge[0]) in useful


def _ancestors(roots: Sequence[Any], targets: set[tuple[int, int]], stop: Set[int]) -> set[int]:
    """Ids of nodes from which a target can be reached (so that no other gradient is computed)."""
    goal = {ident for ident, _ in targets}
    useful: set[int] = set()
    done: set[int] = set()
    stack: list[tuple[Any, bool]] = [(r._node, False) for r in roots if r._node is not None]
    while stack:
        node, children_done = stack.pop()
        ident = id(node)
        edges = () if ident in stop else flat_edges(node)
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


def flat_edges(node: Any) -> list[Any]:
    """The nodes that a node depends on directly."""
    out = []
    for edge in getattr(node, "edges", ()):
        for e in edge if isinstance(edge, list) else (edge,):
            if e is not None:
                out.append(e[0])
    return out


def _seed(root: Any, gradient: Any) -> Any:
    if gradient is not None:
        if not isinstance(gradient, TensorCore):
            raise ArgumentError(f"backward: the gradient must be a Tensor; received {type(gradient).__name__}.")
        if gradient.shape != root.shape:
            raise ShapeError(f"backward: the gradient must have the shape {root.shape}; received {gradient.shape}.")
        return gradient if gradient.dtype is root.dtype else F.astype(gradient, root.dtype)
    if root.size != 1:
        raise AutogradError(
            f"backward: a tensor of shape {root.shape} needs an explicit gradient; reduce it to a scalar first."
        )
    return filled(root.shape, 1, root._key)


def backward(root: Any, gradient: Any = None, *, create_graph: bool = False) -> None:
    """Accumulates the gradient of ``root`` into the ``.grad`` of every leaf it depends on.

    The graph stays until the last tensor that holds it goes, so backward may be called again on the
    same result, and adds the same gradient again. Leaves change only after everything else is computed.

    Args:
        root: a scalar tensor, or any tensor when ``gradient`` is given.
        gradient: the gradient with respect to ``root``, of its shape.
        create_graph: record the computation of gradients, so that they can be differentiated.

    Raises:
        AutogradError: ``root`` depends on no leaf, or a value saved for backward was overwritten.
    """
    run_backward([root], [_seed(root, gradient)], create_graph, None)


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
    found = run_backward(outputs, seeds, create_graph, targets)
    out = []
    for x in inputs:
        g = found.get((id(x._node), x._index))
        out.append(filled(x.shape, 0, x._key) if g is None else _alone(g))
    return out


# ---------------------------------------------------------------- functional form
def value_and_grad(
    fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that returns the value of ``fn`` and its gradient with respect to some arguments.

    Where ``fn`` also depends on other tensors that require gradients (an outer `grad`'s arguments, a
    module's parameters), value and gradient are part of their graph, unless inside `no_grad`.

    Args:
        fn: returns a scalar tensor. Arguments named by ``argnums`` may be tensors or (nested) lists,
            tuples and dictionaries of tensors.
        argnums: which positional arguments to differentiate.
        has_aux: ``fn`` returns a pair of the scalar and anything else; the value is that pair then.

    Raises:
        DTypeError: an argument named by ``argnums`` holds a tensor that is not floating.
        AutogradError: ``fn`` does not return a scalar tensor.

    Example:
        >>> import spiral as sp
        >>> value, g = value_and_grad(lambda x: (x * x).sum())(sp.asarray([1.0, 2.0]))
        >>> g.tolist()
        [2.0, 4.0]
    """
    if not callable(fn):
        raise ArgumentError(
            f"grad: expected a function; received {type(fn).__name__}. For tensors that are already computed write "
            "spiral.autograd.grad_of([y], [x])."
        )
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        recording = grad_mode.get()
        token = grad_mode.set(True)
        try:
            leaves: list[Any] = []
            fresh = list(args)
            for i in positions:
                if not -len(args) <= i < len(args):
                    raise ArgumentError(f"grad: argnums names argument {i}; received {len(args)} arguments.")
                fresh[i] = map_tensors(args[i], lambda t: _track(t, leaves))
            result = fn(*fresh, **kwargs)
            value, aux = result if has_aux else (result, None)
            if not isinstance(value, TensorCore):
                raise AutogradError(f"grad: the function must return a tensor; received {type(value).__name__}.")
            graph = recording and _depends_on_others(value, leaves)
            if value._node is None:
                found = [filled(t.shape, 0, t._key) for t in leaves]
            else:
                found = grad_of([value], leaves, create_graph=graph)
        finally:
            grad_mode.reset(token)
        it = iter(found)
        grads = tuple(map_tensors(fresh[i], lambda t: next(it)) for i in positions)
        if not graph:  # a caller who keeps values must not keep their graphs
            value = wrap(value._a, value._key)
        return (value, aux) if has_aux else value, grads[0] if isinstance(argnums, int) else grads

    return run


def _track(t: Any, leaves: list[Any]) -> Any:
    """An alias of ``t`` whose gradient can be asked for; connected when ``t`` is part of a graph."""
    if t.dtype.kind != "float":
        raise DTypeError(f"grad: only floating tensors have gradients; received {t.dtype.name} {t.shape}.")
    alias = wrap(t._a, t._key, Leaf()) if t._node is None else F.identity(t)
    leaves.append(alias)
    return alias


def _depends_on_others(value: Any, leaves: list[Any]) -> bool:
    """Whether a leaf that is not among ``leaves`` is reachable."""
    own = {id(t._node) for t in leaves}
    return any(isinstance(node, Leaf) and id(node) not in own for node in iterate_graph(value))


def next_sequence() -> int:
    """A number above that of every node recorded so far."""
    return next(sequence)


def map_tensors(x: Any, fn: Callable[[Any], Any]) -> Any:
    """``x`` with every tensor in (nested) lists, tuples and dictionaries replaced by ``fn`` of it."""
    if isinstance(x, TensorCore):
        return fn(x)
    if isinstance(x, dict):
        return {k: map_tensors(v, fn) for k, v in x.items()}
    if isinstance(x, tuple) and hasattr(x, "_fields"):  # a named tuple
        return type(x)(*(map_tensors(v, fn) for v in x))
    if isinstance(x, (list, tuple)):
        return type(x)(map_tensors(v, fn) for v in x)
    return x


def grad(fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of ``fn``, with ``has_aux`` also its second result; see `value_and_grad`.

    Args:
        fn: returns a scalar tensor, or with ``has_aux`` a pair of it and anything else.
        argnums: which positional arguments to differentiate.
        has_aux: whether ``fn`` returns such a pair.

    Example:
        >>> import spiral as sp
        >>> cube = lambda x: x * x * x
        >>> grad(grad(cube))(sp.asarray(2.0)).item()
        12.0
    """
    both = value_and_grad(fn, argnums, has_aux=has_aux)

    def run(*args: Any, **kwargs: Any) -> Any:
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

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
    """Within the block (or decorated function) nothing is recorded.

    Example:
        >>> import spiral as sp
        >>> w = sp.ones(2).requires_grad_()
        >>> with no_grad():
        ...     (w * 2.0).requires_grad
        False
    """
    return _GradMode(False)


def enable_grad() -> _GradMode:
    """Within the block calls are recorded, also inside `no_grad`."""
    return _GradMode(True)


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
        stack.extend(flat_edges(node))

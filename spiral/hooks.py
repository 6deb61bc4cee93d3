"""Functions that see, and may replace, gradients on their way back: `Tensor.register_hook` and modules' backward hooks.

A leaf keeps its hooks itself. For a recorded result the op of its node is wrapped, so that the tape
pays one attribute test per node and nothing where nobody watches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spiral.autograd import Leaf, Node, grad_enabled
from spiral.errors import AutogradError, ShapeError
from spiral.tensor_core import TensorCore, wrap

Hook = Callable[[Any], Any]


class HookHandle:
    """What registering a hook returns; `remove` takes the hook away, and so does leaving a ``with`` block."""

    def __init__(self, hooks: list[Any], hook: Any) -> None:
        self._hooks = hooks
        self._hook = hook

    def remove(self) -> None:
        """Takes the hook away; a second call does nothing."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class HookedOp:
    """Stands where a node's op stands and passes everything on to it."""

    hooked = True

    def __init__(self, op: Any) -> None:
        self.op = op
        self.hooks: dict[int, list[Hook]] = {}  # by number of the output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.op, name)

    def call_hooks(self, gradients: list[Any]) -> list[Any]:
        """The gradients of the node's outputs, None where there is none, after the hooks."""
        if self.op.hooked:
            gradients = self.op.call_hooks(gradients)
        for index, hooks in self.hooks.items():
            for hook in list(hooks):
                if gradients[index] is not None:
                    gradients[index] = hook(gradients[index])
        return gradients


def register_hook(tensor: Any, hook: Hook) -> HookHandle:
    """Calls ``hook(gradient)`` when the gradient of ``tensor`` is computed; see `Tensor.register_hook`.

    Raises:
        AutogradError: the tensor requires no gradient.
    """
    node = tensor._node
    if node is None:
        raise AutogradError("register_hook: this tensor requires no gradient.")

    def checked(gradient: Any) -> Any:
        return _replacement("register_hook", gradient, hook(gradient))

    if isinstance(node, Leaf):
        hooks = node.hooks
    else:
        if not isinstance(node.op, HookedOp):
            node.op = HookedOp(node.op)
        hooks = node.op.hooks.setdefault(tensor._index, [])
    hooks.append(checked)
    return HookHandle(hooks, checked)


def _replacement(name: str, gradient: Any, replaced: Any) -> Any:
    if replaced is None:
        return gradient
    if not isinstance(replaced, TensorCore):
        raise AutogradError(f"{name}: a hook must return a Tensor or None; received {type(replaced).__name__}.")
    if replaced.shape != gradient.shape:
        raise ShapeError(f"{name}: a hook must keep the shape {gradient.shape}; it returned {replaced.shape}.")
    return replaced


class _Junction:
    """A node through which several tensors pass unchanged, and whose gradients one function sees together."""

    name = "backward hook"
    hooked = True
    many_outputs = True
    exact_vjp = True
    decompose = None
    wants: tuple[Any, ...] = ()

    def __init__(self, see: Callable[[list[Any]], list[Any]]) -> None:
        self.call_hooks = see

    def vjp(self, need: Sequence[bool], gradients: list[Any]) -> tuple[Any, ...]:
        return tuple(gradients)


def junction(tensors: list[Any], see: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """The tensors again, those that require gradients through one node.

    Args:
        tensors: any tensors.
        see: called in backward with the gradients, one per tensor (None where there is none); what it
            returns replaces them.
    """
    tracked = [i for i, t in enumerate(tensors) if t._node is not None]
    if not tracked or not grad_enabled():
        return tensors

    def see_all(found: list[Any]) -> list[Any]:
        gradients: list[Any] = [None] * len(tensors)
        for i, g in zip(tracked, found, strict=True):
            gradients[i] = g
        replaced = see(gradients)
        return [replaced[i] for i in tracked]

    edges = tuple((tensors[i]._node, tensors[i]._index) for i in tracked)
    node: Any = Node(_Junction(see_all), edges, (), (), ())  # type: ignore[arg-type]
    node.n_out = len(tracked)
    out = list(tensors)
    for number, i in enumerate(tracked):
        out[i] = wrap(tensors[i]._a, tensors[i]._key, node, number)
    return out


def replaced_gradients(name: str, gradients: list[Any], returned: Any) -> list[Any]:
    """What a module's backward hook returned, checked against the gradients it saw; None keeps them.

    Raises:
        AutogradError: another number of gradients, or something that is no tensor.
        ShapeError: another shape.
    """
    if returned is None:
        return gradients
    given = list(returned) if isinstance(returned, (tuple, list)) else [returned]
    if len(given) != len(gradients):
        raise AutogradError(f"{name}: a hook must return {len(gradients)} gradients or None; it returned {len(given)}.")
    return [g if g is None else _replacement(name, g, r) for g, r in zip(gradients, given, strict=True)]

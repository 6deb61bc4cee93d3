"""How a module's backward hooks come to see its gradients: one node before forward, one after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spiral.autograd import grad_enabled, map_tensors
from spiral.hooks import junction, replaced_gradients
from spiral.tensor_core import TensorCore

if TYPE_CHECKING:
    from spiral.nn.module import Module


class _Watch:
    """One call of a module with backward hooks."""

    def __init__(self, module: Module, args: tuple[Any, ...]) -> None:
        self.module = module
        self.hooks = list(module._backward_hooks.values())
        self.grad_outputs: tuple[Any, ...] = ()
        positions = [i for i, a in enumerate(args) if isinstance(a, TensorCore)]
        inputs = [args[i] for i in positions]
        self.from_inputs = any(t._node is not None for t in inputs)
        self.n_inputs = len(inputs)
        passed = dict(zip(positions, junction(inputs, self._call), strict=True))
        self.args = tuple(passed.get(i, a) for i, a in enumerate(args))

    def _call(self, gradients: list[Any]) -> list[Any]:
        for hook in self.hooks:
            returned = hook(self.module, tuple(gradients), self.grad_outputs)
            gradients = replaced_gradients("register_full_backward_hook", gradients, returned)
        return gradients

    def _note(self, gradients: list[Any]) -> list[Any]:
        self.grad_outputs = tuple(gradients)
        if not self.from_inputs:  # backward ends inside the module
            self._call([None] * self.n_inputs)
        return gradients

    def watch_output(self, output: Any) -> Any:
        found: list[Any] = []
        map_tensors(output, found.append)
        passed = iter(junction(found, self._note))
        return map_tensors(output, lambda t: next(passed))


def watch_backward(module: Module, args: tuple[Any, ...]) -> _Watch | None:
    """Puts the node before forward; None where nothing is recorded."""
    return _Watch(module, args) if grad_enabled() else None

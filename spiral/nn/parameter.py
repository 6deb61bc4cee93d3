"""Parameter: a tensor that a module owns and an optimizer changes."""

from __future__ import annotations

from typing import Any

from spiral.autograd import Leaf
from spiral.errors import ArgumentError, AutogradError, DTypeError, kind_of
from spiral.placement import copied
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


class Parameter(Tensor):
    """A leaf tensor; assigned to an attribute of a `Module`, it becomes one of its parameters.

    Args:
        data: Its first value. The memory is shared, not copied.
        requires_grad: Whether backward collects a gradient in it.

    Raises:
        ArgumentError: ``data`` is not a tensor.
        AutogradError: ``data`` is a recorded result.
        DTypeError: an integer tensor is asked to collect gradients.

    Example:
        >>> import spiral as sp
        >>> Parameter(sp.ones(3)).requires_grad
        True
    """

    __slots__ = ()

    def __new__(cls, data: Tensor, requires_grad: bool = True) -> Parameter:
        if not isinstance(data, TensorCore):
            raise ArgumentError(f"Parameter: data must be a Tensor; received {kind_of(data)}. Use asarray first.")
        if data._node is not None and not isinstance(data._node, Leaf):
            raise AutogradError("Parameter: data is a recorded result; use .detach() first.")
        if requires_grad and data.dtype.kind != "float":
            raise DTypeError(
                f"Parameter: only floating tensors collect gradients; received {data.dtype.name}. "
                "Pass requires_grad=False."
            )
        return _over(cls, data._a, data._key, requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        twin = _over(type(self), copied(self._a, self.device), self._key, self._node is not None)
        memo[id(self)] = twin
        return twin

    def __reduce__(self) -> Any:
        make, (array, _, device) = super().__reduce__()
        return _unpickle, (type(self), make(array, False, device), self._node is not None)

    def __repr__(self) -> str:
        return f"Parameter({super().__repr__()})"


def _over(cls: type[Parameter], array: Any, key: int, requires_grad: bool) -> Parameter:
    parameter: Parameter = TensorCore.__new__(cls)
    parameter._a = array
    parameter._key = key
    parameter._index = 0
    parameter._node = Leaf() if requires_grad else None
    return parameter


def _unpickle(cls: type[Parameter], data: Tensor, requires_grad: bool) -> Parameter:
    return cls(data, requires_grad)

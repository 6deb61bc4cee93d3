"""The part of Tensor that the dispatcher and the tape need: buffer, key, node.

Kept apart from `spiral.tensor` (methods, printing, conversions) so that ops can be called while that
module is being built.
"""

from __future__ import annotations

from typing import Any

from spiral.backend import Spec
from spiral.device import Device, by_code
from spiral.dtype import ALL, DType

DTYPE_BITS = 6
DTYPE_MASK = (1 << DTYPE_BITS) - 1


def make_key(device: Device, dtype: DType) -> int:
    """Dispatch key of a tensor: device code and dtype code in one small integer."""
    return device.code << DTYPE_BITS | dtype.code


class TensorCore:
    """Buffer, dispatch key, graph node and output number of a tensor.

    ``_node`` is None for a constant, an `autograd.Leaf` for a tensor that collects gradients, and an
    `autograd.Node` for a recorded result, whose ``_index``-th output this is.
    """

    __slots__ = ("__weakref__", "_a", "_index", "_key", "_node")

    _a: Any
    _key: int
    _node: Any
    _index: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self._a.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> DType:
        """Element type."""
        return ALL[self._key & DTYPE_MASK]

    @property
    def device(self) -> Device:
        """Where the memory lives."""
        return by_code(self._key >> DTYPE_BITS)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._a.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._a.size  # type: ignore[no-any-return]

    @property
    def spec(self) -> Spec:
        """Shape and dtype without the data."""
        return Spec(self._a.shape, self.dtype)


_tensor_type: Any = TensorCore


def set_tensor_type(cls: type[Any]) -> None:
    """Tells `wrap` which class results have; called once by `spiral.tensor`."""
    global _tensor_type
    _tensor_type = cls


def wrap(array: Any, key: int, node: Any = None, index: int = 0) -> Any:
    """A tensor over a buffer; no copy, no checks."""
    t = _tensor_type.__new__(_tensor_type)
    t._a = array
    t._key = key
    t._node = node
    t._index = index
    return t

"""Tensor: what users hold. Operators, methods, indexing, conversions, printing.

Tensors are values: slices may share memory, but nobody can see it. ``x[i] = v`` and ``x += v`` give
that object a new value and change no other tensor.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from sys import getrefcount
from typing import Any

import numpy as np

from spiral import autograd, dispatch, dlpack
from spiral.abstract import NoValues
from spiral.autograd import Leaf
from spiral.device import Device, as_device, cpu
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, DType, as_dtype, bool_, float64, int64
from spiral.errors import ArgumentError, AutogradError, DeviceError, DTypeError, IndexingError, ShapeError
from spiral.op import OPS, F
from spiral.placement import copied, host_copy, to_host
from spiral.storage import copy_array, owns
from spiral.tensor_core import DTYPE_BITS, DTYPE_MASK, TensorCore, make_key, set_tensor_type, wrap
from spiral.transfer import transfer

_NUMBERS = (bool, int, float)
_KIND_ORDER = {"bool": 0, "uint": 1, "int": 2, "float": 3}
_BASIC = frozenset((int, slice, type(None), type(Ellipsis)))


def from_numpy(a: np.ndarray[Any, Any], *, copy: bool) -> Tensor:
    """A CPU tensor over (a copy of) a NumPy array."""
    dtype = as_dtype(a.dtype)
    if copy or a.dtype != dtype.numpy or not a.flags.aligned:
        a = copy_array(np.asarray(a, dtype.numpy))
    t: Tensor = wrap(a, make_key(cpu, dtype))
    return t


def _operand(x: Any, beside: Any) -> Any:
    """What an operator can use of the value beside a tensor, or NotImplemented; a NumPy number goes to its device."""
    if isinstance(x, (TensorCore, *_NUMBERS)):
        return x
    if isinstance(x, np.ndarray):
        return from_numpy(x, copy=True)
    if isinstance(x, np.generic):
        return from_numpy(np.asarray(x), copy=True).to(beside.device)
    return NotImplemented


def _binary(name: str) -> tuple[Callable[[Tensor, Any], Tensor], Callable[[Tensor, Any], Tensor]]:
    run: Any = None  # the op's call, known at the first one: the ops are declared after this module

    def forward(self: Any, other: Any, /) -> Any:
        nonlocal run
        if run is None:
            run = OPS[name].call
        # the common operands first: isinstance against a tuple costs 60 ns
        if type(other) is Tensor or type(other) is float or type(other) is int:
            return run(self, other)
        other = _operand(other, self)
        return other if other is NotImplemented else run(self, other)

    def reflected(self: Any, other: Any, /) -> Any:
        other = _operand(other, self)
        return other if other is NotImplemented else getattr(F, name)(other, self)

    forward.__doc__ = reflected.__doc__ = f"See `spiral.{name}`."
    return forward, reflected


def _in_place(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def run(self: Any, other: Any, /) -> Any:
        return self._become(operate(self, other))

    run.__doc__ = "Gives this tensor the result as its new value."
    return run


class Tensor(TensorCore):
    """An n-dimensional array on a device, with gradients.

    Make one with `spiral.asarray`, `zeros`, `arange`, … Operators and functions follow the Python array
    API standard: an integer tensor with a floating one gives the floating one's dtype, Python numbers
    take the tensor's dtype, shapes broadcast. A tensor is a value: ``x[i] = v`` and ``x += v`` give this
    object a new value and change no other tensor, not even one that it was sliced from.

    Attributes:
        shape: Length of each axis.
        dtype: Element type, such as ``spiral.float32``.
        device: Where the memory is.
        ndim: Number of axes.
        size: Number of elements.
        requires_grad: Whether operations on it are recorded.
        grad: What `backward` has accumulated here, or None; only leaves keep one.

    Raises:
        ShapeError: shapes do not broadcast or do not fit the operation.
        DTypeError: dtypes do not promote.
        DeviceError: operands are on different devices.

    Example:
        >>> import spiral as sp
        >>> w = sp.asarray([1.0, 2.0, 3.0]).requires_grad_()
        >>> loss = (w * w).sum() / 2
        >>> loss.backward()
        >>> w.grad.tolist()
        [1.0, 2.0, 3.0]
        >>> row = sp.ones((2, 3))[0]
        >>> row[1] = 5.0
        >>> row.tolist()
        [1.0, 5.0, 1.0]
    """

    __slots__ = ()
    __array_priority__ = 1000
    # set at the end of this file
    sum: Callable[..., Tensor]
    mean: Callable[..., Tensor]
    max: Callable[..., Tensor]
    min: Callable[..., Tensor]
    prod: Callable[..., Tensor]
    any: Callable[..., Tensor]
    all: Callable[..., Tensor]
    argmax: Callable[..., Tensor]
    argmin: Callable[..., Tensor]
    var: Callable[..., Tensor]
    std: Callable[..., Tensor]

    # ------------------------------------------------------------ operators
    __add__, __radd__ = _binary("add")
    __sub__, __rsub__ = _binary("subtract")
    __mul__, __rmul__ = _binary("multiply")
    __truediv__, __rtruediv__ = _binary("divide")
    __floordiv__, __rfloordiv__ = _binary("floor_divide")
    __mod__, __rmod__ = _binary("remainder")
    __pow__, __rpow__ = _binary("pow")
    __matmul__, __rmatmul__ = _binary("matmul")
    __and__, __rand__ = _binary("bitwise_and")
    __or__, __ror__ = _binary("bitwise_or")
    __xor__, __rxor__ = _binary("bitwise_xor")
    __lshift__, __rlshift__ = _binary("bitwise_left_shift")
    __rshift__, __rrshift__ = _binary("bitwise_right_shift")
    __eq__ = _binary("equal")[0]  # type: ignore[assignment]
    __ne__ = _binary("not_equal")[0]  # type: ignore[assignment]
    __lt__ = _binary("less")[0]
    __le__ = _binary("less_equal")[0]
    __gt__ = _binary("greater")[0]
    __ge__ = _binary("greater_equal")[0]
    __hash__ = object.__hash__

    def __neg__(self) -> Tensor:
        return F.negative(self)  # type: ignore[no-any-return]

    def __pos__(self) -> Tensor:
        return wrap(self._a, self._key, self._node, self._index)  # type: ignore[no-any-return]

    def __abs__(self) -> Tensor:
        return F.abs(self)  # type: ignore[no-any-return]

    def __invert__(self) -> Tensor:
        return F.bitwise_invert(self)  # type: ignore[no-any-return]

    def _become(self, other: Tensor) -> Tensor:
        """Takes another tensor's value, keeping this object's identity, shape and dtype."""
        if isinstance(self._node, Leaf) and autograd.grad_enabled():
            raise AutogradError(
                "in-place assignment: this tensor is a leaf that collects gradients; use a new name, or no_grad()."
            )
        if other.shape != self.shape:
            raise ShapeError(f"in-place assignment: the result must keep the shape {self.shape}; it is {other.shape}.")
        if other.dtype is not self.dtype:
            if _KIND_ORDER[other.dtype.kind] > _KIND_ORDER[self.dtype.kind]:
                raise DTypeError(
                    f"in-place assignment: a {other.dtype.name} result does not fit into {self.dtype.name}; "
                    "use a new name, or cast it with .astype()."
                )
            other = F.astype(other, self.dtype)
        self._a = other._a
        if not isinstance(self._node, Leaf):
            self._node, self._index = other._node, other._index
        return self

    __iadd__ = _in_place(operator.add)
    __isub__ = _in_place(operator.sub)
    __imul__ = _in_place(operator.mul)
    __itruediv__ = _in_place(operator.truediv)
    __ifloordiv__ = _in_place(operator.floordiv)
    __imod__ = _in_place(operator.mod)
    __ipow__ = _in_place(operator.pow)
    __imatmul__ = _in_place(operator.matmul)
    __iand__ = _in_place(operator.and_)
    __ior__ = _in_place(operator.or_)
    __ixor__ = _in_place(operator.xor)
    __ilshift__ = _in_place(operator.lshift)
    __irshift__ = _in_place(operator.rshift)

    # ------------------------------------------------------------ indexing
    def __getitem__(self, index: Any, /) -> Tensor:
        if not isinstance(index, tuple):
            index = (index,)
        if self._node is None and self._key <= DTYPE_MASK:
            # a view of a constant needs no dispatch: 0.4 us against 2
            for i in index:
                if type(i) not in _BASIC:
                    break
            else:
                try:
                    return wrap(self._a[(*index, ...)] if Ellipsis not in index else self._a[index], self._key)  # type: ignore[no-any-return]
                except IndexError as error:
                    raise IndexingError(f"index: {error} (shape {self.shape}).") from None
        if len(index) == 1 and _stays_on_device(self, index[0]):
            return F.take(self, index[0], axis=0)  # type: ignore[no-any-return]
        return F.getitem(self, index=tuple([_index(i) for i in index]))  # type: ignore[no-any-return]

    def __setitem__(self, index: Any, value: Any, /) -> None:
        if not isinstance(index, tuple):
            index = (index,)
        value = _operand(value, self)
        if value is NotImplemented:
            raise DTypeError("item assignment: the value must be a tensor, a NumPy array or a Python number.")
        index = tuple([_index(i) for i in index])
        constant = not isinstance(value, TensorCore) or value._node is None
        # in place where nobody could notice: no view, no node that saved it, no export holds the array
        # (its references are the slot and the argument). 1.6 us against 1,170 for a million float32, 2026-11-24
        if (
            self._node is None
            and constant
            and self._key <= DTYPE_MASK
            and not self.dtype.storage_only
            and getrefcount(self._a) == 2
            and owns(self._a)
        ):
            try:
                self._a[index] = value._a if isinstance(value, TensorCore) else value
            except IndexError as error:
                raise IndexingError(f"index: {error} (shape {self.shape}).") from None
            except ValueError as error:
                wrong = ShapeError if isinstance(value, TensorCore) else ArgumentError  # NaN has no integer
                raise wrong(f"item assignment: {error} (shape {self.shape}).") from None
            return
        self._become(F.set_index(self, value, index=index))

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("len: a tensor without axes has no length.")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        for i in range(len(self)):
            yield self[i]

    def __contains__(self, value: Any) -> bool:
        return bool(F.any(self == value))

    # ------------------------------------------------------------ gradients
    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded. Settable on tensors that are not results."""
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, value: bool = True) -> Tensor:
        """Starts or stops collecting gradients; returns the tensor."""
        if self._node is not None and not isinstance(self._node, Leaf):
            raise AutogradError("requires_grad: this tensor is a recorded result; use .detach() first.")
        if not value:
            self._node = None
        elif self._node is None:
            if self.dtype.kind != "float":
                raise DTypeError(f"requires_grad: only floating tensors have gradients; this is {self.dtype.name}.")
            self._node = Leaf()
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether this is not a recorded result."""
        return self._node is None or isinstance(self._node, Leaf)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward has accumulated here; only leaves keep one."""
        return self._node.grad if isinstance(self._node, Leaf) else None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if not isinstance(self._node, Leaf):
            if value is None:
                return
            raise AutogradError("grad: only a leaf with requires_grad keeps a gradient.")
        if value is not None and value.shape != self.shape:
            raise ShapeError(f"grad: expected the shape {self.shape}; received {value.shape}.")
        self._node.grad = value

    def backward(self, gradient: Tensor | None = None, *, create_graph: bool = False, **other: Any) -> None:
        """Accumulates gradients into the leaves; see `spiral.autograd.backward`."""
        if other:
            raise ArgumentError(
                f"backward: allowed are gradient and create_graph; received {', '.join(other)}. "
                "The graph is always kept while a tensor holds it, so leave retain_graph out."
            )
        autograd.backward(self, gradient, create_graph=create_graph)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Any:
        """Calls ``hook(gradient)`` when backward has computed this tensor's gradient.

        Args:
            hook: what it returns, if not None, replaces the gradient from there on.

        Returns:
            A handle; its ``remove()`` takes the hook away.

        Example:
            >>> import spiral as sp
            >>> x = sp.ones(2).requires_grad_()
            >>> y = x * 3.0
            >>> handle = y.register_hook(lambda g: g * 10.0)
            >>> y.sum().backward(); x.grad.tolist()
            [30.0, 30.0]
        """
        from spiral.hooks import register_hook

        return register_hook(self, hook)

    def detach(self) -> Tensor:
        """The same values, as a constant."""
        return wrap(self._a, self._key)  # type: ignore[no-any-return]

    def copy_(self, source: Any) -> Tensor:
        """Overwrites this tensor's memory, seen by every tensor that shares it. For parameters and buffers."""
        if not isinstance(source, TensorCore):
            from spiral.creation import asarray

            source = asarray(source, device=self.device)  # an array has no device yet
        F.copy_(self.detach(), source.detach())
        return self

    # ------------------------------------------------------------ conversions
    def item(self) -> Any:
        """The only element, as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item: expected one element; received shape {self.shape}.")
        return self._a.item()

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a read-only NumPy array that shares memory; copy it to change it.

        Raises:
            DeviceError: the tensor is not on the CPU.
        """
        if isinstance(self._a, NoValues):
            self._a.item()  # says that there are none
        if self._key > DTYPE_MASK:
            raise DeviceError(f"numpy: the tensor is on {self.device}; use .to('cpu') first.")
        view = self._a.view()
        view.flags.writeable = False
        return view  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        a = self.numpy()
        if dtype is not None and np.dtype(dtype) != a.dtype:
            if copy is False:
                raise ArgumentError(f"numpy conversion: {self.dtype.name} to {dtype} needs a copy, and copy=False.")
            return a.astype(dtype)
        return a.copy() if copy else a

    def __dlpack__(
        self,
        /,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule over the values; bfloat16 too. Gradients do not travel.

        Raises:
            BufferError: the memory cannot be shared as asked for; the message says why.
        """
        memory = self.device.memory
        if memory is not None and not memory.unified:
            if dl_device is not None and tuple(dl_device) == (dlpack.CPU, 0):
                if copy is False:
                    raise BufferError(f"__dlpack__: memory of {self.device} reaches the CPU as a copy only.")
                return dlpack.export(self.to("cpu")._a, max_version, None, None)
            own = self.__dlpack_device__()
            if dl_device is not None and tuple(dl_device) != own:
                raise BufferError(f"__dlpack__: {self.device} can only be exported to {own}; received {dl_device}.")
            buffer = copied(self._a, self.device) if copy else self._a
            return dlpack.export_from_device(buffer, memory, self.device, stream, max_version)
        if stream is not None:
            raise BufferError(f"__dlpack__: a CPU tensor has no streams; received stream={stream!r}.")
        return dlpack.export(self.numpy() if self._key > DTYPE_MASK else self._a, max_version, dl_device, copy)

    def __dlpack_device__(self, /) -> tuple[int, int]:
        memory = self.device.memory
        if memory is None or memory.unified:
            return (dlpack.CPU, 0)
        return dlpack.device_of(memory, self.device)

    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any:
        import spiral

        if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
            raise ArgumentError(f"__array_namespace__: expected a version up to 2024.12; received {api_version!r}.")
        return spiral

    def tolist(self) -> Any:
        """The values as nested Python lists."""
        return self._a.tolist()

    def astype(self, dtype: Any, *, copy: bool = True) -> Tensor:
        """The values in another dtype; gradients flow through.

        Args:
            copy: whether the result has memory of its own also where this is its dtype already.
        """
        dtype = as_dtype(dtype)
        if dtype is self.dtype:
            return F.copy(self) if copy else self
        return F.astype(self, dtype)  # type: ignore[no-any-return]

    def to(self, target: Any) -> Tensor:
        """This tensor in another dtype or on another device."""
        if isinstance(target, DType) or (isinstance(target, str) and target in {d.name for d in ALL}):
            return self.astype(target, copy=False)
        device = as_device(target)
        if device is self.device or dispatch.shapes_only():
            return self
        return transfer(self, device)  # type: ignore[no-any-return]

    def to_device(self, device: Any, /, *, stream: Any = None) -> Tensor:
        """This tensor on another device (array API spelling of `to`)."""
        return self.to(as_device(device))

    def _scalar(self, what: str) -> Any:
        if self.size != 1 or self.ndim:
            raise ShapeError(f"{what}: only a tensor without axes converts to a number; received shape {self.shape}.")
        return self._a.item()

    def __bool__(self) -> bool:
        return bool(self._scalar("bool"))

    def __int__(self) -> int:
        return int(self._scalar("int"))

    def __float__(self) -> float:
        return float(self._scalar("float"))

    def __index__(self) -> int:
        if self.dtype.kind not in ("int", "uint"):
            raise DTypeError(f"index: only integer tensors can be indices; this is {self.dtype.name}.")
        return operator.index(self._scalar("index"))

    def __complex__(self) -> complex:
        return complex(self._scalar("complex"))

    # ------------------------------------------------------------ shape methods
    @property
    def T(self) -> Tensor:
        """A matrix transposed."""
        if self.ndim != 2:
            raise ShapeError(f"T: expected a matrix; received shape {self.shape}. Use .mT or permute_dims.")
        return F.permute_dims(self, (1, 0))  # type: ignore[no-any-return]

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return F.matrix_transpose(self)  # type: ignore[no-any-return]

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape; one length may be -1."""
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        return F.reshape(self, shape)  # type: ignore[no-any-return]

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        """Axes ``start`` to ``end`` merged into one."""
        if self.ndim == 0:
            return self.reshape(1)
        a, b = start % self.ndim, end % self.ndim
        return self.reshape(
            *self.shape[:a], -1 if self.size else int(np.prod(self.shape[a : b + 1])), *self.shape[b + 1 :]
        )

    # ------------------------------------------------------------ printing
    def __repr__(self) -> str:
        from spiral.printing import tensor_repr

        return tensor_repr(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 and spec else repr(self)

    def __getattr__(self, name: str) -> Any:
        advice = _TORCH_SPELLINGS.get(name)
        if advice is not None:
            raise AttributeError(f"Tensor has no {name!r}; {advice}.")
        raise AttributeError(f"Tensor has no attribute {name!r}.")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise AutogradError("deepcopy: this tensor is a recorded result; use .detach() first.")
        t = type(self).__new__(type(self))
        t._a = copied(self._a, self.device)
        t._key, t._index = self._key, 0
        t._node = Leaf() if self._node is not None else None
        memo[id(self)] = t
        return t

    def __reduce__(self) -> Any:
        if not self.is_leaf:
            raise AutogradError("pickle: this tensor is a recorded result; use .detach() first.")
        return _unpickle, (host_copy(self), self._node is not None, str(self.device))


def _unpickle(a: np.ndarray[Any, Any], requires_grad: bool, device: str = "cpu") -> Tensor:
    return from_numpy(a, copy=True).to(device).requires_grad_(requires_grad)


_TORCH_SPELLINGS = {
    "view": "write .reshape(shape)",
    "permute": "write spiral.permute_dims(x, axes)",
    "transpose": "write .mT, or spiral.permute_dims(x, axes)",
    "unsqueeze": "write spiral.expand_dims(x, axis=...)",
    "float": "write .astype(spiral.float32)",
    "half": "write .astype(spiral.float16)",
    "long": "write .astype(spiral.int64)",
    "cuda": "write .to('cuda')",
    "cpu": "write .to('cpu')",
    "contiguous": "layout is spiral's business; leave it out",
    "numel": "write .size",
    "dim": "write .ndim",
    "expand": "write spiral.broadcast_to(x, shape)",
    "cat": "write spiral.concat([...], axis=...)",
    "masked_fill": "write spiral.where(mask, value, x)",
    "retain_grad": "write x.register_hook(seen.append) to see a result's gradient",
}


def _stays_on_device(x: Tensor, i: Any) -> bool:
    """Whether an index is an integer tensor beside x on a device: the host need not wait for its values."""
    return (
        isinstance(i, TensorCore)
        and i._key >> DTYPE_BITS == x._key >> DTYPE_BITS
        and i.dtype.kind in ("int", "uint")
        and isinstance(i._a, DeviceArray)
        and x.ndim > 0
    )


def _index(i: Any) -> Any:
    """One part of an index: tensors become NumPy arrays."""
    if isinstance(i, TensorCore):
        if i.dtype.kind == "float":
            raise DTypeError(f"index: expected integers or booleans; received {i.dtype.name}.")
        return i._a.item() if i.ndim == 0 and i.dtype is not bool_ else to_host(i._a, i.device)
    if isinstance(i, list):
        return np.asarray(i, np.int64) if not i else np.asarray(i)
    return i


def _method(name: str) -> Callable[..., Any]:
    def run(self: Any, axis: Any = None, **options: Any) -> Any:
        if "dim" in options or "keepdim" in options:
            raise ArgumentError(f"{name}: the argument is called axis (and keepdims), as in NumPy.")
        if options.get("dtype") is not None:
            from spiral.ops import standard

            return getattr(standard, name)(self, axis=axis, **options)
        options.pop("dtype", None)
        return getattr(F, name)(self, axis=axis, **options)

    run.__name__ = name
    run.__doc__ = f"See `spiral.{name}`."
    return run


for _name in ("sum", "mean", "max", "min", "prod", "any", "all", "argmax", "argmin", "var", "std"):
    setattr(Tensor, _name, _method(_name))
set_tensor_type(Tensor)
dispatch.start_calls(Tensor)

__all__ = ["Device", "Tensor", "float64", "from_numpy", "int64"]

"""The contract for backend authors: what a backend is, and how its kernels declare what they can do.

A backend is one object with a name, a device type, a probe and a table of kernels. Everything the
dispatcher knows about a kernel is its `Cap`, which is data: the same data explains a choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from spiral.dtype import ALL, FLOATS, DType, float32
from spiral.errors import ArgumentError


class Spec:
    """Shape and dtype of a tensor without its data.

    ``order`` names the axes from slowest to fastest in memory where an output is not C-contiguous.
    """

    __slots__ = ("dtype", "order", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: DType, order: tuple[int, ...] | None = None) -> None:
        self.shape = shape
        self.dtype = dtype
        self.order = order

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        n = 1
        for s in self.shape:
            n *= s
        return n

    def __repr__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.shape == other.shape and self.dtype is other.dtype

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))


@dataclass(frozen=True)
class Cap:
    """What a kernel can do.

    Attributes:
        dtypes: dtypes that its floating tensor inputs may have.
        integers: dtypes that its integer tensor inputs (indices, targets) may have.
        scalars: Python numbers may stand where a tensor is expected.
        cc: inclusive range of compute capabilities times ten (sm_80 is 80), or None where that means nothing.
        shared: bytes of shared memory that a block needs.
        where: a guard on the call, ``guard(*inputs, *attrs) -> bool``, for what depends on shapes or
            attributes; with it goes ``where_text``, the reason shown when it says no.
        deterministic: same inputs, same bits.
        capturable: may be recorded into a plan.
        tf32: float32 factors are rounded to tf32, 10 bits of mantissa: taken only where the policy allows it.
        priority: among kernels that can run, the highest is taken.
    """

    dtypes: tuple[DType, ...] = (float32,)
    integers: tuple[DType, ...] = ()
    scalars: bool = False
    cc: tuple[int, int] | None = None
    shared: int = 0
    where: Callable[..., bool] | None = None
    where_text: str = ""
    deterministic: bool = True
    capturable: bool = True
    tf32: bool = False
    priority: int = 0


@dataclass(frozen=True)
class Kernel:
    """One kernel of one op.

    Attributes:
        op: name of the op.
        fn: ``fn(*inputs, *attrs, *outputs)`` on the backend's buffers, outputs preallocated from the
            op's ``meta``; with ``allocates``, ``fn(*inputs, *attrs)`` that returns its output buffers.
        cap: what it can do.
        allocates: see ``fn``.
        bind: called once per dispatch key with the output dtypes, returns the ``fn`` to use.
    """

    op: str
    fn: Callable[..., Any]
    cap: Cap
    allocates: bool = False
    bind: Callable[[Callable[..., Any], tuple[DType, ...]], Callable[..., Any]] | None = None


@dataclass(frozen=True)
class Unavailable:
    """What `Backend.probe` returns when the backend cannot run here, with the reason and the remedy."""

    reason: str
    remedy: str = ""


@runtime_checkable
class Memory(Protocol):
    """The memory of a device that is not the CPU, in terms of the buffers that tensors there hold.

    Attributes:
        unified: the host reads and writes the memory too, and buffers are NumPy arrays over it. Then every op that the
            device has no kernel for runs on the host, in place of nothing; else buffers are
            `spiral.device_array.DeviceArray`.
    """

    unified: bool

    def empty(self, spec: Spec) -> Any:
        """A buffer of a tensor's shape and dtype, contents undefined."""

    def from_host(self, array: np.ndarray[Any, Any]) -> Any:
        """A buffer with the values of a NumPy array."""

    def to_host(self, buffer: Any) -> np.ndarray[Any, Any]:
        """A NumPy array of its own with the values of a buffer; waits for the device."""

    # A memory may also have: report() -> dict of bytes by name ("live", "peak", ...) and restart_peak(), for
    # `spiral.memory`; from_host_ahead(array) -> buffer, which copies beside the device's other work; and the parts of
    # `spiral.dlpack.Sharing`, where other libraries can work on it.


class UnifiedMemory:
    """Memory that the host and the device share: buffers are NumPy arrays over it.

    Args:
        allocate: ``allocate(nbytes)`` gives at least that many bytes of it, aligned for any dtype, as anything with
            Python's buffer interface, such as a uint8 array. Asked for at least one byte; the bytes are returned when
            the object dies.

    A kernel of such a device returns when its results can be read.
    """

    unified = True

    def __init__(self, allocate: Callable[[int], Any]) -> None:
        self.allocate = allocate

    def empty(self, spec: Spec) -> np.ndarray[Any, Any]:
        """A buffer of a tensor's shape and dtype, in the order of axes that its spec prefers."""
        if spec.order is None:
            return self._array(spec.shape, spec.dtype.numpy)
        stored = self._array(tuple(spec.shape[i] for i in spec.order), spec.dtype.numpy)
        return stored.transpose(np.argsort(spec.order))

    def from_host(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A buffer of its own with the values of an array, in C order."""
        new = self._array(array.shape, array.dtype)
        new[...] = array
        return new

    def to_host(self, buffer: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """An array of its own with the values of a buffer, in C order."""
        return np.array(buffer, order="C", copy=True)

    def _array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        block = self.allocate(max(1, math.prod(shape) * dtype.itemsize))
        return np.ndarray(shape, dtype, block)


@dataclass(frozen=True)
class DeviceInfo:
    """A device that a backend has found.

    Attributes:
        type: ``"cpu"``, ``"cuda"``, …
        index: number among the devices of that type.
        name: what its maker calls it.
        facts: what `spiral doctor` shows; ``cc`` is its compute capability times ten, where it has one.
        memory: where its tensors live; None for the CPU. Backends of one device give one object.
    """

    type: str
    index: int = 0
    name: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    memory: Memory | None = None


@runtime_checkable
class Backend(Protocol):
    """What a backend module exports as ``backend``."""

    name: str
    device_type: str
    priority: int

    def probe(self) -> list[DeviceInfo] | Unavailable:
        """The devices it can use here, or why it cannot be used. Called once, lazily."""

    def kernels(self) -> Iterable[Kernel]:
        """Its kernels. Called once, after a successful probe."""


def static_reason(
    kernel: Kernel,
    dtypes: Iterable[DType],
    has_scalar: bool,
    deterministic: bool,
    facts: Mapping[str, Any],
    tf32: bool = False,
) -> str | None:
    """Why a kernel cannot run on a device for these input dtypes, whatever their shapes; None when it can."""
    cap = kernel.cap
    if cap.cc is not None and not cap.cc[0] <= facts.get("cc", 0) <= cap.cc[1]:
        return (
            f"needs compute capability {_cc(cap.cc[0])} to {_cc(cap.cc[1])}; this device has {_cc(facts.get('cc', 0))}"
        )
    if cap.shared > facts.get("shared_memory", 0) and cap.shared:
        return f"needs {cap.shared} bytes of shared memory; a block here has {facts.get('shared_memory', 0)}"
    for d in dtypes:
        allowed = cap.dtypes if d.kind == "float" else cap.integers
        if d not in allowed:
            names = ", ".join(a.name for a in (*cap.dtypes, *cap.integers))
            return f"takes {names}; received {d.name}"
    if has_scalar and not cap.scalars:
        return "takes tensors only; received a Python number"
    if deterministic and not cap.deterministic:
        return "is not deterministic"
    if cap.tf32 and not tf32:
        return "rounds float32 to tf32; only within spiral.prefer(tf32=True)"
    return None


def _cc(number: int) -> str:
    return f"{number // 10}.{number % 10}"


@runtime_checkable
class GeneralBackend(Protocol):
    """A backend that makes kernels for any op, also those that plugins declare later."""

    def kernels_of(self, op: str) -> Iterable[Kernel]:
        """Kernels for an op as it is declared now; asked instead of the table of `Backend.kernels`."""


def oracle_of(op: str) -> tuple[Callable[..., Any], bool, bool, bool] | None:
    """An op's oracle, whether it overwrites its inputs, only makes views, and is slower than the op's decomposition.

    None: it has no oracle.
    """
    from spiral.op import OPS

    o = OPS[op]
    return None if o.oracle is None else (o.oracle, bool(o.mutates), o.view, o.fused)


def declared_ops() -> tuple[str, ...]:
    """Names of the ops that are declared."""
    from spiral.op import OPS

    return tuple(OPS)


def spans(op: str, bounds: Sequence[int], rows: int) -> Iterator[tuple[int, int, int]]:
    """(number, first row, end) of each group of consecutive rows that has any, for ops on packed rows.

    Args:
        op: who asks.
        bounds: the first row of each group, and the end of the last, on the host.
        rows: how many rows there are.

    Raises:
        ArgumentError: bounds fall, or leave [0, rows].

    Example:
        >>> list(spans("attention_varlen", [0, 3, 3, 5], 6))
        [(0, 0, 3), (2, 3, 5)]
    """
    for i, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        if not 0 <= start <= end <= rows:
            raise ArgumentError(
                f"{op}: groups must follow each other within the {rows} rows; received {start} to {end} for group {i}."
            )
        if start < end:
            yield i, start, end


DECOMPOSITION_PRIORITY = -10
"""Where an op's decomposition stands among its kernels: behind every backend's but those of lower priority still."""

ANY: Cap = Cap(dtypes=FLOATS, integers=tuple(d for d in ALL if d.kind != "float"), scalars=True)

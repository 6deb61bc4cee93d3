"""Kernels that the core brings for devices other than the CPU: views, constants, the host's ops over unified memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from spiral.backend import ANY, Cap, Kernel
from spiral.device import Device, cpu
from spiral.device_array import DeviceArray
from spiral.dtype import as_dtype
from spiral.op import Op
from spiral.tensor_core import make_key, wrap

VIEWS = "views"
HOST = "host"


# ---------------------------------------------------------------- views
def _reshape(x: DeviceArray, shape: tuple[int, ...]) -> DeviceArray:
    view = x.reshape_view(shape)
    assert view is not None  # the guard has said so
    return view


def _viewable(x: DeviceArray, shape: tuple[int, ...]) -> bool:
    return x.contiguous or x.reshape_view(shape) is not None


def _flip(x: DeviceArray, axis: Any) -> DeviceArray:
    given = range(x.ndim) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    return x.flip(tuple(a % x.ndim for a in given))


def _split(x: DeviceArray, sections: int, axis: int) -> tuple[DeviceArray, ...]:
    a = axis % x.ndim
    n = x.shape[a] // sections
    return tuple([x[(slice(None),) * a + (slice(i * n, i * n + n),)] for i in range(sections)])


def _basic(x: DeviceArray, index: tuple[Any, ...]) -> bool:
    return not any(isinstance(i, (np.ndarray, DeviceArray, list, bool, np.bool_)) for i in index)


def _where(guard: Callable[..., bool], text: str) -> Cap:
    return Cap(ANY.dtypes, ANY.integers, where=guard, where_text=text)


_VIEW_KERNELS = {
    k.op: k
    for k in (
        Kernel("reshape", _reshape, _where(_viewable, "the elements do not lie in this order"), allocates=True),
        Kernel("permute_dims", DeviceArray.transpose, ANY, allocates=True),
        Kernel("broadcast_to", DeviceArray.broadcast_to, ANY, allocates=True),
        Kernel("flip", _flip, ANY, allocates=True),
        Kernel("split", _split, ANY, allocates=True),
        Kernel("getitem", DeviceArray.__getitem__, _where(_basic, "takes integers, slices, None, ..."), allocates=True),
    )
}


# ---------------------------------------------------------------- constants
def _fill(x: DeviceArray, value: float) -> None:
    """Copied from the host, for devices without a kernel."""
    if x.size:
        x.memory.write(x.address, np.full(x.shape, value, x.dtype))


def _is_dense(x: DeviceArray, value: float) -> bool:
    return x.contiguous


_FILL = Kernel("fill_", _fill, Cap(ANY.dtypes, ANY.integers, where=_is_dense, where_text="takes dense arrays"))


# ---------------------------------------------------------------- unified memory
def _on_host(op: Op, device: Device, run: Callable[..., Any]) -> Callable[..., Any]:
    """The CPU's way of running an op, on buffers of a device that the host reads and writes."""
    n, memory = len(op.inputs), device.memory

    def host(a: Any) -> Any:
        if isinstance(a, list):
            return [host(x) for x in a]
        return wrap(a, make_key(cpu, as_dtype(a.dtype))) if isinstance(a, np.ndarray) else a

    def kept(out: Any, inputs: list[Any]) -> Any:
        # a view of an input lies in the device's memory already
        return out if any(np.may_share_memory(out, a) for a in inputs) else memory.from_host(out)

    def borrowed(*flat: Any) -> Any:
        args = tuple([host(a) for a in flat[:n]])
        outs = run(op, args, flat[n:])
        inputs = [a for x in flat[:n] for a in (x if isinstance(x, list) else [x]) if isinstance(a, np.ndarray)]
        return tuple([kept(o, inputs) for o in outs])

    borrowed.__name__ = f"{op.name} on the host"
    return borrowed


def kernels_of_core(op: Op, device: Device, run: Callable[..., Any]) -> Iterator[tuple[str, int, Kernel]]:
    """What the core adds to the backends' kernels: (name, priority, kernel).

    Args:
        run: ``run(op, tensors on the CPU, attributes)`` gives all outputs of an op, hidden ones too, as arrays.
    """
    if device.memory is None:
        return
    if device.memory.unified:
        if op.decompose is None:  # else its parts find kernels of the device
            yield HOST, -1000, Kernel(op.name, _on_host(op, device, run), ANY, allocates=True)
    elif op.name in _VIEW_KERNELS:
        yield VIEWS, 1000, _VIEW_KERNELS[op.name]
    elif op.name == _FILL.op:
        yield HOST, -1000, _FILL

"""Optimizer steps, averages, scaling and the norm of gradients over all tensors in one launch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import THREADS, copy_into, dense
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, float64
from spiral.gpu.spans import in_stretches, spans

_SOURCE = Source("optim.cu")
_BLOCK = (THREADS, 1, 1)
_FLOAT = Cap(FLOATS)
_A = {False: ("float", "f"), True: ("double", "d")}

# a step's members: how many numbers, then how many integers
_MEMBERS = {"AdamW": (8, 0), "Sgd": (2, 0), "Momentum": (4, 2), "Lion": (6, 0), "Scale": (1, 0), "Ema": (1, 0)}
_UPDATE: dict[tuple[str, bool], CudaKernel] = {
    (step, double): _SOURCE.kernel(f"spiral::update<{a}, spiral::{step}>", "P", f"{n}{f}" + (f"{i}i" if i else ""))
    for step, (n, i) in _MEMBERS.items() for double, (a, f) in _A.items()
}  # fmt: skip
_SQUARES = {double: _SOURCE.kernel(f"spiral::square_sums<{a}>", "P", "P") for double, (a, _) in _A.items()}
_CHECK = {
    (double, scaled): _SOURCE.kernel(f"spiral::check_finite<{a}, {str(scaled).lower()}>", "P", "P", f)
    for double, (a, f) in _A.items() for scaled in (False, True)
}  # fmt: skip
_ROOT = _SOURCE.kernel("spiral::root_of_sum", "P", "P", "i")


def _update(step: str, written: int, lists: Sequence[Any], settings: tuple[Any, ...]) -> None:
    """Applies a step to tensors of several lists in parallel.

    Args:
        step: name of the structure in kernels/cuda/optim.cu.
        written: a bit per list for those that the step overwrites.
        lists: tensors by parameter; where one is None the parameter is left alone.
        settings: the structure's members.
    """
    rows, back = in_stretches(lists, written, dense)
    if not rows:
        return
    gpu = rows[0][0].memory
    table = spans(gpu, rows)
    _UPDATE[step, table.double](gpu, (table.count, 1, 1), _BLOCK, table.address, *settings)
    for new, x in back:  # what has strides was changed as a dense copy
        copy_into(new, x)


def _adamw(
    params: Any, grads: Any, m: Any, v: Any, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    step: int, decoupled: bool,
) -> None:  # fmt: skip
    keep, l2 = (1.0 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    rate, root = lr / (1.0 - beta1**step), 1.0 / math.sqrt(1.0 - beta2**step)
    settings = (keep, l2, 1.0 - beta1, beta2, 1.0 - beta2, rate, root, eps)
    _update("AdamW", 0b1101, (params, grads, m, v), settings)


def _sgd(
    params: Any, grads: Any, buffers: Any, lr: float, momentum: float, dampening: float, weight_decay: float,
    nesterov: bool, first: bool,
) -> None:  # fmt: skip
    if not buffers:
        _update("Sgd", 0b01, (params, grads), (lr, weight_decay))
        return
    settings = (lr, weight_decay, 1.0 - dampening, momentum, int(nesterov), int(first))
    _update("Momentum", 0b101, (params, grads, buffers), settings)


def _lion(params: Any, grads: Any, m: Any, lr: float, beta1: float, beta2: float, weight_decay: float) -> None:
    settings = (lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2, weight_decay)
    _update("Lion", 0b101, (params, grads, m), settings)


def _scale(tensors: Any, factor: float) -> None:
    _update("Scale", 0b1, (tensors,), (factor,))


def _ema(averages: Any, params: Any, decay: float) -> None:
    _update("Ema", 0b01, (averages, params), (1.0 - decay,))


def _grad_norm(grads: Any, norm: DeviceArray) -> None:
    gpu = norm.memory
    rows = [(dense(g),) for g in grads if g is not None and g.size]
    if not rows:
        gpu.fill(norm.address, 0, norm.nbytes)
        return
    table = spans(gpu, rows)
    partial = DeviceArray.empty(gpu, (table.count,), float64.numpy)
    _SQUARES[table.double](gpu, (table.count, 1, 1), _BLOCK, table.address, partial.address)
    threads = 1024 if table.count > THREADS else THREADS
    _ROOT(gpu, (1, 1, 1), (threads, 1, 1), partial.address, norm.address, table.count)


def _check(tensors: Any, factor: float | None, finite: DeviceArray) -> None:
    """Writes whether all elements are finite, after they were multiplied by a factor where there is one."""
    gpu = finite.memory
    gpu.fill(finite.address, 1, finite.nbytes)
    given = [t for t in tensors if t is not None and t.size]
    if not given:
        return
    lying = [dense(t) for t in given]
    table = spans(gpu, [(t,) for t in lying])
    check = _CHECK[table.double, factor is not None]
    check(gpu, (table.count, 1, 1), _BLOCK, table.address, finite.address, 1.0 if factor is None else factor)
    if factor is not None:
        for new, t in zip(lying, given, strict=True):
            if new is not t:
                copy_into(new, t)


def _all_finite(tensors: Any, finite: DeviceArray) -> None:
    _check(tensors, None, finite)


def _unscale(tensors: Any, factor: float, finite: DeviceArray) -> None:
    _check(tensors, factor, finite)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("adamw", _adamw, _FLOAT)
    yield Kernel("sgd", _sgd, _FLOAT)
    yield Kernel("lion", _lion, _FLOAT)
    yield Kernel("scale_", _scale, _FLOAT)
    yield Kernel("ema_", _ema, _FLOAT)
    yield Kernel("grad_norm", _grad_norm, _FLOAT)
    yield Kernel("all_finite", _all_finite, _FLOAT)
    yield Kernel("unscale_", _unscale, _FLOAT)

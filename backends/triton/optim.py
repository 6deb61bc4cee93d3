"""Optimizer steps, averages, scaling and the norm of gradients over all tensors in one launch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import triton.language as tl

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import copy_into, dense
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, float32, float64
from spiral.gpu.spans import Spans, in_stretches, spans
from spiral.kernels.triton import optim as source

_FLOAT = Cap(FLOATS)
_STEPS = {"adamw": 4, "sgd": 2, "momentum": 3, "lion": 3, "scale": 1, "ema": 2}
"""How many tensors each takes."""
_NUMBERS = 8
KINDS = ((tl.float32, True), (tl.float32, False), (tl.float64, False))
"""What is computed in, and whether all tensors are float32; the constants WIDE and UNIFORM."""


def of_kind(wide: Any, uniform: bool) -> dict[str, Any]:
    """The constants of a kernel that takes tensors of some dtypes."""
    return {"WIDE": wide, "UNIFORM": uniform}


def _block(wide: Any) -> dict[str, int]:
    """How many elements are worked on at a time, so that they stay in registers."""
    return {"BLOCK": 512 if wide is tl.float64 else 1024}


def number(wide: Any) -> str:
    """A number's type."""
    return "fp64" if wide is tl.float64 else "fp32"


def kind_of(types: Sequence[np.dtype[Any]]) -> tuple[Any, bool]:
    """Which of `KINDS` takes tensors of these dtypes."""
    if any(t == float64.numpy for t in types):
        return KINDS[2]
    return KINDS[0] if all(t == float32.numpy for t in types) else KINDS[1]


_UPDATE = {
    (step, *kind): TritonKernel(
        source.update,
        {"table": "*i64"} | {f"s{i}": number(kind[0]) for i in range(_NUMBERS)},
        of_kind(*kind) | {"STEP": getattr(source, step), "COUNT": count} | _block(kind[0]),
        aligned=False,
    )
    for step, count in _STEPS.items() for kind in KINDS
}  # fmt: skip
_CHECK = {
    (scaled, *kind): TritonKernel(
        source.check_finite,
        {"table": "*i64", "finite": "*i8", "factor": number(kind[0])},
        of_kind(*kind) | {"SCALED": scaled} | _block(kind[0]),
        aligned=False,
    )
    for scaled, kind in itertools.product((False, True), KINDS)
}
_SQUARES = {
    kind: TritonKernel(
        source.square_sums, {"table": "*i64", "partial": "*fp64"}, of_kind(*kind) | _block(kind[0])
    )
    for kind in KINDS
}  # fmt: skip
_ROOT = TritonKernel(source.root_of_sum, {"partial": "*fp64", "norm": "*fp64", "n": "i32"}, {"BLOCK": 1024})


def _kind(table: Spans) -> tuple[Any, bool]:
    return kind_of(table.types)


def _update(step: str, lists: Sequence[Any], settings: tuple[Any, ...]) -> None:
    """Applies a step of kernels/triton/optim.py to tensors of several lists in parallel.

    Where one of them is None the parameter is left alone; all but the second list are overwritten.
    """
    rows, back = in_stretches(lists, 0b1101, dense)
    if not rows:
        return
    gpu = rows[0][0].memory
    table = spans(gpu, rows)
    numbers = (*settings, *(0.0,) * (_NUMBERS - len(settings)))
    _UPDATE[step, *_kind(table)](gpu, (table.count, 1, 1), table.address, *numbers)
    for new, x in back:  # what has strides was changed as a dense copy
        copy_into(new, x)


def _adamw(
    params: Any, grads: Any, m: Any, v: Any, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    step: int, decoupled: bool,
) -> None:  # fmt: skip
    keep, l2 = (1.0 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    rate, root = lr / (1.0 - beta1**step), 1.0 / math.sqrt(1.0 - beta2**step)
    settings = (keep, l2, 1.0 - beta1, beta2, 1.0 - beta2, rate, root, eps)
    _update("adamw", (params, grads, m, v), settings)


def _sgd(
    params: Any, grads: Any, buffers: Any, lr: float, momentum: float, dampening: float, weight_decay: float,
    nesterov: bool, first: bool,
) -> None:  # fmt: skip
    if not buffers:
        _update("sgd", (params, grads), (lr, weight_decay))
        return
    settings = (lr, weight_decay, 1.0 - dampening, momentum, int(nesterov), int(first))
    _update("momentum", (params, grads, buffers), settings)


def _lion(params: Any, grads: Any, m: Any, lr: float, beta1: float, beta2: float, weight_decay: float) -> None:
    settings = (lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2, weight_decay)
    _update("lion", (params, grads, m), settings)


def _scale(tensors: Any, factor: float) -> None:
    _update("scale", (tensors,), (factor,))


def _ema(averages: Any, params: Any, decay: float) -> None:
    _update("ema", (averages, params), (1.0 - decay,))


def _grad_norm(grads: Any, norm: DeviceArray) -> None:
    gpu = norm.memory
    rows = [(dense(g),) for g in grads if g is not None and g.size]
    if not rows:
        gpu.fill(norm.address, 0, norm.nbytes)
        return
    table = spans(gpu, rows)
    partial = DeviceArray.empty(gpu, (table.count,), float64.numpy)
    _SQUARES[_kind(table)](gpu, (table.count, 1, 1), table.address, partial.address)
    _ROOT(gpu, (1, 1, 1), partial.address, norm.address, table.count)


def _check(tensors: Any, factor: float | None, finite: DeviceArray) -> None:
    """Writes whether all elements are finite, after they were multiplied by a factor where there is one."""
    gpu = finite.memory
    gpu.fill(finite.address, 1, finite.nbytes)
    rows, back = in_stretches([tensors], int(factor is not None), dense)
    if not rows:
        return
    table = spans(gpu, rows)
    check = _CHECK[factor is not None, *_kind(table)]
    check(gpu, (table.count, 1, 1), table.address, finite.address, 1.0 if factor is None else factor)
    for new, x in back:
        copy_into(new, x)


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

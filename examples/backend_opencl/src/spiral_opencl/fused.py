"""Launchers of `kernels.cl`, with what each can do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np

from spiral.backend import Cap, Kernel, UnifiedMemory
from spiral.dtype import float32
from spiral_opencl.device import Device, Program

F32 = Cap((float32,))
LAST_AXIS = Cap(
    (float32,), where=lambda x, axis: axis in (-1, x.ndim - 1), where_text="takes the last axis only"
)  # fmt: skip
MATRICES = Cap((float32,), where=lambda x, y: x.ndim > 1 and y.ndim > 1, where_text="takes matrices, not vectors")
IN_ORDER = Cap(
    (float32,),
    where=lambda params, grads, m, v, *rest: all(a.flags.c_contiguous for a in (*params, *m, *v)),
    where_text="overwrites contiguous tensors only",
)


def kernels(device: Device, memory: UnifiedMemory) -> Iterator[Kernel]:
    """The kernels of the file."""
    launch = Program(device, files(__package__).joinpath("kernels.cl").read_text()).launch

    def dense(x: Any) -> Any:
        return x if x.flags.c_contiguous else memory.from_host(x)

    def reduction(name: str) -> Kernel:
        def run(x: Any, axis: Any, keepdims: bool, y: Any) -> None:
            axes = range(x.ndim) if axis is None else [a % x.ndim for a in np.atleast_1d(axis)]
            x = x.transpose([a for a in range(x.ndim) if a not in axes] + list(axes)) if len(axes) > 1 else x
            first = axes[0] if len(axes) == 1 else x.ndim - len(axes)
            outer, n, inner = (math.prod(p) for p in np.split(x.shape, [first, first + len(axes)]))
            launch(f"reduce_{name}", y.size, dense(x), y, outer, n, inner)

        return Kernel(name, run, F32)

    def matmul(x: Any, y: Any, z: Any) -> None:
        *lead, m, n = z.shape
        x, y = (np.broadcast_to(a, (*lead, *a.shape[-2:])) for a in (x, y))
        if len(lead) != 1:  # one axis of matrices: a view for a single matrix, a copy for more axes
            x, y = (a[None] if not lead else dense(a).reshape(-1, *a.shape[-2:]) for a in (x, y))
        y = y if y.strides[-1] == y.itemsize else dense(y)
        strides = [tuple(s // a.itemsize for s in a.strides) for a in (x, y)]
        sizes = math.prod(lead), m, n, x.shape[-1]
        launch("matmul", sizes[0] * -(-m // 8) * -(-n // 8), x, strides[0], y, strides[1], z, *sizes)

    def softmax(x: Any, axis: int, y: Any) -> None:
        rows = math.prod(x.shape[:-1])
        launch("softmax", rows, dense(x), y, rows, x.shape[-1])

    def layer_norm(x: Any, weight: Any, bias: Any, eps: float, y: Any, mean: Any, rstd: Any) -> None:
        rows, n = math.prod(x.shape[:-1]), x.shape[-1]
        weight = memory.from_host(np.ones(n, np.float32)) if weight is None else dense(weight)
        bias = memory.from_host(np.zeros(n, np.float32)) if bias is None else dense(bias)
        launch("norm", rows, dense(x), weight, bias, y, mean, rstd, rows, n, int(mean is not rstd), eps)

    def rms_norm(x: Any, weight: Any, eps: float, y: Any, rstd: Any) -> None:
        layer_norm(x, weight, None, eps, y, rstd, rstd)

    def adamw(
        params: Any, grads: Any, m: Any, v: Any, lr: float, beta1: float, beta2: float, eps: float, decay: float,
        step: int, decoupled: bool,
    ) -> None:  # fmt: skip
        rate, root = lr / (1.0 - beta1**step), math.sqrt(1.0 - beta2**step)
        settings = int(decoupled), lr * decay if decoupled else decay, 1.0 - beta1, 1.0 - beta2, eps, rate, root
        for p, g, mi, vi in zip(params, grads, m, v, strict=True):
            if g is not None:
                launch("adamw", p.size, p, dense(g), mi, vi, p.size, *settings)

    yield from map(reduction, ("sum", "mean", "max", "min"))
    yield Kernel("matmul", matmul, MATRICES)
    yield Kernel("softmax", softmax, LAST_AXIS)
    yield Kernel("layer_norm", layer_norm, F32)
    yield Kernel("rms_norm", rms_norm, F32)
    yield Kernel("adamw", adamw, IN_ORDER)

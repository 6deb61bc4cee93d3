"""Products of groups of rows, each with a matrix of its own: what a mixture of experts is made of."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np

from spiral.backend import Spec, spans
from spiral.errors import DTypeError, ShapeError
from spiral.op import F, op
from spiral.ops.shapes import need_float, result_dtype
from spiral.placement import host_copy


def _check(name: str, sizes: Any, groups: int | None) -> None:
    if sizes.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{name}: sizes must be integers; received {sizes.dtype.name}.")
    if sizes.ndim != 1 or (groups is not None and sizes.shape[0] != groups):
        wanted = "(G,)" if groups is None else f"({groups},), one per matrix"
        raise ShapeError(f"{name}: sizes must be {wanted}; received {tuple(sizes.shape)}.")


def bounds(sizes: Any) -> list[int]:
    """The first row of each group and the end of the last; sizes are on the host."""
    return list(accumulate(sizes.tolist(), initial=0))


def _rows(x: Any, start: int, end: int) -> Any:
    return F.getitem(x, index=(slice(start, end),))


@op("grouped_matmul(x, weight, sizes) -> y")
class GroupedMatMul:
    """Consecutive groups of rows of x (T, K), each times its own matrix of weight (G, K, N): (T, N).

    sizes (G,) says how many rows each group has, 0 too; rows after the last group give 0. Devices other than the CPU
    do not check that sizes are not negative and add up to at most T.
    """

    constants = ("sizes",)

    @staticmethod
    def meta(x: Any, weight: Any, sizes: Any) -> Spec:
        need_float("grouped_matmul", x=x, weight=weight)
        if x.ndim != 2 or weight.ndim != 3 or x.shape[1] != weight.shape[1]:
            raise ShapeError(
                f"grouped_matmul: expected x (T, K) and weight (G, K, N); received {tuple(x.shape)} and "
                f"{tuple(weight.shape)}."
            )
        _check("grouped_matmul", sizes, weight.shape[0])
        return Spec((x.shape[0], weight.shape[2]), result_dtype(x, weight))

    @staticmethod
    def oracle(x: Any, weight: Any, sizes: Any) -> Any:
        if len(sizes) != len(weight):
            raise ValueError("a size per matrix")  # the dispatcher asks meta for the whole message
        y = np.zeros((x.shape[0], weight.shape[2]), np.result_type(x, weight))
        for i, start, end in spans("grouped_matmul", bounds(sizes), x.shape[0]):
            y[start:end] = x[start:end] @ weight[i]
        return y

    @staticmethod
    def decompose(x: Any, weight: Any, sizes: Any) -> Any:
        GroupedMatMul.meta(x, weight, sizes)
        parts, last = [], 0
        for i, start, end in spans("grouped_matmul", bounds(host_copy(sizes)), x.shape[0]):
            parts.append(F.matmul(_rows(x, start, end), F.getitem(weight, index=(i,))))
            last = end
        if last < x.shape[0] or not parts:
            dtype = result_dtype(x, weight)
            rest = F.zeros_of(x, (x.shape[0] - last, weight.shape[2]))
            parts.append(rest if rest.dtype is dtype else F.astype(rest, dtype))
        return F.concat(parts, axis=0) if len(parts) > 1 else parts[0]

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, weight: Any, sizes: Any) -> Any:
        dx = dw = None
        if need[0]:
            dx = F.grouped_matmul(g, F.matrix_transpose(weight), sizes)
            dx = dx if dx.dtype is x.dtype else F.astype(dx, x.dtype)
        if need[1]:
            dw = F.grouped_matmul_grad(g, x, sizes)
            dw = dw if dw.dtype is weight.dtype else F.astype(dw, weight.dtype)
        return dx, dw, None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(9, 5), s.normal(3, 5, 4), np.array([4, 2, 3])
        yield s.normal(9, 5), s.normal(4, 5, 3), np.array([0, 6, 0, 1])  # two rows in no group
        yield s.normal(130, 33), s.normal(2, 33, 17), np.array([65, 65])
        yield s.normal(7, 6).T, np.swapaxes(s.normal(2, 3, 7), 1, 2), np.array([1, 5])
        yield s.normal(3, 5), s.normal(1, 5, 1), np.array([0])
        yield s.normal(0, 5), s.normal(2, 5, 3), np.array([0, 0])


@op("grouped_matmul_grad(g, x, sizes) -> dweight")
class GroupedMatMulGrad:
    """Gradient of grouped_matmul with respect to weight: x_i.T @ g_i for the rows of each group, (G, K, N)."""

    internal = True
    constants = ("sizes",)

    @staticmethod
    def meta(g: Any, x: Any, sizes: Any) -> Spec:
        _check("grouped_matmul_grad", sizes, None)
        return Spec((sizes.shape[0], x.shape[1], g.shape[1]), result_dtype(g, x))

    @staticmethod
    def oracle(g: Any, x: Any, sizes: Any) -> Any:
        dw = np.zeros((len(sizes), x.shape[1], g.shape[1]), np.result_type(g, x))
        for i, start, end in spans("grouped_matmul_grad", bounds(sizes), x.shape[0]):
            dw[i] = x[start:end].T @ g[start:end]
        return dw

    @staticmethod
    def decompose(g: Any, x: Any, sizes: Any) -> Any:
        dtype = result_dtype(g, x)
        none = F.zeros_of(x, (x.shape[1], g.shape[1]))
        parts = [none if none.dtype is dtype else F.astype(none, dtype)] * sizes.shape[0]
        for i, start, end in spans("grouped_matmul_grad", bounds(host_copy(sizes)), x.shape[0]):
            parts[i] = F.matmul(F.matrix_transpose(_rows(x, start, end)), _rows(g, start, end))
        return F.stack(parts) if parts else F.zeros_of(x, (0, x.shape[1], g.shape[1]))

    @staticmethod
    def vjp(need: Any, h: Any, g: Any, x: Any, sizes: Any) -> Any:
        dg = F.grouped_matmul(x, h, sizes) if need[0] else None
        dx = F.grouped_matmul(g, F.matrix_transpose(h), sizes) if need[1] else None
        return dg, dx, None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(9, 4), s.normal(9, 5), np.array([4, 2, 3])
        yield s.normal(9, 4), s.normal(9, 5), np.array([0, 6, 0, 1])
        yield s.normal(130, 17), s.normal(130, 33), np.array([65, 65])
        yield s.normal(0, 4), s.normal(0, 5), np.array([0, 0])

"""Matrix products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.errors import ArgumentError, ShapeError, received
from spiral.op import F, op
from spiral.ops.shapes import broadcast, like, need_shape, result_dtype


def _t(x: Any) -> Any:
    return F.permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


@op("matmul(x, y) -> z")
class MatMul:
    """Matrix product over the last two axes, broadcasting the others; vectors as in NumPy."""

    @staticmethod
    def meta(x: Any, y: Any) -> Spec:
        if x.ndim == 0 or y.ndim == 0:
            raise ShapeError("matmul: operands must have at least one axis; received a scalar.")
        k = y.shape[-2] if y.ndim > 1 else y.shape[0]
        if x.shape[-1] != k:
            raise ShapeError(
                f"matmul: the last axis of x and the {'second last' if y.ndim > 1 else 'only'} of y must agree; "
                f"received {tuple(x.shape)} and {tuple(y.shape)}."
            )
        lead = broadcast("matmul", Spec(tuple(x.shape[:-2]), x.dtype), Spec(tuple(y.shape[:-2]), x.dtype))
        rows = (x.shape[-2],) if x.ndim > 1 else ()
        columns = (y.shape[-1],) if y.ndim > 1 else ()
        return Spec((*lead, *rows, *columns), result_dtype(x, y))

    @staticmethod
    def oracle(x: Any, y: Any) -> Any:
        return np.matmul(x, y)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        if x.ndim == 1:
            g = F.expand_dims(g, axis=-1 if y.ndim == 1 else -2)
        if y.ndim == 1:
            g = F.expand_dims(g, axis=-1)
        if x.ndim == 1 and y.ndim == 1:
            g = F.reshape(g, (1, 1))
        x2 = F.reshape(x, (1, -1)) if x.ndim == 1 else x
        y2 = F.reshape(y, (-1, 1)) if y.ndim == 1 else y
        gx = gy = None
        if need[0]:
            gx = F.matmul(g, _t(y2))
            gx = F.reshape(like(gx, x2.spec), x.shape)
        if need[1]:
            gy = F.matmul(_t(x2), g)
            gy = F.reshape(like(gy, y2.spec), y.shape)
        return gx, gy

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.normal(7, 3)
        yield s.normal(2, 1, 5, 7), s.normal(3, 7, 4)
        yield s.normal(7), s.normal(7)
        yield s.normal(5, 7), s.normal(7)
        yield s.normal(7), s.normal(2, 7, 3)
        yield s.normal(7, 5).T, s.normal(3, 7).T
        yield s.normal(4, 0), s.normal(0, 3)
        yield s.normal(65, 33), s.normal(33, 17)


@op("linear(x, weight, bias?, *, activation: str = 'none') -> y")
class Linear:
    """act(x @ weight.T + bias): weight (out, in), x (..., in); activation none or relu."""

    @staticmethod
    def meta(x: Any, weight: Any, bias: Any, activation: str) -> Spec:
        if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
            raise ShapeError(
                f"linear: weight must be (out, in) with in = {x.shape[-1] if x.ndim else 'the last axis of x'}, the "
                f"last axis of x {tuple(x.shape)}; received {tuple(weight.shape)}."
            )
        need_shape("linear", "bias", bias, (weight.shape[0],), "the first axis of weight")
        if activation not in ("none", "relu"):
            raise ArgumentError(f"linear: activation must be 'none' or 'relu'; received {received(activation)}.")
        return Spec((*x.shape[:-1], weight.shape[0]), result_dtype(x, weight))

    @staticmethod
    def oracle(x: Any, weight: Any, bias: Any, activation: str) -> Any:
        y = np.matmul(x, weight.T)
        if bias is not None:
            y = y + bias
        return np.where(y < 0, np.zeros((), y.dtype), y) if activation == "relu" else y

    @staticmethod
    def decompose(x: Any, weight: Any, bias: Any, activation: str) -> Any:
        y = F.matmul(x, F.permute_dims(weight, (1, 0)))
        if bias is not None:
            y = y + bias
        return F.relu(y) if activation == "relu" else y

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, weight: Any, y: Any, activation: str) -> Any:
        if activation == "relu":
            g = F.relu_grad(g, y)
        dx, dw, db = F.linear_grad(g, x, weight, need_x=need[0], need_weight=need[1], need_bias=need[2])
        return dx if need[0] else None, dw if need[1] else None, db if need[2] else None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.normal(3, 7), s.normal(3), "none"
        yield s.normal(2, 5, 7), s.normal(3, 7), None, "relu"
        yield s.normal(65, 33), s.normal(17, 33), s.normal(17), "relu"
        yield s.normal(0, 4), s.normal(2, 4), None, "none"


@op("linear_grad(g, x, weight, *, need_x: bool, need_weight: bool, need_bias: bool) -> dx, dw, db")
class LinearGrad:
    """Gradients of linear: g @ weight, g.T @ x and the column sums of g; those not needed have no elements."""

    internal = True

    @staticmethod
    def meta(g: Any, x: Any, weight: Any, need_x: bool, need_weight: bool, need_bias: bool) -> tuple[Spec, Spec, Spec]:
        return (
            Spec(tuple(x.shape) if need_x else (0,), x.dtype),
            Spec(tuple(weight.shape) if need_weight else (0,), weight.dtype),
            Spec((weight.shape[0],) if need_bias else (0,), weight.dtype),
        )

    @staticmethod
    def oracle(g: Any, x: Any, weight: Any, need_x: bool, need_weight: bool, need_bias: bool) -> Any:
        none = np.zeros(0, g.dtype)
        rows = math.prod(g.shape[:-1])  # -1 would stand for anything where a layer has no inputs
        g2, x2 = g.reshape(rows, weight.shape[0]), x.reshape(rows, weight.shape[1])
        return (
            np.matmul(g, weight) if need_x else none,
            g2.T @ x2 if need_weight else none,
            g2.sum(0) if need_bias else none,
        )

    @staticmethod
    def decompose(g: Any, x: Any, weight: Any, need_x: bool, need_weight: bool, need_bias: bool) -> Any:
        rows = math.prod(g.shape[:-1])
        g2, x2 = F.reshape(g, (rows, weight.shape[0])), F.reshape(x, (rows, weight.shape[1]))
        none = F.getitem(F.reshape(g, (-1,)), index=(slice(0, 0),))
        return (
            F.matmul(g, weight) if need_x else none,
            F.matmul(_t(g2), x2) if need_weight else none,
            F.sum(g2, axis=0) if need_bias else none,
        )

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(2, 5, 3), s.normal(2, 5, 7), s.normal(3, 7), True, True, True
        yield s.normal(5, 3), s.normal(5, 7), s.normal(3, 7), False, True, False
        yield s.normal(2, 5, 3), s.normal(2, 5, 0), s.normal(3, 0), True, True, True

"""Normalisation of groups of channels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.errors import ArgumentError, ShapeError, received
from spiral.op import F, op
from spiral.ops.shapes import need_float, need_shape, statistics_dtype


def _grouped(x: Any, groups: int) -> tuple[int, int, int]:
    """x's shape as (N, groups, elements of a group)."""
    return x.shape[0], groups, x.shape[1] // groups * math.prod(x.shape[2:])


def _wide(x: Any) -> tuple[int, ...]:
    """The shape in which a value per channel broadcasts to x."""
    return (x.shape[1], *(1,) * (x.ndim - 2))


@op("group_norm(x, weight?, bias?, *, groups: int, eps: float = 1e-5) -> y, mean:hidden, rstd:hidden")
class GroupNorm:
    """(x - mean) / sqrt(var + eps) * weight + bias for x (N, C, ...), per sample and group (Wu & He 2018).

    ``groups`` divides C; weight and bias are (C,). The hidden statistics are (N, groups).
    """

    fused = True

    @staticmethod
    def meta(x: Any, weight: Any, bias: Any, groups: int, eps: float) -> tuple[Spec, Spec, Spec]:
        need_float("group_norm", x=x)
        if x.ndim < 2:
            raise ShapeError(f"group_norm: expected x (N, C, ...); received {tuple(x.shape)}.")
        if not isinstance(groups, int) or groups < 1 or x.shape[1] % groups:
            raise ArgumentError(
                f"group_norm: groups must divide {x.shape[1]}, the second axis of x; received {received(groups)}."
            )
        why = f"the second axis of x {tuple(x.shape)}"
        need_shape("group_norm", "weight", weight, tuple(x.shape[1:2]), why)
        need_shape("group_norm", "bias", bias, tuple(x.shape[1:2]), why)
        row = Spec((x.shape[0], groups), statistics_dtype(x.dtype))
        return Spec(tuple(x.shape), x.dtype), row, row

    @staticmethod
    def oracle(x: Any, weight: Any, bias: Any, groups: int, eps: float) -> Any:
        rows = x.reshape(_grouped(x, groups))
        mean = rows.mean(-1, keepdims=True)
        d = rows - mean
        rstd = 1.0 / np.sqrt((d * d).mean(-1, keepdims=True) + eps)
        y = (d * rstd).reshape(x.shape)
        y = y if weight is None else y * weight.reshape(_wide(x))
        y = y if bias is None else y + bias.reshape(_wide(x))
        return y, mean[..., 0], rstd[..., 0]

    @staticmethod
    def decompose(x: Any, weight: Any, bias: Any, groups: int, eps: float) -> Any:
        shape = x.shape
        channels = shape[1:2]
        if (
            not channels
            or groups < 1
            or channels[0] % groups
            or (weight is not None and weight.shape != channels)
            or (bias is not None and bias.shape != channels)
        ):
            GroupNorm.meta(x, weight, bias, groups, eps)  # says what is wrong; it costs more than asking
        rows = (shape[0], groups, channels[0] // groups * math.prod(shape[2:]))
        wide = channels + (1,) * (len(shape) - 2)
        y = F.reshape(F.layer_norm(F.reshape(x, rows), None, None, eps=eps), shape)
        y = y if weight is None else y * F.reshape(weight, wide)
        return y if bias is None else y + F.reshape(bias, wide)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, weight: Any, mean: Any, rstd: Any, groups: int) -> Any:
        dx, dw, db = F.group_norm_grad(g, x, weight, mean, rstd, groups=groups)
        return dx if need[0] else None, dw if need[1] else None, db if need[2] else None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(2, 6, 4, 5), s.normal(6), s.normal(6), 3, 1e-5
        yield s.normal(3, 4, 65, shift=50.0), s.normal(4), None, 1, 1e-5
        yield s.normal(2, 5, 3, 1, 2), None, s.normal(5), 5, 1e-3
        yield s.normal(2, 8), None, None, 2, 1e-5
        yield s.normal(0, 4, 3), s.normal(4), s.normal(4), 2, 1e-5
        yield s.normal(3, 7, 5, 4).transpose(0, 3, 1, 2), s.normal(4), s.normal(4), 2, 1e-5


@op("group_norm_grad(g, x, weight?, mean, rstd, *, groups: int) -> dx, dw, db")
class GroupNormGrad:
    """Gradients of group_norm with respect to x, weight and bias."""

    internal = True
    nondifferentiable = True  # second derivatives go through group_norm's decomposition
    fused = True

    @staticmethod
    def meta(g: Any, x: Any, weight: Any, mean: Any, rstd: Any, groups: int) -> tuple[Spec, Spec, Spec]:
        channel = Spec((x.shape[1],), x.dtype)
        return Spec(tuple(x.shape), x.dtype), channel, channel

    @staticmethod
    def oracle(g: Any, x: Any, weight: Any, mean: Any, rstd: Any, groups: int) -> Any:
        rows = _grouped(x, groups)
        xhat = (x.reshape(rows) - mean[..., None]) * rstd[..., None]
        gw = (g if weight is None else g * weight.reshape(_wide(x))).reshape(rows)
        dx = rstd[..., None] * (gw - gw.mean(-1, keepdims=True) - xhat * (gw * xhat).mean(-1, keepdims=True))
        others = (0, *range(2, x.ndim))
        return dx.reshape(x.shape), (g * xhat.reshape(x.shape)).sum(others), g.sum(others)

    @staticmethod
    def decompose(g: Any, x: Any, weight: Any, mean: Any, rstd: Any, groups: int) -> Any:
        rows = _grouped(x, groups)
        mean, rstd = F.expand_dims(mean, axis=-1), F.expand_dims(rstd, axis=-1)
        xhat = (F.reshape(x, rows) - mean) * rstd
        gw = F.reshape(g if weight is None else g * F.reshape(weight, _wide(x)), rows)
        slope = F.mean(gw * xhat, axis=-1, keepdims=True)
        dx = rstd * (gw - F.mean(gw, axis=-1, keepdims=True) - xhat * slope)
        others = (0, *range(2, x.ndim))
        found = F.reshape(dx, x.shape), F.sum(g * F.reshape(xhat, x.shape), axis=others), F.sum(g, axis=others)
        return tuple(t if t.dtype is x.dtype else F.astype(t, x.dtype) for t in found)

    @staticmethod
    def samples(s: Any) -> Any:
        for shape, groups, affine in (((2, 6, 4, 5), 3, True), ((3, 4, 65), 1, True), ((2, 8), 2, False)):
            x = s.normal(*shape)
            _, mean, rstd = GroupNorm.oracle(x, None, None, groups, 1e-5)
            weight = s.normal(shape[1]) if affine else None
            yield s.normal(*shape), x, weight, mean.astype(np.float32), rstd.astype(np.float32), groups

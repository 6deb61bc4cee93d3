"""A residual added and normalised in one pass: what stands between the layers of a transformer."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.errors import ShapeError
from spiral.op import F, op
from spiral.ops.norm import LayerNorm, RMSNorm
from spiral.ops.shapes import like, need_float, need_shape, result_dtype, statistics_dtype


def _sum_and_row(name: str, x: Any, residual: Any, **affine: Any) -> tuple[Spec, Spec]:
    need_float(name, x=x, residual=residual)
    if tuple(x.shape) != tuple(residual.shape) or x.ndim == 0:
        raise ShapeError(
            f"{name}: x and residual must have one shape with at least one axis; received {tuple(x.shape)} and "
            f"{tuple(residual.shape)}."
        )
    for what, t in affine.items():
        need_shape(name, what, t, tuple(x.shape[-1:]), f"the last axis of x {tuple(x.shape)}")
    dtype = result_dtype(x, residual)
    return Spec(tuple(x.shape), dtype), Spec(tuple(x.shape[:-1]), statistics_dtype(dtype))


def _both(need: Any, dx: Any, x_spec: Any, residual_spec: Any) -> tuple[Any, Any]:
    """The gradient of a sum goes to both operands."""
    return like(dx, x_spec) if need[0] else None, like(dx, residual_spec) if need[1] else None


@op("add_rms_norm(x, residual, weight?, *, eps: float = 1e-6) -> y, summed, rstd:hidden")
class AddRMSNorm:
    """summed = x + residual and y = rms_norm(summed, weight), over the last axis."""

    fused = True

    @staticmethod
    def meta(x: Any, residual: Any, weight: Any, eps: float) -> tuple[Spec, Spec, Spec]:
        whole, row = _sum_and_row("add_rms_norm", x, residual, weight=weight)
        return whole, whole, row

    @staticmethod
    def oracle(x: Any, residual: Any, weight: Any, eps: float) -> Any:
        if x.shape != residual.shape:
            raise ValueError("x and residual must have one shape")  # the dispatcher asks meta for the whole message
        summed = x + residual
        y, rstd = RMSNorm.oracle(summed, weight, eps)
        return y, summed, rstd

    @staticmethod
    def decompose(x: Any, residual: Any, weight: Any, eps: float) -> Any:
        if x.shape != residual.shape:  # the sum would broadcast
            AddRMSNorm.meta(x, residual, weight, eps)
        summed = x + residual
        return F.rms_norm(summed, weight, eps=eps), summed

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, residual_spec: Any, weight: Any, summed: Any, rstd: Any) -> Any:
        if g[0] is None:
            return *_both(need, g[1], x_spec, residual_spec), None
        dx, dw = F.add_rms_norm_grad(g[0], g[1], summed, weight, rstd)
        return *_both(need, dx, x_spec, residual_spec), dw if need[2] else None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 8), s.normal(4, 8), s.normal(8), 1e-6
        yield s.normal(2, 3, 65), s.normal(2, 3, 65, scale=100.0), None, 1e-6
        yield s.normal(3, 129), s.normal(3, 129), s.normal(129), 1e-3
        yield s.normal(7, 5).T, s.normal(5, 7), s.normal(7), 1e-6
        yield s.normal(5), s.normal(5), s.normal(5), 1e-6
        yield s.normal(4, 1), s.normal(4, 1), s.normal(1), 1e-6
        yield s.normal(0, 4), s.normal(0, 4), s.normal(4), 1e-6


@op("add_rms_norm_grad(g, gsummed?, summed, weight?, rstd) -> dx, dw")
class AddRMSNormGrad:
    """Gradients of add_rms_norm: that of x, which is also the residual's, and that of weight."""

    internal = True
    nondifferentiable = True  # second derivatives go through add_rms_norm's decomposition
    fused = True

    @staticmethod
    def meta(g: Any, gsummed: Any, summed: Any, weight: Any, rstd: Any) -> tuple[Spec, Spec]:
        return Spec(tuple(summed.shape), summed.dtype), Spec(tuple(summed.shape[-1:]), summed.dtype)

    @staticmethod
    def oracle(g: Any, gsummed: Any, summed: Any, weight: Any, rstd: Any) -> Any:
        r = rstd[..., None]
        gw = g if weight is None else g * weight
        dx = r * (gw - summed * r * r * (gw * summed).mean(-1, keepdims=True))
        dx = dx if gsummed is None else dx + gsummed
        return dx, (g * summed * r).sum(tuple(range(summed.ndim - 1)))

    @staticmethod
    def decompose(g: Any, gsummed: Any, summed: Any, weight: Any, rstd: Any) -> Any:
        r = F.expand_dims(rstd, axis=-1)
        gw = g if weight is None else g * weight
        dx = r * (gw - summed * (r * r * F.mean(gw * summed, axis=-1, keepdims=True)))
        dx = dx if gsummed is None else dx + gsummed
        return like(dx, summed), like(g * summed * r, Spec(tuple(summed.shape[-1:]), summed.dtype))

    @staticmethod
    def samples(s: Any) -> Any:
        for shape in ((4, 8), (2, 3, 65), (5,)):
            x, weight = s.normal(*shape), s.normal(shape[-1])
            rstd = np.asarray(1.0 / np.sqrt((x * x).mean(-1) + 1e-6), np.float32)
            yield s.normal(*shape), s.normal(*shape), x, weight, rstd
            yield s.normal(*shape), None, x, None, rstd


@op("add_layer_norm(x, residual, weight?, bias?, *, eps: float = 1e-5) -> y, summed, mean:hidden, rstd:hidden")
class AddLayerNorm:
    """summed = x + residual and y = layer_norm(summed, weight, bias), over the last axis."""

    fused = True

    @staticmethod
    def meta(x: Any, residual: Any, weight: Any, bias: Any, eps: float) -> tuple[Spec, Spec, Spec, Spec]:
        whole, row = _sum_and_row("add_layer_norm", x, residual, weight=weight, bias=bias)
        return whole, whole, row, row

    @staticmethod
    def oracle(x: Any, residual: Any, weight: Any, bias: Any, eps: float) -> Any:
        if x.shape != residual.shape:
            raise ValueError("x and residual must have one shape")  # the dispatcher asks meta for the whole message
        summed = x + residual
        y, mean, rstd = LayerNorm.oracle(summed, weight, bias, eps)
        return y, summed, mean, rstd

    @staticmethod
    def decompose(x: Any, residual: Any, weight: Any, bias: Any, eps: float) -> Any:
        if x.shape != residual.shape:  # the sum would broadcast
            AddLayerNorm.meta(x, residual, weight, bias, eps)
        summed = x + residual
        return F.layer_norm(summed, weight, bias, eps=eps), summed

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, residual_spec: Any, weight: Any, summed: Any, mean: Any, rstd: Any) -> Any:
        if g[0] is None:
            return *_both(need, g[1], x_spec, residual_spec), None, None
        dx, dw, db = F.add_layer_norm_grad(g[0], g[1], summed, weight, mean, rstd)
        return *_both(need, dx, x_spec, residual_spec), dw if need[2] else None, db if need[3] else None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 8), s.normal(4, 8), s.normal(8), s.normal(8), 1e-5
        yield s.normal(2, 3, 65), s.normal(2, 3, 65, shift=50.0), s.normal(65), None, 1e-5
        yield s.normal(3, 129), s.normal(3, 129), None, None, 1e-3
        yield s.normal(7, 5).T, s.normal(5, 7), s.normal(7), s.normal(7), 1e-5
        yield s.normal(5), s.normal(5), s.normal(5), s.normal(5), 1e-5
        yield s.normal(0, 4), s.normal(0, 4), s.normal(4), s.normal(4), 1e-5


@op("add_layer_norm_grad(g, gsummed?, summed, weight?, mean, rstd) -> dx, dw, db")
class AddLayerNormGrad:
    """Gradients of add_layer_norm: that of x, which is also the residual's, and those of weight and bias."""

    internal = True
    nondifferentiable = True  # second derivatives go through add_layer_norm's decomposition
    fused = True

    @staticmethod
    def meta(g: Any, gsummed: Any, summed: Any, weight: Any, mean: Any, rstd: Any) -> tuple[Spec, Spec, Spec]:
        row = Spec(tuple(summed.shape[-1:]), summed.dtype)
        return Spec(tuple(summed.shape), summed.dtype), row, row

    @staticmethod
    def oracle(g: Any, gsummed: Any, summed: Any, weight: Any, mean: Any, rstd: Any) -> Any:
        xhat = (summed - mean[..., None]) * rstd[..., None]
        gw = g if weight is None else g * weight
        dx = rstd[..., None] * (gw - gw.mean(-1, keepdims=True) - xhat * (gw * xhat).mean(-1, keepdims=True))
        dx = dx if gsummed is None else dx + gsummed
        lead = tuple(range(summed.ndim - 1))
        return dx, (g * xhat).sum(lead), g.sum(lead)

    @staticmethod
    def decompose(g: Any, gsummed: Any, summed: Any, weight: Any, mean: Any, rstd: Any) -> Any:
        r = F.expand_dims(rstd, axis=-1)
        xhat = (summed - F.expand_dims(mean, axis=-1)) * r
        gw = g if weight is None else g * weight
        slope = F.mean(gw * xhat, axis=-1, keepdims=True)
        dx = r * (gw - F.mean(gw, axis=-1, keepdims=True) - xhat * slope)
        dx = dx if gsummed is None else dx + gsummed
        row = Spec(tuple(summed.shape[-1:]), summed.dtype)
        return like(dx, summed), like(g * xhat, row), like(g, row)

    @staticmethod
    def samples(s: Any) -> Any:
        for shape in ((4, 8), (2, 3, 65), (5,)):
            x, weight = s.normal(*shape), s.normal(shape[-1])
            mean = np.asarray(x.mean(-1), np.float32)
            rstd = np.asarray(1.0 / np.sqrt(x.var(-1) + 1e-5), np.float32)
            yield s.normal(*shape), s.normal(*shape), x, weight, mean, rstd
            yield s.normal(*shape), None, x, None, mean, rstd

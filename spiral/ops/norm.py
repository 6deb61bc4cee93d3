"""Normalisation over the last axis, and softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.op import F, op
from spiral.ops.shapes import axes_of, narrowed, need_float, need_shape, statistics_dtype, widened


def _statistics(x: Any) -> tuple[Any, Any]:
    """Mean and rstd of the rows of a sample, as the layer norm saves them."""
    return x.mean(-1).astype(np.float32), (1.0 / np.sqrt(x.var(-1) + 1e-5)).astype(np.float32)


def _reciprocal_root(x: Any) -> Any:
    """rstd of the rows of a sample, as the RMS norm saves it."""
    return (1.0 / np.sqrt((x * x).mean(-1) + 1e-6)).astype(np.float32)


@op("layer_norm(x, weight?, bias?, *, eps: float = 1e-5) -> y, mean:hidden, rstd:hidden")
class LayerNorm:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba, Kiros & Hinton 2016)."""

    @staticmethod
    def meta(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Spec, Spec, Spec]:
        need_float("layer_norm", x=x)
        why = f"the last axis of x {tuple(x.shape)}"
        need_shape("layer_norm", "weight", weight, tuple(x.shape[-1:]), why)
        need_shape("layer_norm", "bias", bias, tuple(x.shape[-1:]), why)
        row = Spec(tuple(x.shape[:-1]), statistics_dtype(x.dtype))
        return Spec(tuple(x.shape), x.dtype), row, row

    @staticmethod
    def oracle(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        mean = x.mean(-1, keepdims=True)
        d = x - mean
        rstd = 1.0 / np.sqrt((d * d).mean(-1, keepdims=True) + eps)
        y = d * rstd
        y = y if weight is None else y * weight
        y = y if bias is None else y + bias
        return y, mean[..., 0], rstd[..., 0]

    @staticmethod
    def decompose(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        dtype, x = x.dtype, widened(x)
        d = x - F.mean(x, axis=-1, keepdims=True)
        y = d * F.rsqrt(F.mean(d * d, axis=-1, keepdims=True) + eps)
        y = y if weight is None else y * widened(weight)
        return narrowed(y if bias is None else y + widened(bias), dtype)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> Any:
        dx, dw, db = F.layer_norm_grad(g, x, weight, mean, rstd)
        return dx if need[0] else None, dw if need[1] else None, db if need[2] else None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 8), s.normal(8), s.normal(8), 1e-5
        yield s.normal(2, 3, 65), s.normal(65), None, 1e-5
        yield s.normal(3, 129, shift=50.0), None, None, 1e-5
        yield s.normal(0, 4), s.normal(4), None, 1e-5
        yield s.normal(4, 1), s.normal(1), None, 1e-5


@op("layer_norm_grad(g, x, weight?, mean, rstd) -> dx, dw, db")
class LayerNormGrad:
    """Gradients of layer_norm with respect to x, weight and bias."""

    internal = True
    nondifferentiable = True  # second derivatives go through layer_norm's decomposition

    @staticmethod
    def meta(g: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> tuple[Spec, Spec, Spec]:
        row = Spec(tuple(x.shape[-1:]), x.dtype)
        return Spec(tuple(x.shape), x.dtype), row, row

    @staticmethod
    def oracle(g: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> Any:
        xhat = (x - mean[..., None]) * rstd[..., None]
        gw = g if weight is None else g * weight
        dx = rstd[..., None] * (gw - gw.mean(-1, keepdims=True) - xhat * (gw * xhat).mean(-1, keepdims=True))
        lead = tuple(range(x.ndim - 1))
        return dx, (g * xhat).sum(lead), g.sum(lead)

    @staticmethod
    def samples(s: Any) -> Any:
        for shape in ((4, 8), (2, 3, 65)):
            x = s.normal(*shape)
            yield s.normal(*shape), x, s.normal(shape[-1]), *_statistics(x)
        x = s.normal(9, 33)
        yield s.normal(33, 9).T, x, None, *_statistics(x)


@op("rms_norm(x, weight?, *, eps: float = 1e-6) -> y, rstd:hidden")
class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019, eq. 4)."""

    @staticmethod
    def meta(x: Any, weight: Any, eps: float) -> tuple[Spec, Spec]:
        need_float("rms_norm", x=x)
        need_shape("rms_norm", "weight", weight, tuple(x.shape[-1:]), f"the last axis of x {tuple(x.shape)}")
        return Spec(tuple(x.shape), x.dtype), Spec(tuple(x.shape[:-1]), statistics_dtype(x.dtype))

    @staticmethod
    def oracle(x: Any, weight: Any, eps: float) -> Any:
        rstd = 1.0 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
        y = x * rstd
        return (y if weight is None else y * weight), rstd[..., 0]

    @staticmethod
    def decompose(x: Any, weight: Any, eps: float) -> Any:
        dtype, x = x.dtype, widened(x)
        y = x * F.rsqrt(F.mean(x * x, axis=-1, keepdims=True) + eps)
        return narrowed(y if weight is None else y * widened(weight), dtype)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, weight: Any, rstd: Any) -> Any:
        dx, dw = F.rms_norm_grad(g, x, weight, rstd)
        return dx if need[0] else None, dw if need[1] else None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 8), s.normal(8), 1e-6
        yield s.normal(2, 3, 65), None, 1e-6
        yield s.normal(0, 4), s.normal(4), 1e-6
        yield s.normal(2, 1025), s.normal(1025), 1e-6


@op("rms_norm_grad(g, x, weight?, rstd) -> dx, dw")
class RMSNormGrad:
    """Gradients of rms_norm with respect to x and weight."""

    internal = True
    nondifferentiable = True  # second derivatives go through rms_norm's decomposition

    @staticmethod
    def meta(g: Any, x: Any, weight: Any, rstd: Any) -> tuple[Spec, Spec]:
        return Spec(tuple(x.shape), x.dtype), Spec(tuple(x.shape[-1:]), x.dtype)

    @staticmethod
    def oracle(g: Any, x: Any, weight: Any, rstd: Any) -> Any:
        r = rstd[..., None]
        gw = g if weight is None else g * weight
        dx = r * (gw - x * r * r * (gw * x).mean(-1, keepdims=True))
        return dx, (g * x * r).sum(tuple(range(x.ndim - 1)))

    @staticmethod
    def samples(s: Any) -> Any:
        for shape in ((4, 8), (2, 3, 65)):
            x = s.normal(*shape)
            yield s.normal(*shape), x, s.normal(shape[-1]), _reciprocal_root(x)
        x = s.normal(9, 33)
        yield s.normal(33, 9).T, x, None, _reciprocal_root(x)


class _Softmax:
    @staticmethod
    def meta(x: Any, axis: int) -> Spec:
        need_float("softmax", x=x)
        axes_of("softmax", axis, x.ndim)
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 8), -1
        yield s.normal(3, 5, 65, scale=20.0), -1
        yield s.normal(4, 8), 0
        yield s.normal(2, 1), -1
        yield s.normal(0, 4), -1
        yield s.normal(2, 1025), -1
        yield s.normal(3, 40, 2).transpose(2, 0, 1), 1
        masked = s.normal(4, 33)
        masked[0, 5:], masked[1, :32], masked[2, 7] = -np.inf, -np.inf, np.nan
        yield masked, -1
        yield masked, 0


@op("softmax(x, *, axis: int = -1) -> y")
class Softmax(_Softmax):
    """exp(x) / sum(exp(x)) along an axis."""

    @staticmethod
    def oracle(x: Any, axis: int) -> Any:
        e = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
        return e / e.sum(axis, keepdims=True)

    @staticmethod
    def decompose(x: Any, axis: int) -> Any:
        dtype, x = x.dtype, widened(x)
        e = F.exp(x - F.max(x.detach(), axis=axis, keepdims=True))
        return narrowed(e / F.sum(e, axis=axis, keepdims=True), dtype)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any, axis: int) -> Any:
        return (F.softmax_grad(g, y, axis=axis),)


@op("softmax_grad(g, y, *, axis: int = -1) -> dx")
class SoftmaxGrad:
    """y * (g - sum(g * y))."""

    internal = True

    @staticmethod
    def meta(g: Any, y: Any, axis: int) -> Spec:
        return Spec(tuple(g.shape), g.dtype)

    @staticmethod
    def oracle(g: Any, y: Any, axis: int) -> Any:
        return y * (g - (g * y).sum(axis, keepdims=True))

    @staticmethod
    def decompose(g: Any, y: Any, axis: int) -> Any:
        return y * (g - F.sum(g * y, axis=axis, keepdims=True))

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 8), s.uniform(4, 8), -1
        yield s.normal(4, 8), s.uniform(4, 8), 0
        yield s.normal(3, 65), s.uniform(65, 3).T, -1


@op("log_softmax(x, *, axis: int = -1) -> y")
class LogSoftmax(_Softmax):
    """x - log(sum(exp(x))) along an axis."""

    @staticmethod
    def oracle(x: Any, axis: int) -> Any:
        d = x - x.max(axis, keepdims=True, initial=-np.inf)
        return d - np.log(np.exp(d).sum(axis, keepdims=True))

    @staticmethod
    def decompose(x: Any, axis: int) -> Any:
        dtype, x = x.dtype, widened(x)
        d = x - F.max(x.detach(), axis=axis, keepdims=True)
        return narrowed(d - F.log(F.sum(F.exp(d), axis=axis, keepdims=True)), dtype)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any, axis: int) -> Any:
        return (F.log_softmax_grad(g, y, axis=axis),)


@op("log_softmax_grad(g, y, *, axis: int = -1) -> dx")
class LogSoftmaxGrad:
    """g - exp(y) * sum(g)."""

    internal = True

    @staticmethod
    def meta(g: Any, y: Any, axis: int) -> Spec:
        return Spec(tuple(g.shape), g.dtype)

    @staticmethod
    def oracle(g: Any, y: Any, axis: int) -> Any:
        return g - np.exp(y) * g.sum(axis, keepdims=True)

    @staticmethod
    def decompose(g: Any, y: Any, axis: int) -> Any:
        return g - F.exp(y) * F.sum(g, axis=axis, keepdims=True)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 8), -s.uniform(4, 8), -1

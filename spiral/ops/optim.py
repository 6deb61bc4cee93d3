"""Optimizer steps over all parameters of a group in one call. They overwrite what `mutates` names."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.dtype import float64
from spiral.errors import ShapeError
from spiral.op import op


def _pairs(name: str, first: Any, **others: Any) -> None:
    """Raises ShapeError unless every list has the length and the shapes of the first."""
    for what, other in others.items():
        if len(other) != len(first):
            raise ShapeError(f"{name}: {what} must have {len(first)} tensors; received {len(other)}.")
        for i, (a, b) in enumerate(zip(first, other, strict=True)):
            if b is not None and tuple(a.shape) != tuple(b.shape):
                raise ShapeError(f"{name}: {what}[{i}] must be {tuple(a.shape)}; received {tuple(b.shape)}.")


class _Step:
    nondifferentiable = True
    internal = True


@op(
    "adamw(*params, *grads, *m, *v, *, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, "
    "step: int, decoupled: bool = True) -> ()"
)
class AdamW(_Step):
    """One step of AdamW (Loshchilov & Hutter 2019), or of Adam with L2 (Kingma & Ba 2015) if not decoupled."""

    mutates = ("params", "m", "v")

    @staticmethod
    def meta(params: Any, grads: Any, m: Any, v: Any, *attrs: Any) -> tuple[Spec, ...]:
        _pairs("adamw", params, grads=grads, m=m, v=v)
        return ()

    @staticmethod
    def oracle(
        params: Any, grads: Any, m: Any, v: Any, lr: float, beta1: float, beta2: float, eps: float,
        weight_decay: float, step: int, decoupled: bool,
    ) -> tuple[()]:  # fmt: skip
        c1, c2 = 1.0 - beta1**step, 1.0 - beta2**step
        for p, g, mi, vi in zip(params, grads, m, v, strict=True):
            if g is None:
                continue
            if decoupled:
                p *= 1.0 - lr * weight_decay
            else:
                g = g + weight_decay * p
            mi += (1.0 - beta1) * (g - mi)
            vi *= beta2
            vi += (1.0 - beta2) * g * g
            p -= (lr / c1) * mi / (np.sqrt(vi) / np.sqrt(c2) + eps)
        return ()

    @staticmethod
    def samples(s: Any) -> Any:
        shapes = ((3, 5), (7,), (1025,))
        for decoupled in (True, False):
            p, g, m = ([s.normal(*shape) for shape in shapes] for _ in range(3))
            yield p, g, m, [s.uniform(*shape) for shape in shapes], 1e-2, 0.9, 0.99, 1e-8, 0.1, 3, decoupled


@op(
    "sgd(*params, *grads, *buffers, *, lr: float, momentum: float, dampening: float, weight_decay: float, "
    "nesterov: bool, first: bool) -> ()"
)
class SGD(_Step):
    """One step of stochastic gradient descent with momentum (Sutskever et al. 2013, in PyTorch's form)."""

    mutates = ("params", "buffers")

    @staticmethod
    def meta(params: Any, grads: Any, buffers: Any, *attrs: Any) -> tuple[Spec, ...]:
        _pairs("sgd", params, grads=grads)
        if buffers:
            _pairs("sgd", params, buffers=buffers)
        return ()

    @staticmethod
    def oracle(
        params: Any, grads: Any, buffers: Any, lr: float, momentum: float, dampening: float, weight_decay: float,
        nesterov: bool, first: bool,
    ) -> tuple[()]:  # fmt: skip
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            if g is None:
                continue
            d = g + weight_decay * p
            if buffers:
                b = buffers[i]
                b[...] = d if first else momentum * b + (1.0 - dampening) * d
                d = d + momentum * b if nesterov else b
            p -= lr * d
        return ()

    @staticmethod
    def samples(s: Any) -> Any:
        for buffers, nesterov in ((False, False), (True, False), (True, True)):
            p, g = [s.normal(3, 5), s.normal(7)], [s.normal(3, 5), s.normal(7)]
            b = [s.normal(3, 5), s.normal(7)] if buffers else []
            yield p, g, b, 1e-2, 0.9 if buffers else 0.0, 0.0, 0.1, nesterov, False


@op("lion(*params, *grads, *m, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> ()")
class Lion(_Step):
    """One step of Lion (Chen et al. 2023, algorithm 2)."""

    mutates = ("params", "m")

    @staticmethod
    def meta(params: Any, grads: Any, m: Any, *attrs: Any) -> tuple[Spec, ...]:
        _pairs("lion", params, grads=grads, m=m)
        return ()

    @staticmethod
    def oracle(
        params: Any, grads: Any, m: Any, lr: float, beta1: float, beta2: float, weight_decay: float
    ) -> tuple[()]:
        for p, g, mi in zip(params, grads, m, strict=True):
            if g is None:
                continue
            update = np.sign(beta1 * mi + (1.0 - beta1) * g)
            p -= lr * (update + weight_decay * p)
            mi[...] = beta2 * mi + (1.0 - beta2) * g
        return ()

    @staticmethod
    def samples(s: Any) -> Any:
        p, g, m = ([s.normal(3, 5), s.normal(7)] for _ in range(3))
        yield p, g, m, 1e-3, 0.9, 0.99, 0.1


@op("grad_norm(*grads) -> norm")
class GradNorm:
    """Euclidean norm of all gradients together, in float64."""

    nondifferentiable = True
    internal = True

    @staticmethod
    def meta(grads: Any) -> Spec:
        return Spec((), float64)

    @staticmethod
    def oracle(grads: Any) -> Any:
        return np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in grads if g is not None))

    @staticmethod
    def samples(s: Any) -> Any:
        yield ([s.normal(3, 5), s.normal(1025)],)


@op("scale_(*tensors, *, factor: float) -> ()")
class Scale(_Step):
    """Multiplies tensors by a factor, in place."""

    mutates = ("tensors",)

    @staticmethod
    def meta(tensors: Any, factor: float) -> tuple[Spec, ...]:
        return ()

    @staticmethod
    def oracle(tensors: Any, factor: float) -> tuple[()]:
        for t in tensors:
            if t is not None:
                t *= factor
        return ()

    @staticmethod
    def samples(s: Any) -> Any:
        yield [s.normal(3, 5), s.normal(7)], 0.37


@op("ema_(*averages, *params, *, decay: float) -> ()")
class Ema(_Step):
    """averages = decay * averages + (1 - decay) * params, in place (Polyak & Juditsky 1992)."""

    mutates = ("averages",)

    @staticmethod
    def meta(averages: Any, params: Any, decay: float) -> tuple[Spec, ...]:
        _pairs("ema_", averages, params=params)
        return ()

    @staticmethod
    def oracle(averages: Any, params: Any, decay: float) -> tuple[()]:
        for a, p in zip(averages, params, strict=True):
            a += (1.0 - decay) * (p - a)
        return ()

    @staticmethod
    def samples(s: Any) -> Any:
        yield [s.normal(3, 5)], [s.normal(3, 5)], 0.9


@op("copy_(x, source) -> ()")
class Copy(_Step):
    """Overwrites x with source, which broadcasts to it."""

    mutates = ("x",)

    @staticmethod
    def meta(x: Any, source: Any) -> tuple[Spec, ...]:
        from spiral.ops.shapes import broadcast

        if broadcast("copy_", x, source) != tuple(x.shape):
            raise ShapeError(f"copy_: source must broadcast to {tuple(x.shape)}; received {tuple(source.shape)}.")
        return ()

    @staticmethod
    def oracle(x: Any, source: Any) -> tuple[()]:
        x[...] = source
        return ()

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(3, 5), s.normal(5)

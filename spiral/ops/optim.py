"""Optimizer steps over all parameters of a group in one call. They overwrite what `mutates` names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.dtype import bool_, float64
from spiral.errors import ShapeError
from spiral.op import F, op


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


def _rms(x: Any) -> Any:
    return np.sqrt(np.mean(np.square(x))) if x.size else x.dtype.type(0)


@op(
    "adafactor(*params, *grads, *rows, *columns, *variances, *, lr: float, beta2_decay: float, eps1: float, "
    "eps2: float, d: float, weight_decay: float, step: int) -> ()"
)
class Adafactor(_Step):
    """One step of Adafactor (Shazeer & Stern 2018, algorithms 4 and 5, in PyTorch's form).

    Of each parameter with at least two axes rows (..., R, 1) and columns (..., 1, C) are kept, and variances is None;
    of others it is the other way round. The decay of the averages is 1 - step^beta2_decay, the relative step
    min(lr, 1 / sqrt(step)), eps1 the smallest second moment, eps2 the smallest size of a parameter, d the largest root
    mean square of an update.
    """

    mutates = ("params", "rows", "columns", "variances")
    fused = True

    @staticmethod
    def meta(params: Any, grads: Any, rows: Any, columns: Any, variances: Any, *attrs: Any) -> tuple[Spec, ...]:
        _pairs("adafactor", params, grads=grads)
        for what, given in (("rows", rows), ("columns", columns), ("variances", variances)):
            if len(given) != len(params):
                raise ShapeError(f"adafactor: {what} must have {len(params)} entries; received {len(given)}.")
            for i, (p, t) in enumerate(zip(params, given, strict=True)):
                shape = _moment_shape(what, tuple(p.shape))
                if shape != (None if t is None else tuple(t.shape)):
                    have = "None" if t is None else tuple(t.shape)
                    raise ShapeError(
                        f"adafactor: {what}[{i}] must be {shape} for a parameter {tuple(p.shape)}; received {have}."
                    )
        return ()

    @staticmethod
    def oracle(
        params: Any, grads: Any, rows: Any, columns: Any, variances: Any, lr: float, beta2_decay: float, eps1: float,
        eps2: float, d: float, weight_decay: float, step: int,
    ) -> tuple[()]:  # fmt: skip
        share = step**beta2_decay
        for p, g, row, column, variance in zip(params, grads, rows, columns, variances, strict=True):
            if g is None:
                continue
            alpha = max(_rms(p), eps2) * min(lr, 1.0 / math.sqrt(step))
            p *= 1.0 - lr * weight_decay
            square = np.square(g)
            if variance is None:
                row += share * (square.mean(-1, keepdims=True) - row)
                column += share * (square.mean(-2, keepdims=True) - column)
                estimate = row * column / np.maximum(row.mean(-2, keepdims=True), eps1)
            else:
                variance += share * (square - variance)
                estimate = variance
            update = g / np.sqrt(np.maximum(estimate, eps1 * eps1))
            p -= update * (alpha / max(_rms(update) / d, 1.0))
        return ()

    @staticmethod
    def decompose(
        params: Any, grads: Any, rows: Any, columns: Any, variances: Any, lr: float, beta2_decay: float, eps1: float,
        eps2: float, d: float, weight_decay: float, step: int,
    ) -> None:  # fmt: skip
        averages, values = [], []
        for p, g, row, column, variance in zip(params, grads, rows, columns, variances, strict=True):
            if g is None or not p.size:
                continue
            square = F.square(g)
            if variance is None:
                averages += [row, column]
                values += [F.mean(square, axis=-1, keepdims=True), F.mean(square, axis=-2, keepdims=True)]
            else:
                averages.append(variance)
                values.append(square)
        if not averages:
            return
        F.ema_(averages, values, decay=1.0 - step**beta2_decay)
        for p, g, row, column, variance in zip(params, grads, rows, columns, variances, strict=True):
            if g is None or not p.size:
                continue
            alpha = F.maximum(_root_mean_square(p), eps2) * min(lr, 1.0 / math.sqrt(step))
            if weight_decay:
                F.scale_([p], factor=1.0 - lr * weight_decay)
            if variance is None:
                estimate = row * column / F.maximum(F.mean(row, axis=-2, keepdims=True), eps1)
            else:
                estimate = variance
            update = F.rsqrt(F.maximum(estimate, eps1 * eps1)) * g
            F.copy_(p, p - update * (alpha / F.maximum(_root_mean_square(update) / d, 1.0)))

    @staticmethod
    def samples(s: Any) -> Any:
        shapes: tuple[tuple[int, ...], ...] = ((3, 5), (7,), (2, 3, 4), (129, 65), (1,), ())
        for weight_decay, step, d in ((0.0, 1, 1.0), (0.1, 7, 0.5)):
            p, g = ([s.normal(*shape) for shape in shapes] for _ in range(2))
            moments = (
                [None if (n := _moment_shape(what, shape)) is None else s.uniform(*n) for shape in shapes]
                for what in ("rows", "columns", "variances")
            )
            yield p, g, *moments, 1e-2, -0.8, 1e-7, 1e-3, d, weight_decay, step
        one = [s.normal(4, 3)], [None], [s.uniform(4, 1)], [s.uniform(1, 3)], [None]
        yield *one, 1e-2, -0.8, 1e-7, 1e-3, 1.0, 0.0, 2


def _moment_shape(what: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Shape of what Adafactor keeps for a parameter."""
    if what == "variances":
        return shape if len(shape) < 2 else None
    if len(shape) < 2:
        return None
    return (*shape[:-1], 1) if what == "rows" else (*shape[:-2], 1, shape[-1])


def _root_mean_square(x: Any) -> Any:
    return F.sqrt(F.mean(F.square(x)))


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


@op("all_finite(*tensors) -> finite")
class AllFinite:
    """Whether no element of any tensor is infinite or NaN, a bool scalar; None in the list does not count."""

    nondifferentiable = True
    internal = True

    @staticmethod
    def meta(tensors: Any) -> Spec:
        return Spec((), bool_)

    @staticmethod
    def oracle(tensors: Any) -> Any:
        return np.asarray(all(np.isfinite(t).all() for t in tensors if t is not None))

    @staticmethod
    def decompose(tensors: Any) -> Any:
        return F.all(F.stack([F.all(F.isfinite(t)) for t in tensors if t is not None]))

    @staticmethod
    def samples(s: Any) -> Any:
        yield ([s.normal(3, 5), None, s.normal(1025)],)
        for bad in (np.nan, np.inf, -np.inf):
            last = s.normal(1025)
            last[-1] = bad
            yield ([s.normal(3, 5), last],)
        yield ([s.array([1e38, -1e38, 1e-40]), s.normal(0)],)  # finite, though the sum of squares is not
        yield ([s.normal(7, 5).T, s.normal()],)


@op("unscale_(*tensors, *, factor: float) -> finite")
class Unscale(_Step):
    """Multiplies tensors by a factor, in place, and says whether every result is finite: what loss scaling needs."""

    mutates = ("tensors",)
    fused = True

    @staticmethod
    def meta(tensors: Any, factor: float) -> Spec:
        return Spec((), bool_)

    @staticmethod
    def oracle(tensors: Any, factor: float) -> Any:
        for t in tensors:
            if t is not None:
                t *= factor
        return np.asarray(all(np.isfinite(t).all() for t in tensors if t is not None))

    @staticmethod
    def decompose(tensors: Any, factor: float) -> Any:
        F.scale_(tensors, factor=factor)
        return F.all_finite(tensors)

    @staticmethod
    def samples(s: Any) -> Any:
        yield [s.normal(3, 5), None, s.normal(1025)], 2.0**-15
        yield [s.normal(3, 5), s.array([1.0, np.inf])], 0.5
        yield [s.normal(0)], 0.5


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


@op("fill_(x, *, value: float) -> ()")
class Fill(_Step):
    """Overwrites every element of x with one value, rounded to the dtype of x; constants on devices are made by it."""

    mutates = ("x",)

    @staticmethod
    def meta(x: Any, value: float) -> tuple[Spec, ...]:
        return ()

    @staticmethod
    def oracle(x: Any, value: float) -> tuple[()]:
        x[...] = value
        return ()

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(3, 5), 1.5
        yield s.normal(2049), 0.0
        yield s.normal(7), -0.0
        yield s.normal(4, 6)[:, ::2], -2.0
        yield s.integers(0, 9, 5), 3
        yield s.normal(), 1.0
        yield s.normal(0, 4), 1.0

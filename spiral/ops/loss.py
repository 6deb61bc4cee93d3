"""Losses that have kernels of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.errors import ArgumentError, DTypeError, IndexingError, ShapeError, received
from spiral.op import F, op
from spiral.ops.shapes import need_float, statistics_dtype

_REDUCTIONS = ("none", "mean", "sum")


def _rows(logits: Any, targets: Any, ignore: int, smoothing: float, z: float) -> Any:
    """Per row: loss, log-sum-exp, whether it counts, and the class to use (0 for ignored rows)."""
    v = logits.shape[1]
    counts = targets != ignore
    at = np.where(counts, targets, 0)
    if at.size and (at.min() < 0 or at.max() >= v):
        row = int(np.argmax((at < 0) | (at >= v)))
        raise IndexingError(f"cross_entropy: target {targets[row]} of row {row} is not in [0, {v}).")
    top = logits.max(1, keepdims=True, initial=-np.inf)
    lse = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    picked = np.take_along_axis(logits, at[:, None], 1)[:, 0]
    loss = lse - (1.0 - smoothing) * picked - smoothing * logits.mean(1) + z * lse * lse
    return np.where(counts, loss, 0.0).astype(logits.dtype), lse.astype(logits.dtype), counts, at


@op(
    "cross_entropy(logits, targets, *, ignore_index: int = -100, label_smoothing: float = 0.0, "
    "z_loss: float = 0.0, reduction: str = 'mean') -> loss, lse:hidden"
)
class CrossEntropy:
    """Cross-entropy of logits (N, V) with class indices (N,).

    Label smoothing as in Szegedy et al. 2016 (PyTorch's definition); z_loss adds z * lse^2 per row
    (Chowdhery et al. 2022, PaLM). The mean is over the targets that are not ignored.
    """

    @staticmethod
    def meta(
        logits: Any, targets: Any, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str
    ) -> tuple[Spec, Spec]:
        need_float("cross_entropy", logits=logits)
        if logits.ndim != 2 or tuple(targets.shape) != tuple(logits.shape[:1]):
            raise ShapeError(
                f"cross_entropy: expected logits (N, V) and targets (N,); received {tuple(logits.shape)} and "
                f"{tuple(targets.shape)}."
            )
        if targets.dtype.kind not in ("int", "uint"):
            raise DTypeError(f"cross_entropy: targets must be integers; received {targets.dtype.name}.")
        if reduction not in _REDUCTIONS:
            raise ArgumentError(
                f"cross_entropy: reduction must be one of {_REDUCTIONS}; received {received(reduction)}."
            )
        rows = tuple(targets.shape)
        loss = Spec(rows if reduction == "none" else (), logits.dtype)
        return loss, Spec(rows, statistics_dtype(logits.dtype))

    @staticmethod
    def oracle(
        logits: Any, targets: Any, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str
    ) -> Any:
        loss, lse, counts, _ = _rows(logits, targets, ignore_index, label_smoothing, z_loss)
        if reduction == "mean":
            with np.errstate(invalid="ignore", divide="ignore"):
                loss = loss.sum() / np.float64(counts.sum())
        elif reduction == "sum":
            loss = loss.sum()
        return loss, lse

    @staticmethod
    def decompose(
        logits: Any, targets: Any, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str
    ) -> Any:
        v = logits.shape[1]
        counts = F.astype(F.not_equal(targets, ignore_index), logits.dtype)
        top = F.max(logits.detach(), axis=1, keepdims=True)
        lse = F.log(F.sum(F.exp(logits - top), axis=1)) + F.reshape(top, (-1,))
        hot = F.one_hot(targets, v, logits.dtype)
        picked = F.sum(logits * hot, axis=1)
        loss = lse - picked * (1.0 - label_smoothing) - F.mean(logits, axis=1) * label_smoothing + lse * lse * z_loss
        loss = loss * counts
        if reduction == "none":
            return loss
        total = F.sum(loss)
        return total / F.sum(counts) if reduction == "mean" else total

    @staticmethod
    def vjp(
        need: Any,
        g: Any,
        logits: Any,
        targets: Any,
        lse: Any,
        ignore_index: int,
        label_smoothing: float,
        z_loss: float,
        reduction: str,
    ) -> Any:
        return (
            F.cross_entropy_grad(
                g,
                logits,
                targets,
                lse,
                ignore_index=ignore_index,
                label_smoothing=label_smoothing,
                z_loss=z_loss,
                reduction=reduction,
            ),
            None,
        )

    @staticmethod
    def samples(s: Any) -> Any:
        for reduction in _REDUCTIONS:
            yield s.normal(7, 11), s.integers(0, 11, 7), -100, 0.0, 0.0, reduction
        yield s.normal(7, 65, scale=10.0), s.integers(0, 65, 7), 3, 0.1, 1e-3, "mean"
        yield s.normal(3, 1025), s.integers(0, 1025, 3), -100, 0.0, 0.0, "mean"
        yield s.normal(33, 5).T, np.array([0, 32, -7, 5, -7]), -7, 0.0, 0.0, "sum"


@op(
    "cross_entropy_grad(g, logits, targets, lse, *, ignore_index: int = -100, label_smoothing: float = 0.0, "
    "z_loss: float = 0.0, reduction: str = 'mean') -> dlogits"
)
class CrossEntropyGrad:
    """Gradient of cross_entropy with respect to the logits."""

    internal = True
    nondifferentiable = True  # second derivatives go through cross_entropy's decomposition

    @staticmethod
    def meta(g: Any, logits: Any, *rest: Any) -> Spec:
        return Spec(tuple(logits.shape), logits.dtype)

    @staticmethod
    def oracle(
        g: Any,
        logits: Any,
        targets: Any,
        lse: Any,
        ignore_index: int,
        label_smoothing: float,
        z_loss: float,
        reduction: str,
    ) -> Any:
        v = logits.shape[1]
        counts = targets != ignore_index
        at = np.where(counts, targets, 0)
        p = np.exp(logits - lse[:, None])
        d = p * (1.0 + 2.0 * z_loss * lse[:, None]) - label_smoothing / v
        d[np.arange(len(at)), at] -= 1.0 - label_smoothing
        scale = np.where(counts, g, 0.0)
        if reduction == "mean":
            with np.errstate(invalid="ignore", divide="ignore"):
                scale = scale / np.float64(counts.sum())
        return d * scale[:, None]

    @staticmethod
    def samples(s: Any) -> Any:
        x, t = s.normal(7, 11), s.integers(0, 11, 7)
        lse = np.log(np.exp(x).sum(1)).astype(np.float32)
        yield s.normal(), x, t, lse, -100, 0.0, 0.0, "mean"
        yield s.normal(7), x, t, lse, 3, 0.1, 1e-3, "none"

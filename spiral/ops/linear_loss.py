"""A linear layer and its cross-entropy as one op, which never stores the logits of all rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.dtype import float32
from spiral.errors import ArgumentError, DTypeError, ShapeError, received
from spiral.op import F, op
from spiral.ops.loss import _REDUCTIONS, _rows
from spiral.ops.shapes import need_float, result_dtype, statistics_dtype

# The decomposition stores up to a GiB of float32 logits, and beyond that 64 MiB at a time, whose logits are computed
# again in the backward: a third more work. 2026-11-24, one thread, (N, K, V) = (1024, 768, 50257): 8.6 s whole, 13.2 s
# in chunks of 2**24 logits, 18.5 s in chunks of 2**20, which add up the weight's gradient 50 times.
_WHOLE = 1 << 28
_CHUNK = 1 << 24


@op(
    "linear_cross_entropy(x, weight, targets, *, ignore_index: int = -100, label_smoothing: float = 0.0, "
    "z_loss: float = 0.0, reduction: str = 'mean') -> loss, lse:hidden"
)
class LinearCrossEntropy:
    """Cross-entropy of the logits x @ weight.T with class indices: x (N, K), weight (V, K), targets (N,).

    As `cross_entropy` of `linear`, but the (N, V) logits are never stored: the backward computes them again
    from x, weight and the rows' log-sum-exp (Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language
    Models"). Where x is a 16-bit type the loss is float32.
    """

    fused = True

    @staticmethod
    def meta(
        x: Any, weight: Any, targets: Any, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str
    ) -> tuple[Spec, Spec]:
        need_float("linear_cross_entropy", x=x, weight=weight)
        if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1] or tuple(targets.shape) != x.shape[:1]:
            raise ShapeError(
                "linear_cross_entropy: expected x (N, K), weight (V, K) and targets (N,); received "
                f"{tuple(x.shape)}, {tuple(weight.shape)} and {tuple(targets.shape)}."
            )
        if targets.dtype.kind not in ("int", "uint"):
            raise DTypeError(f"linear_cross_entropy: targets must be integers; received {targets.dtype.name}.")
        if reduction not in _REDUCTIONS:
            raise ArgumentError(
                f"linear_cross_entropy: reduction must be one of {_REDUCTIONS}; received {received(reduction)}."
            )
        rows = Spec(tuple(targets.shape), statistics_dtype(result_dtype(x, weight)))
        return (rows if reduction == "none" else Spec((), rows.dtype)), rows

    @staticmethod
    def oracle(
        x: Any, weight: Any, targets: Any, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str
    ) -> Any:
        loss, lse, counts, _ = _rows(x @ weight.T, targets, ignore_index, label_smoothing, z_loss)
        if reduction == "mean":
            with np.errstate(invalid="ignore", divide="ignore"):
                loss = loss.sum() / np.float64(counts.sum())
        elif reduction == "sum":
            loss = loss.sum()
        return loss, lse

    @staticmethod
    def decompose(
        x: Any, weight: Any, targets: Any, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str
    ) -> Any:
        if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1] or targets.shape != x.shape[:1]:
            LinearCrossEntropy.meta(x, weight, targets, ignore_index, label_smoothing, z_loss, reduction)
        n, v = x.shape[0], weight.shape[0]
        if n * v > _WHOLE and n > 1:
            options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "z_loss": z_loss}
            return _in_chunks(x, weight, targets, reduction, rows_at_once(n, v), options)
        return F.cross_entropy(
            _logits(x, weight),
            targets,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            reduction=reduction,
        )

    @staticmethod
    def vjp(
        need: Any,
        g: Any,
        x: Any,
        weight: Any,
        targets: Any,
        lse: Any,
        ignore_index: int,
        label_smoothing: float,
        z_loss: float,
        reduction: str,
    ) -> Any:
        dx, dw = F.linear_cross_entropy_grad(
            g,
            x,
            weight,
            targets,
            lse,
            need_x=need[0],
            need_weight=need[1],
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            reduction=reduction,
        )
        return dx if need[0] else None, dw if need[1] else None, None

    @staticmethod
    def samples(s: Any) -> Any:
        for reduction in _REDUCTIONS:
            yield s.normal(7, 5), s.normal(11, 5), s.integers(0, 11, 7), -100, 0.0, 0.0, reduction
        yield s.normal(7, 33, scale=3.0), s.normal(65, 33), s.integers(0, 65, 7), 3, 0.1, 1e-3, "mean"
        yield s.normal(129, 4), s.normal(257, 4), s.integers(0, 257, 129), -100, 0.1, 0.0, "none"
        yield s.normal(3, 4, scale=50.0), s.normal(6, 4, scale=10.0), s.integers(0, 6, 3), -100, 0.0, 0.0, "sum"
        yield s.normal(1, 1), s.normal(1, 1), s.integers(0, 1, 1), -100, 0.0, 1e-2, "mean"
        yield s.normal(5, 3), s.normal(4, 3), np.array([-100, 2, -100, 0, -100]), -100, 0.0, 0.0, "mean"
        yield s.normal(0, 3), s.normal(4, 3), s.integers(0, 4, 0), -100, 0.0, 0.0, "sum"
        yield s.normal(6, 9).T, s.normal(6, 8).T, s.integers(0, 8, 9), -100, 0.0, 0.0, "sum"


def rows_at_once(n: int, v: int) -> int:
    """How many rows' logits are held at once: equal chunks of at most 2**24 logits, or single rows."""
    chunks = -(-n // max(1, _CHUNK // max(1, v)))
    return -(-n // chunks)


def _logits(x: Any, weight: Any) -> Any:
    logits = F.linear(x, weight, None)
    return F.astype(logits, float32) if logits.dtype.storage_only else logits


def _in_chunks(x: Any, weight: Any, targets: Any, reduction: str, rows: int, options: dict[str, Any]) -> Any:
    """Chunk after chunk of rows; a chunk's logits are computed again in its backward."""
    from spiral.recompute import checkpoint

    each = "none" if reduction == "none" else "sum"

    def part(x: Any, weight: Any, targets: Any) -> Any:
        return F.cross_entropy(_logits(x, weight), targets, reduction=each, **options)

    found = []
    for start in range(0, x.shape[0], rows):
        index = (slice(start, start + rows),)
        found.append(checkpoint(part, F.getitem(x, index=index), weight, F.getitem(targets, index=index)))
    if reduction == "none":
        return F.concat(found, axis=0)
    total = F.sum(F.stack(found))
    if reduction == "sum":
        return total
    return total / F.sum(F.astype(F.not_equal(targets, options["ignore_index"]), total.dtype))


@op(
    "linear_cross_entropy_grad(g, x, weight, targets, lse, *, need_x: bool, need_weight: bool, "
    "ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, reduction: str = 'mean') -> dx, dw"
)
class LinearCrossEntropyGrad:
    """Gradients of linear_cross_entropy with respect to x and weight; those not needed have no elements."""

    internal = True
    nondifferentiable = True  # second derivatives go through linear_cross_entropy's decomposition
    fused = True

    @staticmethod
    def meta(
        g: Any, x: Any, weight: Any, targets: Any, lse: Any, need_x: bool, need_weight: bool, *rest: Any
    ) -> tuple[Spec, Spec]:
        return (
            Spec(tuple(x.shape) if need_x else (0,), x.dtype),
            Spec(tuple(weight.shape) if need_weight else (0,), weight.dtype),
        )

    @staticmethod
    def oracle(
        g: Any, x: Any, weight: Any, targets: Any, lse: Any, need_x: bool, need_weight: bool,
        ignore_index: int, label_smoothing: float, z_loss: float, reduction: str,
    ) -> Any:  # fmt: skip
        v = weight.shape[0]
        counts = targets != ignore_index
        at = np.where(counts, targets, 0)
        d = np.exp(x @ weight.T - lse[:, None]) * (1.0 + 2.0 * z_loss * lse[:, None]) - label_smoothing / v
        d[np.arange(len(at)), at] -= 1.0 - label_smoothing
        scale = np.where(counts, g, 0.0)
        if reduction == "mean":
            with np.errstate(invalid="ignore", divide="ignore"):
                scale = scale / np.float64(counts.sum())
        d = (d * scale[:, None]).astype(d.dtype)
        none = np.zeros(0, x.dtype)
        return d @ weight if need_x else none, d.T @ x if need_weight else none

    @staticmethod
    def decompose(
        g: Any, x: Any, weight: Any, targets: Any, lse: Any, need_x: bool, need_weight: bool,
        ignore_index: int, label_smoothing: float, z_loss: float, reduction: str,
    ) -> Any:  # fmt: skip
        options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "z_loss": z_loss}
        if reduction == "mean":
            g = g / F.sum(F.astype(F.not_equal(targets, ignore_index), g.dtype))
        g = F.broadcast_to(g, targets.shape)
        rows = rows_at_once(x.shape[0], weight.shape[0]) if x.shape[0] else 1
        parts, dw = [], None
        for start in range(0, x.shape[0], rows):
            gi, xi, ti, li = (F.getitem(t, index=(slice(start, start + rows),)) for t in (g, x, targets, lse))
            d = F.cross_entropy_grad(gi, _logits(xi, weight), ti, li, reduction="none", **options)
            d = d if d.dtype is x.dtype else F.astype(d, x.dtype)
            dxi, dwi, _ = F.linear_grad(d, xi, weight, need_x=need_x, need_weight=need_weight, need_bias=False)
            parts.append(dxi)
            dw = dwi if dw is None else dw + dwi
        none = F.zeros_of(x, (0,))
        dx = (F.concat(parts, axis=0) if parts else x) if need_x else none
        return dx, (F.zeros_of(weight, weight.shape) if dw is None else dw) if need_weight else none

    @staticmethod
    def samples(s: Any) -> Any:
        x, w, t = s.normal(7, 5), s.normal(11, 5), s.integers(0, 11, 7)
        lse = np.log(np.exp(x @ w.T).sum(1)).astype(np.float32)
        yield s.normal(), x, w, t, lse, True, True, -100, 0.0, 0.0, "mean"
        yield s.normal(), x, w, t, lse, False, True, -100, 0.0, 0.0, "sum"
        yield s.normal(7), x, w, t, lse, True, False, 3, 0.1, 1e-3, "none"

"""Losses of class scores: cross-entropy and negative log-likelihood; `spiral.nn.functional` exports them."""

from __future__ import annotations

from spiral import ops
from spiral.creation import arange
from spiral.dispatch import shapes_only
from spiral.errors import ArgumentError, DTypeError, IndexingError, ShapeError, kind_of
from spiral.nn.arguments import choice, integer, real, tensors
from spiral.nn.loss_functions import REDUCTIONS, reduced
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of logits with classes.

    Args:
        logits: (..., V); the classes are the last axis, also for more than two axes.
        targets: (...) integers in [0, V) or ``ignore_index``; or (..., V) probabilities.
        weight: (V,) factor of each class; a target's row counts as much as its class. With probabilities
            each class's term is multiplied.
        ignore_index: Target that does not count. Probabilities have none.
        label_smoothing: Share of the target that is spread over all classes (Szegedy et al. 2016).
        z_loss: Factor of the squared log-sum-exp that is added (Chowdhery et al. 2022).
        reduction: ``"mean"`` over the targets that count, weighted by their classes (for probabilities:
            over the rows), ``"sum"`` or ``"none"``. Where no target counts the mean is 0 / 0, NaN, as in PyTorch.

    Returns:
        A scalar, or (...) for ``reduction="none"``.

    Raises:
        ShapeError: the shapes do not fit.
        IndexingError: a target is not a class.
        DTypeError: something is no tensor, or targets are neither integers nor probabilities.
        ArgumentError: ``label_smoothing`` is not in [0, 1], or another setting is out of range.

    Example:
        >>> import spiral as sp
        >>> logits, targets = sp.zeros((2, 2)), sp.asarray([0, 1])
        >>> round(cross_entropy(logits, targets, sp.asarray([1.0, 3.0]), reduction="sum").item(), 4)
        2.7726
    """
    name = "cross_entropy"
    if not (isinstance(logits, TensorCore) and isinstance(targets, TensorCore)):
        tensors(name, logits=logits, targets=targets)
    ignore_index = integer(name, "ignore_index", ignore_index)
    label_smoothing = real(name, "label_smoothing", label_smoothing, 0.0, 1.0)
    z_loss = real(name, "z_loss", z_loss, 0.0)
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        choice(name, "reduction", reduction, REDUCTIONS)
    _check_weight(name, logits, weight)
    if targets.dtype.kind == "float" and targets.shape == logits.shape and logits.ndim:
        return _of_probabilities(logits, targets, weight, label_smoothing, z_loss, reduction)
    if logits.ndim < 1 or targets.shape != logits.shape[:-1]:
        raise ShapeError(
            f"cross_entropy: expected logits (..., V) and targets (...); received {logits.shape} and {targets.shape}."
        )
    if logits.ndim != 2:
        logits = logits.reshape(targets.size, logits.shape[-1])
    rows = targets if targets.ndim == 1 else targets.reshape(targets.size)
    try:
        if weight is None:
            loss = ops.cross_entropy(
                logits,
                rows,
                ignore_index=ignore_index,
                label_smoothing=label_smoothing,
                z_loss=z_loss,
                reduction=reduction,
            )
        else:
            loss = _weighted(logits, rows, weight, ignore_index, label_smoothing, z_loss, reduction)
    except IndexError as error:  # a kernel in C knows no errors of ours
        raise IndexingError(str(error)) from None
    return loss.reshape(targets.shape) if reduction == "none" and targets.ndim != 1 else loss


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of the logits ``x @ weight.T`` with classes, without storing all logits at once.

    A kernel written for it never stores them; where there is none, up to a GiB is stored and larger ones are computed
    chunk by chunk, twice (Wijmans et al. 2024).

    Args:
        x: (..., K).
        weight: (V, K), as of `Linear` without a bias.
        targets: (...) integers in [0, V) or ``ignore_index``.
        ignore_index: Target that does not count.
        label_smoothing: As in `cross_entropy`.
        z_loss: As in `cross_entropy`.
        reduction: As in `cross_entropy`.

    Returns:
        A scalar, or (...) for ``reduction="none"``; float32 where x and weight have 16 bits.

    Raises:
        ShapeError: the shapes do not fit.
        IndexingError: a target is not a class.
        DTypeError: something is no tensor, or the targets are no integers.
        ArgumentError: a setting is out of range.

    Example:
        >>> import spiral as sp
        >>> x, weight, targets = sp.zeros((2, 3)), sp.ones((5, 3)), sp.asarray([0, 4])
        >>> round(linear_cross_entropy(x, weight, targets).item(), 4)
        1.6094
    """
    name = "linear_cross_entropy"
    tensors(name, x=x, weight=weight, targets=targets)
    ignore_index = integer(name, "ignore_index", ignore_index)
    label_smoothing = real(name, "label_smoothing", label_smoothing, 0.0, 1.0)
    z_loss = real(name, "z_loss", z_loss, 0.0)
    choice(name, "reduction", reduction, REDUCTIONS)
    if x.ndim < 1 or targets.shape != x.shape[:-1]:
        raise ShapeError(
            f"linear_cross_entropy: expected x (..., K) and targets (...); received {x.shape} and {targets.shape}."
        )
    try:
        loss = ops.linear_cross_entropy(
            x if x.ndim == 2 else x.reshape(targets.size, x.shape[-1]),
            weight,
            targets if targets.ndim == 1 else targets.reshape(targets.size),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            reduction=reduction,
        )
    except IndexError as error:  # a kernel in C knows no errors of ours
        raise IndexingError(str(error)) from None
    return loss.reshape(targets.shape) if reduction == "none" and targets.ndim != 1 else loss


def _check_weight(name: str, scores: Tensor, weight: Tensor | None) -> None:
    if weight is None:
        return
    if not isinstance(weight, TensorCore):
        raise ArgumentError(
            f"{name}: weight must be a Tensor (V,) or None; received {kind_of(weight)}. "
            "ignore_index and what follows are given by name."
        )
    if scores.ndim and weight.shape != scores.shape[-1:]:
        raise ShapeError(f"{name}: weight must be {scores.shape[-1:]}, one per class; received {weight.shape}.")


def _weighted(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor,
    ignore_index: int,
    smoothing: float,
    z_loss: float,
    reduction: str,
) -> Tensor:
    """PyTorch's definition: (1 - s) w[y] nll + s / V sum_c w[c] (-log p[c]); the z-loss is weighted like the nll."""
    weight = weight.astype(logits.dtype, copy=False)
    each = {"ignore_index": ignore_index, "label_smoothing": 0.0, "reduction": "none"}
    counts = targets != ignore_index
    # rows of the fused kernel, which checks the targets; taking s * nll away again leaves the z-loss whole
    loss = ops.cross_entropy(logits, targets, z_loss=z_loss, **each)  # type: ignore[arg-type]
    of_target = ops.where(counts, weight[ops.where(counts, targets, 0)], 0.0)
    loss = loss * of_target
    if smoothing:
        nll = ops.cross_entropy(logits, targets, z_loss=0.0, **each)  # type: ignore[arg-type]
        spread = ops.log_softmax(logits) @ weight * (-smoothing / logits.shape[-1])
        loss = loss - nll * of_target * smoothing + ops.where(counts, spread, 0.0)
    if reduction == "mean":
        return ops.sum(loss) / ops.sum(of_target)
    return reduced("cross_entropy", loss, reduction)


def _of_probabilities(
    logits: Tensor, targets: Tensor, weight: Tensor | None, smoothing: float, z_loss: float, reduction: str
) -> Tensor:
    log_probs = ops.log_softmax(logits)
    if smoothing:
        targets = targets * (1.0 - smoothing) + smoothing / logits.shape[-1]
    terms = log_probs * targets
    loss = -ops.sum(terms if weight is None else terms * weight.astype(logits.dtype, copy=False), axis=-1)
    if z_loss:
        loss = loss + ops.square(logits[..., 0] - log_probs[..., 0]) * z_loss
    return reduced("cross_entropy", loss, reduction)


def nll_loss(
    log_probs: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability of the target.

    Args:
        log_probs: (..., V).
        targets: (...) integers in [0, V), or ``ignore_index``.
        weight: (V,) factor of each class.
        ignore_index: Target that does not count.
        reduction: ``"mean"`` over the targets that count, weighted by their classes, ``"sum"`` or ``"none"``.
    """
    tensors("nll_loss", log_probs=log_probs, targets=targets)
    ignore_index = integer("nll_loss", "ignore_index", ignore_index)
    choice("nll_loss", "reduction", reduction, REDUCTIONS)
    if targets.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"nll_loss: targets must be integers; received {targets.dtype.name}.")
    _check_weight("nll_loss", log_probs, weight)
    if log_probs.ndim < 1 or targets.shape != log_probs.shape[:-1]:
        raise ShapeError(
            f"nll_loss: expected log_probs (..., V) and targets (...); received {log_probs.shape} and {targets.shape}."
        )
    counts = targets != ignore_index
    classes = ops.where(counts, targets, 0)
    if (
        targets.size
        and not shapes_only()
        and (int(ops.min(classes)) < 0 or int(ops.max(classes)) >= log_probs.shape[-1])
    ):
        wrong = int(ops.min(classes)) if int(ops.min(classes)) < 0 else int(ops.max(classes))
        raise IndexingError(f"nll_loss: target {wrong} is not in [0, {log_probs.shape[-1]}).")
    rows = log_probs.reshape(targets.size, log_probs.shape[-1])
    loss = -rows[arange(targets.size), classes.reshape(targets.size)].reshape(targets.shape)
    factor = counts.astype(log_probs.dtype, copy=False)
    if weight is not None:
        factor = ops.where(counts, weight.astype(log_probs.dtype, copy=False)[classes], 0.0)
    loss = ops.where(counts, loss, 0.0) * factor
    if reduction == "mean":
        return ops.divide(ops.sum(loss), ops.sum(factor))
    return reduced("nll_loss", loss, reduction)

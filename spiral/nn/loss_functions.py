"""Losses as functions; `spiral.nn.functional` exports them."""

from __future__ import annotations

from spiral import ops
from spiral.creation import arange
from spiral.errors import ArgumentError, ShapeError
from spiral.tensor import Tensor


def _reduce(name: str, loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return ops.mean(loss)
    if reduction == "sum":
        return ops.sum(loss)
    if reduction == "none":
        return loss
    raise ArgumentError(f"{name}: reduction must be 'none', 'mean' or 'sum'; received {reduction!r}.")


def _same_shape(name: str, x: Tensor, target: Tensor) -> None:
    if x.shape != target.shape:
        raise ShapeError(f"{name}: target must have the input's shape {x.shape}; received {target.shape}.")


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of logits with class indices.

    Args:
        logits: (..., V); the classes are the last axis, also for more than two axes.
        targets: (...) integers in [0, V), or ``ignore_index``.
        ignore_index: Target that does not count.
        label_smoothing: Share of the target that is spread over all classes (Szegedy et al. 2016).
        z_loss: Factor of the squared log-sum-exp that is added (Chowdhery et al. 2022).
        reduction: ``"mean"`` over the targets that count, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or (...) for ``reduction="none"``.

    Raises:
        ShapeError: the shapes do not fit.
        IndexingError: a target is not a class.
    """
    if logits.ndim < 1 or targets.shape != logits.shape[:-1]:
        raise ShapeError(
            f"cross_entropy: expected logits (..., V) and targets (...); received {logits.shape} and {targets.shape}."
        )
    if logits.ndim != 2:
        logits = logits.reshape(targets.size, logits.shape[-1])
    loss = ops.cross_entropy(
        logits,
        targets if targets.ndim == 1 else targets.reshape(targets.size),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        reduction=reduction,
    )
    return loss.reshape(targets.shape) if reduction == "none" and targets.ndim != 1 else loss


def nll_loss(log_probs: Tensor, targets: Tensor, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """Minus the log-probability of the target: log_probs (..., V), targets (...) integers."""
    if log_probs.ndim < 1 or targets.shape != log_probs.shape[:-1]:
        raise ShapeError(
            f"nll_loss: expected log_probs (..., V) and targets (...); received {log_probs.shape} and {targets.shape}."
        )
    counts = targets != ignore_index
    classes = ops.where(counts, targets, 0).reshape(targets.size)
    rows = log_probs.reshape(targets.size, log_probs.shape[-1])
    loss = ops.where(counts, -rows[arange(targets.size), classes].reshape(targets.shape), 0.0)
    if reduction == "mean":
        return ops.divide(ops.sum(loss), ops.sum(counts.astype(log_probs.dtype, copy=False)))
    return _reduce("nll_loss", loss, reduction)


def mse_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(x - target)^2."""
    _same_shape("mse_loss", x, target)
    return _reduce("mse_loss", ops.square(x - target), reduction)


def l1_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|x - target|; the gradient where they are equal is 0."""
    _same_shape("l1_loss", x, target)
    return _reduce("l1_loss", ops.abs(x - target), reduction)


def huber_loss(x: Tensor, target: Tensor, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """d^2 / 2 for |d| <= delta, else delta * (|d| - delta / 2), where d = x - target (Huber 1964)."""
    _same_shape("huber_loss", x, target)
    if not delta > 0.0:
        raise ArgumentError(f"huber_loss: delta must be positive; received {delta}.")
    d = x - target
    size = ops.abs(d)
    loss = ops.where(size <= delta, ops.square(d) * 0.5, (size - 0.5 * delta) * delta)
    return _reduce("huber_loss", loss, reduction)


def binary_cross_entropy_with_logits(
    logits: Tensor, target: Tensor, pos_weight: Tensor | float | None = None, reduction: str = "mean"
) -> Tensor:
    """-(w y log sigmoid(x) + (1 - y) log sigmoid(-x)), finite for all logits.

    Args:
        logits: (...) x.
        target: (...) y, probabilities in [0, 1].
        pos_weight: w, broadcasts to the logits; 1 by default.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """
    name = "binary_cross_entropy_with_logits"
    _same_shape(name, logits, target)
    # softplus(-x) = max(-x, 0) + log1p(exp(-|x|)); max and |x| take the same branch at 0, so the gradient there is -1/2
    negative = logits < 0.0
    size = ops.where(negative, -logits, logits)
    softplus = ops.where(negative, size, 0.0) + ops.log1p(ops.exp(-size))
    weight = 1.0 if pos_weight is None else (pos_weight - 1.0) * target + 1.0
    return _reduce(name, (1.0 - target) * logits + softplus * weight, reduction)


def binary_cross_entropy(probs: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-(y log p + (1 - y) log(1 - p)), with logarithms of at least -100 as in PyTorch.

    Prefer `binary_cross_entropy_with_logits`, which keeps its precision near 0 and 1.
    """
    _same_shape("binary_cross_entropy", probs, target)
    loss = target * _log(probs) + (1.0 - target) * _log(1.0 - probs)
    return _reduce("binary_cross_entropy", -loss, reduction)


def _log(p: Tensor) -> Tensor:
    """log p, at least -100; where p is 0 the gradient is 0, not the NaN of 0 * inf."""
    positive = p > 0.0
    return ops.where(positive, ops.maximum(ops.log(ops.where(positive, p, 1.0)), -100.0), -100.0)


def kl_div(log_probs: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log target - log_probs), PyTorch's order of arguments; 0 where the target is 0.

    Args:
        log_probs: (...) logarithms of the model's probabilities.
        target: (...) probabilities, or their logarithms if ``log_target``.
        reduction: ``"batchmean"`` (the sum over the length of the first axis: the true divergence),
            ``"mean"``, ``"sum"`` or ``"none"``.
        log_target: Whether the target holds logarithms.
    """
    _same_shape("kl_div", log_probs, target)
    if log_target:
        loss = ops.exp(target) * (target - log_probs)
    else:
        positive = target > 0.0
        loss = ops.where(positive, target * (ops.log(ops.where(positive, target, 1.0)) - log_probs), 0.0)
    if reduction == "batchmean":
        return ops.multiply(ops.sum(loss), 1.0 / max(loss.shape[0] if loss.ndim else 1, 1))
    return _reduce("kl_div", loss, reduction)

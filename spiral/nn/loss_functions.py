"""Losses of numbers and probabilities as functions; `spiral.nn.functional` exports them."""

from __future__ import annotations

from spiral import ops
from spiral.dispatch import shapes_only
from spiral.errors import ArgumentError, ShapeError, received
from spiral.nn.arguments import choice, flag, real, tensors
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore

REDUCTIONS = ("none", "mean", "sum")


def reduced(name: str, loss: Tensor, reduction: str) -> Tensor:
    """The mean, the sum or the elements of a loss.

    Raises:
        ArgumentError: another reduction.
    """
    if not isinstance(reduction, str):
        choice(name, "reduction", reduction, REDUCTIONS)
    if reduction == "mean":
        return ops.mean(loss)
    if reduction == "sum":
        return ops.sum(loss)
    if reduction == "none":
        return loss
    raise ArgumentError(f"{name}: reduction must be 'none', 'mean' or 'sum'; received {received(reduction)}.")


def _same_shape(name: str, x: Tensor, target: Tensor) -> None:
    tensors(name, x=x, target=target)
    if x.shape != target.shape:
        raise ShapeError(f"{name}: target must have the input's shape {x.shape}; received {target.shape}.")


def mse_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(x - target)^2."""
    _same_shape("mse_loss", x, target)
    return reduced("mse_loss", ops.square(x - target), reduction)


def l1_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|x - target|; the gradient where they are equal is 0."""
    _same_shape("l1_loss", x, target)
    return reduced("l1_loss", ops.abs(x - target), reduction)


def smooth_l1_loss(x: Tensor, target: Tensor, beta: float = 1.0, reduction: str = "mean") -> Tensor:
    """d^2 / (2 beta) for |d| < beta, else |d| - beta / 2 (Girshick 2015); for beta 0 the absolute difference."""
    beta = real("smooth_l1_loss", "beta", beta, 0.0)
    if beta == 0.0:
        return l1_loss(x, target, reduction)
    _same_shape("smooth_l1_loss", x, target)
    return huber_loss(x, target, beta, reduction) * (1.0 / beta)


def huber_loss(x: Tensor, target: Tensor, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """d^2 / 2 for |d| <= delta, else delta * (|d| - delta / 2), where d = x - target (Huber 1964)."""
    _same_shape("huber_loss", x, target)
    delta = real("huber_loss", "delta", delta, 0.0, above=True)
    d = x - target
    size = ops.abs(d)
    loss = ops.where(size <= delta, ops.square(d) * 0.5, (size - 0.5 * delta) * delta)
    return reduced("huber_loss", loss, reduction)


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
    if pos_weight is not None and not isinstance(pos_weight, TensorCore):
        pos_weight = real(name, "pos_weight", pos_weight, 0.0)
    # softplus(-x) = max(-x, 0) + log1p(exp(-|x|)); max and |x| take the same branch at 0, so the gradient there is -1/2
    negative = logits < 0.0
    size = ops.where(negative, -logits, logits)
    softplus = ops.where(negative, size, 0.0) + ops.log1p(ops.exp(-size))
    weight = 1.0 if pos_weight is None else (pos_weight - 1.0) * target + 1.0
    return reduced(name, (1.0 - target) * logits + softplus * weight, reduction)


def binary_cross_entropy(probs: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-(y log p + (1 - y) log(1 - p)), with logarithms of at least -100 as in PyTorch.

    Prefer `binary_cross_entropy_with_logits`, which keeps its precision near 0 and 1.

    Raises:
        ArgumentError: a probability is not in [0, 1]. NaN passes, and gives NaN.
    """
    _same_shape("binary_cross_entropy", probs, target)
    if probs.size and not shapes_only():
        lowest, highest = float(ops.min(probs.detach())), float(ops.max(probs.detach()))
        if lowest < 0.0 or highest > 1.0:
            raise ArgumentError(
                "binary_cross_entropy: probs must be in [0, 1] (binary_cross_entropy_with_logits takes any number); "
                f"received {lowest if lowest < 0.0 else highest:g}."
            )
    loss = target * _log(probs) + (1.0 - target) * _log(1.0 - probs)
    return reduced("binary_cross_entropy", -loss, reduction)


def _log(p: Tensor) -> Tensor:
    """log p, at least -100; where p is 0 the gradient is 0, not the NaN of 0 * inf."""
    zero = p <= 0.0  # false for NaN, which stays NaN
    return ops.where(zero, -100.0, ops.maximum(ops.log(ops.where(zero, 1.0, p)), -100.0))


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
    if flag("kl_div", "log_target", log_target):
        loss = ops.exp(target) * (target - log_probs)
    else:
        positive = target > 0.0
        loss = ops.where(positive, target * (ops.log(ops.where(positive, target, 1.0)) - log_probs), 0.0)
    if reduction == "batchmean":
        return ops.multiply(ops.sum(loss), 1.0 / max(loss.shape[0] if loss.ndim else 1, 1))
    return reduced("kl_div", loss, reduction)

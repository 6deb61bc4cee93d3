"""Limiting gradients."""

from __future__ import annotations

from collections.abc import Iterable

from spiral import ops
from spiral.autograd import no_grad
from spiral.errors import ArgumentError, TrainingError
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


def _grads(params: Iterable[Tensor] | Tensor) -> list[Tensor]:
    params = [params] if isinstance(params, TensorCore) else params
    return [g for p in params if (g := p.grad) is not None]


def clip_grad_norm_(params: Iterable[Tensor] | Tensor, max_norm: float, error_if_nonfinite: bool = False) -> Tensor:
    """Scales all gradients together so that their Euclidean norm is at most ``max_norm``.

    Args:
        params: Tensors; those without a gradient do not count.
        max_norm: Largest norm; infinity only measures.
        error_if_nonfinite: Whether a norm that is not finite is an error.

    Returns:
        The norm before scaling, a scalar.

    Raises:
        TrainingError: the norm is not finite and ``error_if_nonfinite``.
    """
    if not max_norm >= 0.0:
        raise ArgumentError(f"clip_grad_norm_: max_norm must be at least 0; received {max_norm}.")
    grads = _grads(params)
    with no_grad():
        norm = ops.grad_norm(grads)
        value = float(norm)
        if error_if_nonfinite and not abs(value) < float("inf"):
            raise TrainingError(f"clip_grad_norm_: the norm of {len(grads)} gradients is {value}.")
        factor = max_norm / (value + 1e-6)
        if factor < 1.0 or factor != factor:
            ops.scale_(grads, factor=factor)
    return norm


def clip_grad_value_(params: Iterable[Tensor] | Tensor, clip_value: float) -> None:
    """Limits every element of every gradient to [-clip_value, clip_value]."""
    if not clip_value >= 0.0:
        raise ArgumentError(f"clip_grad_value_: clip_value must be at least 0; received {clip_value}.")
    with no_grad():
        for grad in _grads(params):
            grad.copy_(ops.clip(grad, -clip_value, clip_value))

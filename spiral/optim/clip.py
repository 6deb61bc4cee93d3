"""Limiting gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

from spiral import ops
from spiral.autograd import no_grad
from spiral.creation import zeros
from spiral.dtype import float64
from spiral.errors import ArgumentError, TrainingError
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


def _with_grads(params: Iterable[Tensor] | Tensor) -> list[Tensor]:
    given = [params] if isinstance(params, TensorCore) else params
    return [p for p in given if p.grad is not None]


def scale_grads(params: Iterable[Tensor] | Tensor, factor: float) -> None:
    """Multiplies every gradient by a factor.

    Each gets a new value: two parameters may share the memory of one gradient (those of a sum do), the
    caller may hold it, and it may be a broadcast view, so multiplying in place could do so twice.
    """
    with no_grad():
        for p in _with_grads(params):
            p.grad = cast(Tensor, p.grad) * factor


def clip_grad_norm_(
    params: Iterable[Tensor] | Tensor, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scales all gradients together so that their norm is at most ``max_norm``.

    Args:
        params: Tensors; those without a gradient do not count.
        max_norm: Largest norm; infinity only measures.
        norm_type: 2 for the Euclidean norm, infinity for the largest magnitude, or another positive p.
        error_if_nonfinite: Whether a norm that is not finite is an error.

    Returns:
        The norm before scaling, a float64 scalar.

    Raises:
        TrainingError: the norm is not finite and ``error_if_nonfinite``.
    """
    if not max_norm >= 0.0:
        raise ArgumentError(f"clip_grad_norm_: max_norm must be at least 0; received {max_norm}.")
    if not norm_type > 0.0:
        raise ArgumentError(f"clip_grad_norm_: norm_type must be positive; received {norm_type}.")
    found = _with_grads(params)
    with no_grad():
        norm = _norm([cast(Tensor, p.grad) for p in found], float(norm_type))
    value = float(norm)
    if error_if_nonfinite and not math.isfinite(value):
        raise TrainingError(f"clip_grad_norm_: the norm of {len(found)} gradients is {value}.")
    factor = max_norm / (value + 1e-6)
    if factor < 1.0 or factor != factor:
        scale_grads(found, factor)
    return norm


def _norm(grads: list[Tensor], p: float) -> Tensor:
    if not grads:
        return zeros((), dtype=float64)
    if p == 2.0:
        return ops.grad_norm(grads)
    sizes = [ops.abs(g).astype(float64, copy=False) for g in grads if g.size]
    if not sizes:
        return zeros((), dtype=float64)
    if math.isinf(p):
        return ops.max(ops.stack([ops.max(s) for s in sizes]))
    return ops.sum(ops.stack([ops.sum(s**p) for s in sizes])) ** (1.0 / p)


def clip_grad_value_(params: Iterable[Tensor] | Tensor, clip_value: float) -> None:
    """Limits every element of every gradient to [-clip_value, clip_value]."""
    if not clip_value >= 0.0:
        raise ArgumentError(f"clip_grad_value_: clip_value must be at least 0; received {clip_value}.")
    with no_grad():
        for p in _with_grads(params):
            p.grad = ops.clip(cast(Tensor, p.grad), -clip_value, clip_value)

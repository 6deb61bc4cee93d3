"""Limiting gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

from spiral import ops
from spiral.autograd import no_grad
from spiral.creation import zeros
from spiral.dtype import float64
from spiral.errors import TrainingError
from spiral.nn.arguments import real, tensor_list
from spiral.tensor import Tensor


def _with_grads(owner: str, params: Iterable[Tensor] | Tensor) -> list[Tensor]:
    return [p for p in tensor_list(owner, "params", params) if p.grad is not None]


def scale_grads(params: Iterable[Tensor] | Tensor, factor: float) -> None:
    """Multiplies every gradient by a factor.

    Each gets a new value: two parameters may share the memory of one gradient (those of a sum do), the
    caller may hold it, and it may be a broadcast view, so multiplying in place could do so twice.
    """
    factor = real("scale_grads", "factor", factor)
    found = _with_grads("scale_grads", params)
    _scale(found, factor)


def _scale(params: list[Tensor], factor: float) -> None:
    with no_grad():
        for p in params:
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
    max_norm = real("clip_grad_norm_", "max_norm", max_norm, 0.0, infinite=True)
    norm_type = real("clip_grad_norm_", "norm_type", norm_type, 0.0, above=True, infinite=True)
    found = _with_grads("clip_grad_norm_", params)
    with no_grad():
        norm = _norm([cast(Tensor, p.grad) for p in found], float(norm_type))
    value = float(norm)
    if error_if_nonfinite and not math.isfinite(value):
        raise TrainingError(f"clip_grad_norm_: the norm of {len(found)} gradients is {value}.")
    factor = max_norm / (value + 1e-6)
    if factor < 1.0 or factor != factor:
        _scale(found, factor)
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
    clip_value = real("clip_grad_value_", "clip_value", clip_value, 0.0, infinite=True)
    with no_grad():
        for p in _with_grads("clip_grad_value_", params):
            p.grad = ops.clip(cast(Tensor, p.grad), -clip_value, clip_value)

"""Activations made of ops; `spiral.nn.functional` exports them beside those that are ops."""

from __future__ import annotations

from spiral import ops
from spiral.nn.arguments import real, tensors
from spiral.tensor import Tensor


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where positive, else negative_slope * x (Maas et al. 2013)."""
    tensors("leaky_relu", x=x)
    negative_slope = real("leaky_relu", "negative_slope", negative_slope)
    return ops.where(x > 0.0, x, x * negative_slope)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where positive, else alpha * (exp(x) - 1) (Clevert et al. 2016)."""
    tensors("elu", x=x)
    alpha = real("elu", "alpha", alpha)
    positive = x > 0.0
    # the branch that is not taken must stay finite: 0 * inf would give its gradient NaN
    return ops.where(positive, x, ops.expm1(ops.where(positive, 0.0, x)) * alpha)


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, finite for all x."""
    tensors("softplus", x=x)
    beta = real("softplus", "beta", beta, 0.0, above=True)
    scaled = x * beta
    negative = scaled < 0.0
    size = ops.where(negative, -scaled, scaled)  # max and |x| take the same branch at 0: the gradient there is 1/2
    return (ops.where(negative, 0.0, scaled) + ops.log1p(ops.exp(-size))) * (1.0 / beta)

"""A linear layer with the activation and the residual that follow it, as one op."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.errors import ArgumentError, ShapeError, received
from spiral.op import F, op
from spiral.ops.activation import Gelu, Relu, Silu
from spiral.ops.linalg import Linear
from spiral.ops.shapes import like, need_float, need_shape, result_dtype

_ACTIVATIONS = ("none", "relu", "gelu", "gelu_tanh", "silu")


def _slope(g: Any, z: Any, activation: str) -> Any:
    """g times the activation's derivative at z, in ops."""
    if activation in ("gelu", "gelu_tanh"):
        return F.gelu_grad(g, z, approximate="tanh" if activation == "gelu_tanh" else "none")
    if activation == "none":
        return g
    return F.relu_grad(g, z) if activation == "relu" else F.silu_grad(g, z)


@op("linear_activation(x, weight, bias?, residual?, *, activation: str = 'none') -> y, z:hidden")
class LinearActivation:
    """act(x @ weight.T + bias) + residual: weight (out, in), x (..., in), residual (..., out).

    The activation is none, relu, gelu, gelu_tanh or silu. Where there is one, its argument is kept for the
    backward: computing it again would cost the product a second time.
    """

    fused = True

    @staticmethod
    def meta(x: Any, weight: Any, bias: Any, residual: Any, activation: str) -> tuple[Spec, Spec]:
        if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
            raise ShapeError(
                f"linear_activation: weight must be (out, in) with in = "
                f"{x.shape[-1] if x.ndim else 'the last axis of x'}, the last axis of x {tuple(x.shape)}; received "
                f"{tuple(weight.shape)}."
            )
        need_float("linear_activation", x=x, weight=weight, bias=bias, residual=residual)
        need_shape("linear_activation", "bias", bias, (weight.shape[0],), "the first axis of weight")
        shape = (*x.shape[:-1], weight.shape[0])
        need_shape("linear_activation", "residual", residual, shape, "x's with the first axis of weight as its last")
        if activation not in _ACTIVATIONS:
            raise ArgumentError(
                f"linear_activation: activation must be one of {_ACTIVATIONS}; received {received(activation)}."
            )
        dtype = result_dtype(x, weight)
        return Spec(shape, dtype), Spec(shape if activation != "none" else (0,), dtype)

    @staticmethod
    def oracle(x: Any, weight: Any, bias: Any, residual: Any, activation: str) -> Any:
        z = Linear.oracle(x, weight, bias, "none")
        if activation in ("gelu", "gelu_tanh"):
            y = Gelu.oracle(z, "tanh" if activation == "gelu_tanh" else "none")
        else:
            y = z if activation == "none" else (Relu if activation == "relu" else Silu).oracle(z)
        return y if residual is None else y + residual, z if activation != "none" else np.zeros(0, z.dtype)

    @staticmethod
    def decompose(x: Any, weight: Any, bias: Any, residual: Any, activation: str) -> Any:
        LinearActivation.meta(x, weight, bias, residual, activation)  # the sum below would broadcast a residual
        if activation in ("none", "relu"):
            y = F.linear(x, weight, bias, activation=activation)
        elif activation == "silu":
            y = F.silu(F.linear(x, weight, bias))
        else:
            y = F.gelu(F.linear(x, weight, bias), approximate="tanh" if activation == "gelu_tanh" else "none")
        if residual is None:
            return y
        total = y + residual
        return total if total.dtype is y.dtype else F.astype(total, y.dtype)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, weight: Any, residual_spec: Any, z: Any, activation: str) -> Any:
        dz = _slope(g, z, activation) if any(need[:3]) else g
        dx = dw = db = None
        if any(need[:3]):
            dx, dw, db = F.linear_grad(dz, x, weight, need_x=need[0], need_weight=need[1], need_bias=need[2])
        dr = like(g, residual_spec) if need[3] else None
        return dx if need[0] else None, dw if need[1] else None, db if need[2] else None, dr

    @staticmethod
    def samples(s: Any) -> Any:
        for activation in _ACTIVATIONS:
            yield s.normal(2, 5, 7), s.normal(3, 7), s.normal(3), s.normal(2, 5, 3), activation
        yield s.normal(65, 33), s.normal(66, 33), None, s.normal(65, 66), "none"
        yield s.normal(65, 33), s.normal(65, 33), s.normal(65), None, "gelu"
        yield s.normal(7, 4).T, s.normal(7, 6).T, None, s.normal(6, 4).T, "silu"
        yield s.normal(0, 4), s.normal(2, 4), s.normal(2), s.normal(0, 2), "relu"
        yield s.normal(3, 0), s.normal(2, 0), s.normal(2), s.normal(3, 2), "gelu_tanh"

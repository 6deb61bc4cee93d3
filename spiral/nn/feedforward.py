"""Gated feed-forward layers of transformers (Shazeer 2020)."""

from __future__ import annotations

from typing import Annotated

from spiral import ops
from spiral.nn.arguments import Size, choice, flag, integer
from spiral.nn.linear import Linear
from spiral.nn.module import Module
from spiral.schema_values import OneOf
from spiral.tensor import Tensor


class _Gated(Module):
    """Three projections under the names of Hugging Face's Llama.

    Args:
        d_model: Length of x's last axis.
        hidden_dim: Length inside.
        bias: Whether the projections have biases.
    """

    def __init__(self, d_model: Size, hidden_dim: Size, bias: bool = False) -> None:
        super().__init__()
        name = type(self).__name__
        d_model, hidden_dim = integer(name, "d_model", d_model, 1), integer(name, "hidden_dim", hidden_dim, 1)
        bias = flag(name, "bias", bias)
        self.gate_proj = Linear(d_model, hidden_dim, bias)
        self.up_proj = Linear(d_model, hidden_dim, bias)
        self.down_proj = Linear(hidden_dim, d_model, bias)


class SwiGLU(_Gated):
    __doc__ = f"down(silu(gate(x)) * up(x)). {_Gated.__doc__}"

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_model) to the same shape."""
        return self.down_proj(ops.swiglu(self.gate_proj(x), self.up_proj(x)))  # type: ignore[no-any-return]


class GeGLU(_Gated):
    """down(gelu(gate(x)) * up(x)); arguments as in `SwiGLU`, and which form of gelu."""

    def __init__(
        self,
        d_model: Size,
        hidden_dim: Size,
        bias: bool = False,
        approximate: Annotated[str, OneOf("none", "tanh")] = "none",
    ) -> None:
        super().__init__(d_model, hidden_dim, bias)
        self.approximate = choice("GeGLU", "approximate", approximate, ("none", "tanh"))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_model) to the same shape."""
        gated = ops.geglu(self.gate_proj(x), self.up_proj(x), approximate=self.approximate)
        return self.down_proj(gated)  # type: ignore[no-any-return]

"""Dropout."""

from __future__ import annotations

from spiral.nn import functional
from spiral.nn.arguments import Probability, real
from spiral.nn.module import Module
from spiral.tensor import Tensor


class Dropout(Module):
    """In training, zeroes elements with probability p and scales the rest by 1 / (1 - p) (Srivastava et al. 2014).

    The mask comes from `spiral.random`, so the same seed gives the same mask on every backend.
    """

    def __init__(self, p: Probability = 0.5) -> None:
        super().__init__()
        self.p = real("Dropout", "p", p, 0.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"

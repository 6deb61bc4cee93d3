"""Activation functions, Identity and Flatten as modules."""

from __future__ import annotations

from typing import Annotated

from spiral import ops
from spiral.nn import functional
from spiral.nn.arguments import Positive, choice, integer, real, tensors
from spiral.nn.module import Module
from spiral.schema_values import OneOf
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class GELU(Module):
    """x times the normal distribution function of x (Hendrycks & Gimpel 2016).

    Args:
        approximate: ``"none"`` for the exact form, ``"tanh"`` for GPT-2's.
    """

    def __init__(self, approximate: Annotated[str, OneOf("none", "tanh")] = "none") -> None:
        super().__init__()
        self.approximate = choice("GELU", "approximate", approximate, ("none", "tanh"))

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x * sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.silu(x)


class LeakyReLU(Module):
    """x where positive, else negative_slope * x (Maas et al. 2013)."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = real("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where positive, else alpha * (exp(x) - 1) (Clevert et al. 2016)."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = real("ELU", "alpha", alpha)

    def forward(self, x: Tensor) -> Tensor:
        return functional.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softplus(Module):
    """log(1 + exp(beta x)) / beta."""

    def __init__(self, beta: Positive = 1.0) -> None:
        super().__init__()
        self.beta = real("Softplus", "beta", beta, 0.0, above=True)

    def forward(self, x: Tensor) -> Tensor:
        return functional.softplus(x, self.beta)

    def extra_repr(self) -> str:
        return f"beta={self.beta}"


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class Softmax(Module):
    """exp(x) over its sum along an axis."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = integer(type(self).__name__, "axis", axis)

    def forward(self, x: Tensor) -> Tensor:
        return ops.softmax(x, axis=self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Softmax):
    """x - log(sum(exp(x))) along an axis."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.log_softmax(x, axis=self.axis)


class Identity(Module):
    """x, unchanged; the arguments of the layer that it stands for are ignored."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Flatten(Module):
    """Axes ``start`` to ``end`` merged into one; by default all but the batch."""

    def __init__(self, start: int = 1, end: int = -1) -> None:
        super().__init__()
        self.start = integer("Flatten", "start", start)
        self.end = integer("Flatten", "end", end)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, TensorCore):
            tensors("Flatten", x=x)
        return x.flatten(self.start, self.end)

    def extra_repr(self) -> str:
        return f"start={self.start}, end={self.end}"

"""Trigonometric and hyperbolic functions and their inverses; angles in radians."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral.op import F, op
from spiral.ops.pointwise import Unary


@op("sin(x) -> y")
class Sin(Unary):
    """Sine."""

    oracle = staticmethod(np.sin)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g * F.cos(x),)


@op("cos(x) -> y")
class Cos(Unary):
    """Cosine."""

    oracle = staticmethod(np.cos)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (-g * F.sin(x),)


@op("tan(x) -> y")
class Tan(Unary):
    """Tangent."""

    oracle = staticmethod(np.tan)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * (y * y + 1.0),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.uniform(5, 7, low=-1.2, high=1.2),)
        yield (s.array([math.inf, math.nan, 0.0]),)


@op("tanh(x) -> y")
class Tanh(Unary):
    """Hyperbolic tangent."""

    oracle = staticmethod(np.tanh)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * (1.0 - y * y),)

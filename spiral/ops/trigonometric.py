"""Trigonometric and hyperbolic functions and their inverses; angles in radians."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral.op import F, op
from spiral.ops.pointwise import EDGE, BinaryFloat, Unary
from spiral.ops.shapes import like


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


class UnitDomain(Unary):
    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.uniform(5, 7, low=-0.9, high=0.9),)
        yield (s.array(EDGE),)


class AboveOne(Unary):
    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.uniform(5, 7, low=1.1, high=4.0),)
        yield (s.array(EDGE),)


@op("acos(x) -> y")
class Acos(UnitDomain):
    """Inverse cosine, in [0, pi]."""

    oracle = staticmethod(np.arccos)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (-g / F.sqrt(1.0 - x * x),)


@op("asin(x) -> y")
class Asin(UnitDomain):
    """Inverse sine, in [-pi/2, pi/2]."""

    oracle = staticmethod(np.arcsin)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / F.sqrt(1.0 - x * x),)


@op("atan(x) -> y")
class Atan(Unary):
    """Inverse tangent, in [-pi/2, pi/2]."""

    oracle = staticmethod(np.arctan)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / (x * x + 1.0),)


@op("sinh(x) -> y")
class Sinh(Unary):
    """Hyperbolic sine."""

    oracle = staticmethod(np.sinh)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g * F.cosh(x),)


@op("cosh(x) -> y")
class Cosh(Unary):
    """Hyperbolic cosine."""

    oracle = staticmethod(np.cosh)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g * F.sinh(x),)


@op("asinh(x) -> y")
class Asinh(Unary):
    """Inverse hyperbolic sine."""

    oracle = staticmethod(np.arcsinh)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / F.sqrt(x * x + 1.0),)


@op("acosh(x) -> y")
class Acosh(AboveOne):
    """Inverse hyperbolic cosine, at least 0."""

    oracle = staticmethod(np.arccosh)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / F.sqrt(x * x - 1.0),)


@op("atanh(x) -> y")
class Atanh(UnitDomain):
    """Inverse hyperbolic tangent."""

    oracle = staticmethod(np.arctanh)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / (1.0 - x * x),)


@op("atan2(x, y) -> z")
class Atan2(BinaryFloat):
    """Angle of the point (y, x): the inverse tangent of x / y in the quadrant of the signs, in [-pi, pi]."""

    oracle = staticmethod(np.arctan2)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        g = g / (x * x + y * y)
        return like(g * y, x) if need[0] else None, like(g * -x, y) if need[1] else None

"""Exponentials, logarithms, roots, the error function."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral.op import F, op
from spiral.ops.pointwise import BinaryFloat, PositiveDomain, Unary
from spiral.ops.shapes import like


@op("exp(x) -> y")
class Exp(Unary):
    """e to the x."""

    oracle = staticmethod(np.exp)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * y,)


@op("expm1(x) -> y")
class Expm1(Unary):
    """exp(x) - 1, exact near 0."""

    oracle = staticmethod(np.expm1)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * (y + 1.0),)


@op("log(x) -> y")
class Log(PositiveDomain):
    """Natural logarithm."""

    oracle = staticmethod(np.log)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / x,)


@op("log1p(x) -> y")
class Log1p(PositiveDomain):
    """log(1 + x), exact near 0."""

    oracle = staticmethod(np.log1p)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / (x + 1.0),)


@op("log2(x) -> y")
class Log2(PositiveDomain):
    """Logarithm to base 2."""

    oracle = staticmethod(np.log2)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / (x * math.log(2.0)),)


@op("log10(x) -> y")
class Log10(PositiveDomain):
    """Logarithm to base 10."""

    oracle = staticmethod(np.log10)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / (x * math.log(10.0)),)


@op("sqrt(x) -> y")
class Sqrt(PositiveDomain):
    """Square root."""

    oracle = staticmethod(np.sqrt)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * 0.5 / y,)


@op("rsqrt(x) -> y")
class Rsqrt(PositiveDomain):
    """1 / sqrt(x)."""

    @staticmethod
    def oracle(x: Any) -> Any:
        return 1.0 / np.sqrt(x)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        return (g * -0.5 * y / x,)


@op("logaddexp(x, y) -> z")
class LogAddExp(BinaryFloat):
    """log(exp(x) + exp(y)) without overflow."""

    oracle = staticmethod(np.logaddexp)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any, z: Any) -> Any:
        return like(g * F.exp(x - z), x) if need[0] else None, like(g * F.exp(y - z), y) if need[1] else None


@op("hypot(x, y) -> z")
class Hypot(BinaryFloat):
    """sqrt(x * x + y * y) without overflow."""

    oracle = staticmethod(np.hypot)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any, z: Any) -> Any:
        return like(g * x / z, x) if need[0] else None, like(g * y / z, y) if need[1] else None


@op("erf(x) -> y")
class Erf(Unary):
    """Error function."""

    @staticmethod
    def oracle(x: Any) -> Any:
        return np.vectorize(math.erf, otypes=[np.float64])(x)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g * (2.0 / math.sqrt(math.pi)) * F.exp(-(x * x)),)

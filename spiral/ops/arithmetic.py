"""Arithmetic: sums, products, quotients, powers, extremes, signs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.dtype import float32, float64
from spiral.errors import DTypeError
from spiral.op import F, op
from spiral.ops.pointwise import Binary, BinaryFloat, Keep, PositiveDomain, Step
from spiral.ops.shapes import broadcast, is_number, like, result_dtype


@op("add(x, y) -> z")
class Add(Binary):
    """Sum of two operands."""

    oracle = staticmethod(np.add)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, y_spec: Any) -> Any:
        return (like(g, x_spec) if need[0] else None, like(g, y_spec) if need[1] else None)


@op("subtract(x, y) -> z")
class Subtract(Binary):
    """Difference of two operands."""

    @staticmethod
    def oracle(x: Any, y: Any) -> Any:
        return np.subtract(x, y)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, y_spec: Any) -> Any:
        return (like(g, x_spec) if need[0] else None, like(-g, y_spec) if need[1] else None)


@op("multiply(x, y) -> z")
class Multiply(Binary):
    """Product of two operands."""

    oracle = staticmethod(np.multiply)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        return (like(g * y, x) if need[0] else None, like(g * x, y) if need[1] else None)


@op("divide(x, y) -> z")
class Divide(BinaryFloat):
    """Quotient; integers are divided as floats."""

    oracle = staticmethod(np.divide)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, y: Any, z: Any) -> Any:
        return (like(g / y, x_spec) if need[0] else None, like(-g * z / y, y) if need[1] else None)


@op("floor_divide(x, y) -> z")
class FloorDivide(Step):
    """Quotient rounded towards minus infinity: floor(x / y) also for infinite operands, as the standard prefers."""

    @staticmethod
    def oracle(x: Any, y: Any) -> Any:
        z = np.floor_divide(x, y)
        if z.dtype.kind != "f":
            return z
        # Python and NumPy say inf // 1 is NaN and -1 // inf is -1, so that (x // y) * y + x % y is x
        return np.where(np.isinf(x) | np.isinf(y), np.floor(np.divide(x, y)), z)


@op("remainder(x, y) -> z")
class Remainder(Binary):
    """x - floor(x / y) * y; has the sign of the divisor."""

    oracle = staticmethod(np.remainder)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        return (like(g, x) if need[0] else None, like(-g * F.floor(x / y), y) if need[1] else None)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.uniform(7, low=4.5, high=5.0)
        yield s.normal(5, 7, scale=3.0), 2.5


@op("pow(x, y) -> z")
class Pow(Binary):
    """x to the power y."""

    @staticmethod
    def oracle(x: Any, y: Any) -> Any:
        z = np.power(x, y)
        if np.ndim(y) == 0 and y == 0.5:  # NumPy then takes the root, which is -0 at -0 and NaN at -inf: 0 and inf
            return np.where(np.equal(x, -math.inf), math.inf, z + 0.0)
        return z

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any, z: Any) -> Any:
        gx = like(g * y * F.pow(x, y - 1), x) if need[0] else None
        if not need[1]:
            return gx, None
        if is_number(x):
            return gx, like(g * z * (math.log(x) if x > 0 else math.nan), y)
        # x^y log x, which is 0 at x = 0 (y > 0)
        return gx, like(g * F.where(x == 0, 0.0, z * F.log(x)), y)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.uniform(5, 7, low=0.1, high=2.0), s.normal(7)
        yield s.normal(6), 2.0
        yield s.normal(6), 3
        yield s.uniform(6, low=0.1, high=2.0), -0.5
        yield s.uniform(6, low=0.1, high=2.0), 0.5
        yield 2.0, s.normal(4)


@op("maximum(x, y) -> z")
class Maximum(Binary):
    """The larger operand; NaN wins. Equal operands share the gradient."""

    oracle = staticmethod(np.maximum)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        w = F.astype(x > y, g.dtype) + F.astype(x == y, g.dtype) * 0.5
        return (like(g * w, x) if need[0] else None, like(g * (1.0 - w), y) if need[1] else None)


@op("minimum(x, y) -> z")
class Minimum(Binary):
    """The smaller operand; NaN wins. Equal operands share the gradient."""

    oracle = staticmethod(np.minimum)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        w = F.astype(x < y, g.dtype) + F.astype(x == y, g.dtype) * 0.5
        return (like(g * w, x) if need[0] else None, like(g * (1.0 - w), y) if need[1] else None)


@op("negative(x) -> y")
class Negative(Keep):
    """-x."""

    oracle = staticmethod(np.negative)

    @staticmethod
    def vjp(need: Any, g: Any) -> Any:
        return (-g,)


@op("positive(x) -> y")
class Positive(Keep):
    """+x: the same values."""

    view = True

    @staticmethod
    def oracle(x: Any) -> Any:
        return x

    @staticmethod
    def vjp(need: Any, g: Any) -> Any:
        return (g,)


@op("identity(x) -> y")
class Identity(Keep):
    """x itself, as a new node of the graph."""

    view = True

    @staticmethod
    def oracle(x: Any) -> Any:
        return x

    @staticmethod
    def vjp(need: Any, g: Any) -> Any:
        return (g,)


@op("abs(x) -> y")
class Abs(Keep):
    """Magnitude; the gradient at 0 is 0."""

    oracle = staticmethod(np.abs)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g * F.sign(x),)


@op("copysign(x, y) -> z")
class CopySign(BinaryFloat):
    """The magnitude of x with the sign of y; zeros and NaN have signs too."""

    oracle = staticmethod(np.copysign)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        if not need[0]:
            return None, None
        side = math.copysign(1.0, y) if is_number(y) else F.copysign(1.0, y)
        return like(g * F.copysign(1.0, x) * side, x), None


@op("nextafter(x, y) -> z")
class NextAfter(Step):
    """The number next to x towards y, in float32 or float64."""

    @staticmethod
    def meta(x: Any, y: Any) -> Spec:
        d = result_dtype(x, y)
        if d not in (float32, float64):
            raise DTypeError(f"nextafter: expected float32 or float64; received {d.name}.")
        return Spec(broadcast("nextafter", x, y), d)

    oracle = staticmethod(np.nextafter)

    @staticmethod
    def samples(s: Any) -> Any:
        # distances of one unit in the last place are below every tolerance; their exact bits are tested apart
        yield s.array([1.0, 2.0, -3.0]), s.array([2.0, -2.0, -3.0])


@op("square(x) -> y")
class Square(Keep):
    """x * x."""

    oracle = staticmethod(np.square)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g * (x * 2.0),)


@op("reciprocal(x) -> y")
class Reciprocal(PositiveDomain):
    """1 / x."""

    @staticmethod
    def oracle(x: Any) -> Any:
        return 1.0 / x

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (-g * y * y,)

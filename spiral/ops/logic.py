"""Truth values and bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.errors import DTypeError
from spiral.op import op
from spiral.ops.pointwise import Binary, Compare, Predicate, StepUnary
from spiral.ops.shapes import broadcast, result_dtype


@op("logical_not(x) -> y")
class LogicalNot(Predicate):
    """Whether x is zero."""

    oracle = staticmethod(np.logical_not)


class Truth(Compare):
    """Numbers count as true where they are not zero."""

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.booleans(4, 5), s.booleans(5)
        yield s.integers(-1, 2, 4, 5), s.integers(0, 2, 4, 5)
        yield s.booleans(4), True


@op("logical_and(x, y) -> z")
class LogicalAnd(Truth):
    """Whether both are true."""

    oracle = staticmethod(np.logical_and)


@op("logical_or(x, y) -> z")
class LogicalOr(Truth):
    """Whether at least one is true."""

    oracle = staticmethod(np.logical_or)


@op("logical_xor(x, y) -> z")
class LogicalXor(Truth):
    """Whether exactly one is true."""

    oracle = staticmethod(np.logical_xor)


class Bits(Binary):
    nondifferentiable = True

    @staticmethod
    def meta(x: Any, y: Any) -> Spec:
        d = result_dtype(x, y)
        if d.kind == "float":
            raise DTypeError(f"bitwise: expected bool or integer operands; received {d.name}.")
        return Spec(broadcast("bitwise", x, y), d)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.integers(-9, 9, 4, 5), s.integers(0, 5, 5)


@op("bitwise_and(x, y) -> z")
class BitwiseAnd(Bits):
    """Bits set in both."""

    oracle = staticmethod(np.bitwise_and)


@op("bitwise_or(x, y) -> z")
class BitwiseOr(Bits):
    """Bits set in either."""

    oracle = staticmethod(np.bitwise_or)


@op("bitwise_xor(x, y) -> z")
class BitwiseXor(Bits):
    """Bits set in exactly one."""

    oracle = staticmethod(np.bitwise_xor)


@op("bitwise_invert(x) -> y")
class BitwiseInvert(StepUnary):
    """Every bit turned; for bool, the other truth value."""

    @staticmethod
    def meta(x: Any) -> Spec:
        if x.dtype.kind == "float":
            raise DTypeError(f"bitwise_invert: expected bool or integers; received {x.dtype.name}.")
        return Spec(tuple(x.shape), x.dtype)

    oracle = staticmethod(np.invert)

    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.integers(-9, 9, 4, 5),)
        yield (s.booleans(4, 5),)


@op("bitwise_left_shift(x, y) -> z")
class BitwiseLeftShift(Bits):
    """x shifted left by y bits."""

    oracle = staticmethod(np.left_shift)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.integers(0, 9, 4, 5), s.integers(0, 5, 5)


@op("bitwise_right_shift(x, y) -> z")
class BitwiseRightShift(Bits):
    """x shifted right by y bits, keeping the sign."""

    oracle = staticmethod(np.right_shift)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.integers(-90, 90, 4, 5), s.integers(0, 5, 5)

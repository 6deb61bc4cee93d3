"""Comparisons, tests of one value, and the choice between two."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.op import F, op
from spiral.ops.pointwise import Compare, Predicate
from spiral.ops.shapes import broadcast, like, result_dtype


@op("equal(x, y) -> z")
class Equal(Compare):
    """x == y, element by element."""

    oracle = staticmethod(np.equal)


@op("not_equal(x, y) -> z")
class NotEqual(Compare):
    """x != y, element by element."""

    oracle = staticmethod(np.not_equal)


@op("less(x, y) -> z")
class Less(Compare):
    """x < y, element by element."""

    oracle = staticmethod(np.less)


@op("less_equal(x, y) -> z")
class LessEqual(Compare):
    """x <= y, element by element."""

    oracle = staticmethod(np.less_equal)


@op("greater(x, y) -> z")
class Greater(Compare):
    """x > y, element by element."""

    oracle = staticmethod(np.greater)


@op("greater_equal(x, y) -> z")
class GreaterEqual(Compare):
    """x >= y, element by element."""

    oracle = staticmethod(np.greater_equal)


@op("isnan(x) -> y")
class IsNaN(Predicate):
    """Whether x is NaN."""

    oracle = staticmethod(np.isnan)


@op("isinf(x) -> y")
class IsInf(Predicate):
    """Whether x is infinite."""

    oracle = staticmethod(np.isinf)


@op("isfinite(x) -> y")
class IsFinite(Predicate):
    """Whether x is finite."""

    oracle = staticmethod(np.isfinite)


@op("signbit(x) -> y")
class SignBit(Predicate):
    """Whether the sign bit is set: also for -0 and negative NaN."""

    oracle = staticmethod(np.signbit)


@op("where(condition, x, y) -> z")
class Where:
    """x where the condition holds, else y."""

    scalars = True

    @staticmethod
    def meta(condition: Any, x: Any, y: Any) -> Spec:
        return Spec(broadcast("where", condition, x, y), result_dtype(x, y))

    oracle = staticmethod(np.where)

    @staticmethod
    def vjp(need: Any, g: Any, condition: Any, x_spec: Any, y_spec: Any) -> Any:
        gx = like(F.where(condition, g, 0.0), x_spec) if need[1] else None
        gy = like(F.where(condition, 0.0, g), y_spec) if need[2] else None
        return None, gx, gy

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.booleans(4, 5), s.normal(4, 5), s.normal(5)
        yield s.booleans(3), s.normal(2, 3), 0.0

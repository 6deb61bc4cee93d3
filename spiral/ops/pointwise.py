"""What elementwise ops share: operands, result dtypes and the samples that every one must survive."""

from __future__ import annotations

import math
from typing import Any

from spiral.backend import Spec
from spiral.dtype import DEFAULT_FLOAT, bool_
from spiral.ops.shapes import broadcast, result_dtype

EDGE = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-40, -1e-40, 3e38, math.inf, -math.inf, math.nan, 88.0, -104.0)


class Binary:
    """Promotes and broadcasts its operands; Python numbers are weak."""

    scalars = True

    @staticmethod
    def meta(x: Any, y: Any) -> Spec:
        return Spec(broadcast("elementwise", x, y), result_dtype(x, y))

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.normal(5, 7)
        yield s.normal(3, 1, 33), s.normal(4, 1)
        yield s.normal(17), 2.5
        yield s.normal(6, 8)[::2, ::-1], s.normal(8)
        yield s.normal(0, 4), s.normal(4)
        yield s.array(EDGE), s.array(EDGE[::-1])
        yield s.normal(), s.normal(1, 1)
        yield s.normal(4, 10)[:, 1:], s.normal(9)
        yield s.integers(-9, 9, 4, 5), s.integers(-3, 4, 5)


class BinaryFloat(Binary):
    """Floating in, floating out; integers are taken as float32."""

    @staticmethod
    def meta(x: Any, y: Any) -> Spec:
        d = result_dtype(x, y)
        return Spec(broadcast("elementwise", x, y), d if d.kind == "float" else DEFAULT_FLOAT)


class Step(Binary):
    """Piecewise constant: no gradient."""

    nondifferentiable = True


class Compare(Binary):
    nondifferentiable = True

    @staticmethod
    def meta(x: Any, y: Any) -> Spec:
        return Spec(broadcast("comparison", x, y), bool_)


class Unary:
    """Floating in, floating out; integers are taken as float32."""

    @staticmethod
    def meta(x: Any) -> Spec:
        return Spec(tuple(x.shape), x.dtype if x.dtype.kind == "float" else DEFAULT_FLOAT)

    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.normal(5, 7),)
        yield (s.normal(4, 6).T,)
        yield (s.normal(0),)
        yield (s.normal(1025),)
        yield (s.normal(3, 6)[:, 1:],)
        yield (s.array(EDGE),)
        yield (s.normal(),)


class Keep(Unary):
    """Keeps the dtype, integers included."""

    @staticmethod
    def meta(x: Any) -> Spec:
        return Spec(tuple(x.shape), x.dtype)


class StepUnary(Keep):
    nondifferentiable = True


class PositiveDomain(Unary):
    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.uniform(5, 7, low=0.05, high=3.0),)
        yield (s.array([1e-38, 1.0, math.inf, 0.0, math.nan]),)


class Predicate(Unary):
    nondifferentiable = True

    @staticmethod
    def meta(x: Any) -> Spec:
        return Spec(tuple(x.shape), bool_)

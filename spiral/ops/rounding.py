"""Rounding to integers, signs, casts."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.dtype import DType
from spiral.op import F, op
from spiral.ops.pointwise import Keep, StepUnary


def _unless_integer(fn: Any) -> Any:
    """Integers are rounded already: NumPy before 2.1 turns them into float64, which loses those above 2**53."""

    def oracle(x: Any) -> Any:
        return fn(x) if x.dtype.kind == "f" else x.copy()

    return staticmethod(oracle)


@op("sign(x) -> y")
class Sign(StepUnary):
    """-1, 0 or 1."""

    oracle = staticmethod(np.sign)


@op("floor(x) -> y")
class Floor(StepUnary):
    """Largest integer not above x."""

    oracle = _unless_integer(np.floor)


@op("ceil(x) -> y")
class Ceil(StepUnary):
    """Smallest integer not below x."""

    oracle = _unless_integer(np.ceil)


@op("round(x) -> y")
class Round(StepUnary):
    """Nearest integer, halves to even."""

    oracle = _unless_integer(np.round)


@op("trunc(x) -> y")
class Trunc(StepUnary):
    """Integer part."""

    oracle = _unless_integer(np.trunc)


@op("copy(x) -> y")
class Copy(Keep):
    """The same values in memory of their own."""

    internal = True

    @staticmethod
    def oracle(x: Any) -> Any:
        return x.copy()

    @staticmethod
    def vjp(need: Any, g: Any) -> Any:
        return (g,)


@op("astype(x, *, dtype: DType) -> y")
class AsType:
    """x cast to another dtype; float to integer truncates."""

    @staticmethod
    def meta(x: Any, dtype: DType) -> Spec:
        return Spec(tuple(x.shape), dtype)

    @staticmethod
    def oracle(x: Any, dtype: DType) -> Any:
        return x.astype(dtype.numpy)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any) -> Any:
        return (F.astype(g, x_spec.dtype) if x_spec.dtype.kind == "float" else None,)

    @staticmethod
    def samples(s: Any) -> Any:
        from spiral import dtype

        yield s.normal(5, 7), dtype.float64
        yield s.normal(5, 7), dtype.float16
        yield s.normal(5, 7), dtype.bfloat16

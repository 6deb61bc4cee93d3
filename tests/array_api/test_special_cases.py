"""Special operands of elementwise functions, in every floating dtype that has them, alone and inside a vector."""

import math

import numpy as np
import pytest
from special_cases import BINARY, UNARY

import spiral as sp

_FINITE = [0.25, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0]
PROBES = [math.nan, math.inf, -math.inf, 0.0, -0.0, *_FINITE, *(-v for v in _FINITE)]
_NAMED = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "0": 0.0, "-0": -0.0}
_PI = {"pi": 1.0, "pi/2": 0.5, "pi/4": 0.25, "3pi/4": 0.75}


def finite(v):
    return math.isfinite(v) and v != 0


CLASSES = {
    "zero": lambda v: v == 0,
    "infinity": math.isinf,
    "finite": finite,
    "pos": lambda v: finite(v) and v > 0,
    "neg": lambda v: finite(v) and v < 0,
    "any": lambda v: True,
    "number": lambda v: not math.isnan(v),
    ">1": lambda v: v > 1,
    "<1": lambda v: v < 1,
    "<-1": lambda v: v < -1,
    "small": lambda v: 0 < abs(v) < 1,
    "big": lambda v: 1 < abs(v) < math.inf,
    "odd": lambda v: finite(v) and v > 0 and v % 2 == 1,
    "even": lambda v: finite(v) and v > 0 and v % 2 == 0,
    "half": lambda v: finite(v) and v > 0 and v % 1 != 0,
}


def members(name):
    if name in _NAMED:
        return [_NAMED[name]]
    if name in CLASSES:
        return [v for v in PROBES if CLASSES[name](v)]
    if name.startswith("-") and name[1:] in CLASSES:
        return [-v for v in members(name[1:])]
    return [float(name)]


def expected(name, *operands):
    if name in _NAMED:
        return _NAMED[name], True
    sign, name = (-1.0, name[1:]) if name.startswith("-") else (1.0, name)
    if name in _PI:
        return sign * math.pi * _PI[name], False
    if name in ("x", "y"):
        return sign * operands["xy".index(name)], True
    if name in ("|x|", "|y|"):
        return sign * abs(operands["|x|y|".index(name) // 2]), True
    if name in ("True", "False"):
        return name == "True", True
    return sign * float(name), True


def agrees(got, want, exact):
    if isinstance(want, bool):
        return got is want
    if math.isnan(want):
        return math.isnan(got)
    if not exact:
        return math.isclose(got, want, rel_tol=0.01)
    return got == want and math.copysign(1.0, got) == math.copysign(1.0, want)


DTYPES = [sp.float64, sp.float32, sp.float16, sp.bfloat16]


def check(name, rows, dtype):
    cases = []
    for *classes, result in rows:
        grid = [()]
        for c in classes:
            grid = [(*g, v) for g in grid for v in members(c)]
        cases += [(operands, expected(result, *operands)) for operands in grid]
    # repeated so that vector kernels run their main loop, and one by one so that they run their tail
    for repeat in (1, 19):
        columns = [
            sp.asarray(np.repeat(np.asarray([ops[i] for ops, _ in cases]), repeat), dtype=dtype)
            for i in range(len(cases[0][0]))
        ]
        got = getattr(sp, name)(*columns).tolist()
        for k, (operands, (want, exact)) in enumerate(cases):
            for value in got[k * repeat : (k + 1) * repeat]:
                assert agrees(value, want, exact), f"{name}{operands} is {value!r}, expected {want!r}"


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("name", sorted(UNARY))
def test_unary_function_of_special_operands(name, dtype):
    check(name, UNARY[name], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("name", sorted(BINARY))
def test_binary_function_of_special_operands(name, dtype):
    if name == "nextafter" and dtype.storage_only:
        with pytest.raises(TypeError, match="float32 or float64"):
            sp.nextafter(sp.ones(1, dtype=dtype), sp.ones(1, dtype=dtype))
        return
    check(name, BINARY[name], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("scalar", [True, False], ids=["a number", "a tensor"])
def test_power_one_half_of_negative_zero_and_infinity_is_no_square_root(dtype, scalar):
    bases = [-0.0, 0.0, -math.inf, math.inf, 4.0]
    half = 0.5 if scalar else sp.asarray(0.5, dtype=dtype)
    roots = (sp.asarray(bases, dtype=dtype) ** half).tolist()
    alone = [(sp.asarray(b, dtype=dtype) ** half).item() for b in bases]
    inside = sp.asarray(bases, dtype=dtype)
    inside **= half
    for got in (roots, alone, inside.tolist()):
        assert [math.copysign(1.0, z) for z in got] == [1.0] * 5
        assert got == [0.0, 0.0, math.inf, math.inf, 2.0]
    left = sp.asarray(-4.0, dtype=dtype) ** half
    assert left.dtype == dtype and math.isnan(left.item())


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_power_minus_one_half_of_negative_zero_and_infinity(dtype):
    for count in (1, 40):  # whole registers and what is left
        for base, want in ((-0.0, math.inf), (0.0, math.inf), (-math.inf, 0.0), (math.inf, 0.0), (4.0, 0.5)):
            got = (sp.full(count, base, dtype=dtype) ** -0.5).tolist()
            assert got == [want] * count and math.copysign(1.0, got[0]) == 1.0

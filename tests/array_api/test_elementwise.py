"""Elementwise functions against NumPy: values, promotion, broadcasting, weak scalars, operators."""

import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CATEGORIES, FLOATS, arrays, elements, few, pairs, promotable, same, tensor

import spiral as sp

# function -> (dtypes, bounds of the first operand, bounds of the second); None: the whole range
BINARY = {
    "add": ("numeric", None, None),
    "atan2": ("float", None, None),
    "bitwise_and": ("bits", None, None),
    "bitwise_left_shift": ("integer", None, (0, 7)),
    "bitwise_or": ("bits", None, None),
    "bitwise_right_shift": ("integer", None, (0, 7)),
    "bitwise_xor": ("bits", None, None),
    "copysign": ("float", None, None),
    "divide": ("float", None, (0.5, 9)),
    "equal": ("all", None, None),
    "floor_divide": ("numeric", None, (1, 9)),
    "greater": ("numeric", None, None),
    "greater_equal": ("numeric", None, None),
    "hypot": ("float", None, None),
    "less": ("numeric", None, None),
    "less_equal": ("numeric", None, None),
    "logaddexp": ("float", None, None),
    "logical_and": ("bool", None, None),
    "logical_or": ("bool", None, None),
    "logical_xor": ("bool", None, None),
    "maximum": ("numeric", None, None),
    "minimum": ("numeric", None, None),
    "multiply": ("numeric", None, None),
    "nextafter": ("float", None, None),
    "not_equal": ("all", None, None),
    "pow": ("numeric", (0, 5), (0, 3)),
    "remainder": ("integer", None, (1, 9)),
    "subtract": ("numeric", None, None),
}
UNARY = {
    "abs": ("numeric", None),
    "acos": ("float", (-1, 1)),
    "acosh": ("float", (1, 50)),
    "asin": ("float", (-1, 1)),
    "asinh": ("float", None),
    "atan": ("float", None),
    "atanh": ("float", (-0.9375, 0.9375)),
    "bitwise_invert": ("bits", None),
    "ceil": ("numeric", None),
    "cos": ("float", None),
    "cosh": ("float", (-9, 9)),
    "exp": ("float", (-9, 9)),
    "expm1": ("float", (-9, 9)),
    "floor": ("numeric", None),
    "isfinite": ("numeric", None),
    "isinf": ("numeric", None),
    "isnan": ("numeric", None),
    "log": ("float", (0.125, 90)),
    "log10": ("float", (0.125, 90)),
    "log1p": ("float", (-0.5, 90)),
    "log2": ("float", (0.125, 90)),
    "logical_not": ("bool", None),
    "negative": ("numeric", None),
    "positive": ("numeric", None),
    "reciprocal": ("float", (0.125, 9)),
    "round": ("numeric", None),
    "sign": ("numeric", None),
    "signbit": ("float", None),
    "sin": ("float", None),
    "sinh": ("float", (-9, 9)),
    "sqrt": ("float", (0, 100)),
    "square": ("numeric", None),
    "tan": ("float", (-1, 1)),
    "tanh": ("float", None),
    "trunc": ("numeric", None),
}
SYMBOLS = {
    "add": operator.add,
    "bitwise_and": operator.and_,
    "bitwise_left_shift": operator.lshift,
    "bitwise_or": operator.or_,
    "bitwise_right_shift": operator.rshift,
    "bitwise_xor": operator.xor,
    "divide": operator.truediv,
    "equal": operator.eq,
    "floor_divide": operator.floordiv,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "less": operator.lt,
    "less_equal": operator.le,
    "multiply": operator.mul,
    "not_equal": operator.ne,
    "pow": operator.pow,
    "remainder": operator.mod,
    "subtract": operator.sub,
}
IN_PLACE = {
    "add": operator.iadd,
    "bitwise_and": operator.iand,
    "bitwise_left_shift": operator.ilshift,
    "bitwise_or": operator.ior,
    "bitwise_right_shift": operator.irshift,
    "bitwise_xor": operator.ixor,
    "divide": operator.itruediv,
    "floor_divide": operator.ifloordiv,
    "multiply": operator.imul,
    "pow": operator.ipow,
    "remainder": operator.imod,
    "subtract": operator.isub,
}


def within(a, bounds):
    return a if bounds is None or a.dtype == np.bool_ else np.clip(a, *bounds).astype(a.dtype)


def numpy_function(name, *xs):
    with np.errstate(all="ignore"):
        return getattr(np, name)(*xs)


@pytest.mark.parametrize("name", sorted(UNARY))
def test_unary_function_agrees_with_numpy(name):
    category, bounds = UNARY[name]

    @few
    @given(arrays(CATEGORIES[category]))
    def check(a):
        a = within(a, bounds)
        same(getattr(sp, name)(tensor(a)), numpy_function(name, a))

    check()


@pytest.mark.parametrize("name", sorted(BINARY))
def test_binary_function_and_its_operators_agree_with_numpy(name):
    category, first, second = BINARY[name]

    @few
    @given(pairs(CATEGORIES[category]))
    def check(ab):
        a, b = within(ab[0], first), within(ab[1], second)
        want = numpy_function(name, a, b)
        x, y = tensor(a), tensor(b)
        same(getattr(sp, name)(x, y), want)
        if name in SYMBOLS:
            same(SYMBOLS[name](x, y), want)
        if name in IN_PLACE and want.shape == a.shape and want.dtype == a.dtype:
            z = sp.asarray(x, copy=True)
            kept = z
            z = IN_PLACE[name](z, y)
            assert z is kept
            same(z, want)
            same(x, a)

    check()


@pytest.mark.parametrize("name", sorted(BINARY))
def test_python_scalar_is_weak_on_either_side(name):
    category, first, second = BINARY[name]

    @few
    @given(arrays(CATEGORIES[category]), st.data())
    def check(a, data):
        bounds = second or first or (None, None)
        if a.dtype.kind == "f" and bounds[0] is None:
            bounds = (-8, 8)
        value = data.draw(elements(a.dtype, *bounds))
        a = within(a, first)
        x = tensor(a)
        same(getattr(sp, name)(x, value), numpy_function(name, a, value))
        if name in SYMBOLS:
            with np.errstate(all="ignore"):
                same(SYMBOLS[name](x, value), SYMBOLS[name](a, value))
        b, value = within(tensor(a).numpy(), second), data.draw(elements(a.dtype, *(first or bounds)))
        same(getattr(sp, name)(value, tensor(b)), numpy_function(name, value, b))
        if name in SYMBOLS:
            with np.errstate(all="ignore"):
                same(SYMBOLS[name](value, tensor(b)), SYMBOLS[name](value, b))

    check()


@few
@given(arrays(FLOATS + ("int8", "uint16")), st.data())
def test_clip_agrees_with_numpy(a, data):
    low, high = sorted((data.draw(elements(a.dtype)), data.draw(elements(a.dtype))))
    low, high = data.draw(st.sampled_from([(low, high), (None, high), (low, None)]))
    same(sp.clip(tensor(a), low, high), np.clip(a, low, high))
    limits = [None if v is None else sp.full(a.shape, v, dtype=a.dtype.name) for v in (low, high)]
    same(sp.clip(tensor(a), *limits), np.clip(a, low, high))


def test_clip_without_limits_keeps_and_nan_limits_give_nan():
    x = sp.asarray([1.0, -2.0])
    assert sp.clip(x).tolist() == [1.0, -2.0]
    assert sp.all(sp.isnan(sp.clip(x, float("nan"), 1.0)))
    with pytest.raises(TypeError, match="clip"):
        sp.clip(sp.asarray([1, 2]), sp.asarray([0.5]), None)


def test_where_promotes_and_takes_scalars():
    mask = sp.asarray([True, False, True])
    out = sp.where(mask, sp.asarray([1, 2, 3], dtype=sp.int8), sp.asarray([4], dtype=sp.int32))
    assert out.dtype is sp.int32 and out.tolist() == [1, 4, 3]
    assert sp.where(mask, 1.5, sp.zeros(3, dtype=sp.float64)).dtype is sp.float64


def test_large_integers_are_not_rounded_through_floats():
    big = sp.asarray([2**62 + 1, -(2**62) - 3])
    for name in ("floor", "ceil", "round", "trunc", "abs", "square", "negative", "sign"):
        want = getattr(np, name)(big.numpy()) if name not in ("floor", "ceil", "round", "trunc") else big.numpy()
        np.testing.assert_array_equal(getattr(sp, name)(big).numpy(), want)


@pytest.mark.parametrize("dtype", [sp.float16, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("name", sorted(n for n, (c, _) in UNARY.items() if c in ("float", "numeric")))
def test_sixteen_bit_floats_round_the_float32_result_once(name, dtype):
    low, high = UNARY[name][1] or (-3, 3)
    x = sp.linspace(low, high, 11, dtype=dtype)
    wide = getattr(sp, name)(sp.astype(x, sp.float32))
    got = getattr(sp, name)(x)
    assert got.dtype is (dtype if wide.dtype is sp.float32 else wide.dtype)
    if wide.dtype is sp.float32:
        error = sp.abs(sp.astype(got, sp.float32) - wide)
        assert bool(sp.all(error <= sp.abs(wide) * sp.finfo(dtype).eps + 1e-7))
    else:
        assert got.tolist() == wide.tolist()


def test_bits_of_floats_and_unpromotable_dtypes_are_typed_errors():
    with pytest.raises(TypeError, match="bitwise"):
        sp.bitwise_and(sp.ones(2), sp.ones(2))
    with pytest.raises(TypeError, match="bitwise_invert"):
        _ = ~sp.ones(2)
    with pytest.raises(TypeError, match="uint64"):
        sp.add(sp.ones(2, dtype=sp.uint64), sp.ones(2, dtype=sp.int8))
    assert not promotable("uint64", "int8")


def test_in_place_operator_refuses_a_result_of_a_higher_kind():
    x = sp.asarray([1, 2])
    with pytest.raises(TypeError, match="float32 result does not fit into int64"):
        x += 0.5
    with pytest.raises(TypeError, match="int64 result does not fit into bool"):
        mask = sp.asarray([True])
        mask += sp.asarray([1])

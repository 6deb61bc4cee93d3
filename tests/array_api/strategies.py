"""Hypothesis strategies of this folder: NumPy arrays, dtypes and axes, kept small so that a run takes seconds."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import spiral as sp

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float32", "float64")
NUMERIC = INTEGERS + FLOATS
ALL = ("bool", *NUMERIC)
CATEGORIES = {
    "bool": ("bool",),
    "integer": INTEGERS,
    "bits": ("bool", *INTEGERS),
    "float": FLOATS,
    "numeric": NUMERIC,
    "all": ALL,
}
few = settings(max_examples=15, deadline=None, database=None, derandomize=True)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
full_shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)


def elements(dtype, low=None, high=None):
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        return st.booleans()
    if dtype.kind == "f":
        return st.floats(-100 if low is None else low, 100 if high is None else high, width=32)
    info = np.iinfo(dtype)
    low = info.min if low is None else max(low, info.min)
    return st.integers(low, info.max if high is None else high)


@st.composite
def arrays(draw, dtypes=ALL, shape=shapes, low=None, high=None):
    dtype = draw(st.sampled_from(dtypes))
    return draw(hnp.arrays(dtype, draw(shape), elements=elements(dtype, low, high)))


def promotable(a, b):
    kinds = {np.dtype(a).kind, np.dtype(b).kind}
    mixed = kinds == {"i", "u"} and "uint64" in (a, b)
    return not mixed and (len(kinds) == 1 or kinds == {"i", "u"})


@st.composite
def pairs(draw, dtypes, low=None, high=None):
    """Two arrays whose dtypes promote and whose shapes broadcast."""
    first = draw(st.sampled_from(dtypes))
    second = draw(st.sampled_from([d for d in dtypes if promotable(first, d)]))
    sides = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=4)).input_shapes
    return tuple(
        draw(hnp.arrays(d, s, elements=elements(d, low, high))) for d, s in zip((first, second), sides, strict=True)
    )


@st.composite
def axes_of(draw, ndim, tuples=True, none=True):
    kinds = [st.none()] if none or not ndim else []
    if ndim:
        kinds.append(st.integers(-ndim, ndim - 1))
        if tuples:
            kinds.append(hnp.valid_tuple_axes(ndim, min_size=1))
    return draw(st.one_of(kinds))


def tensor(a):
    t = sp.asarray(a)
    assert t.dtype.name == np.asarray(a).dtype.name
    return t


def same(got, want, tolerance=1e-5):
    """One shape, one dtype, and the same values: exactly for integers, nearly for floats."""
    want = np.asarray(want)
    assert isinstance(got, sp.Tensor)
    assert got.shape == want.shape
    assert got.dtype.name == want.dtype.name
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got.numpy(), want, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(got.numpy(), want)

"""Sorting rows of any length and dtype on a device, against NumPy's stable sort."""

import numpy as np
import pytest

import spiral as sp
from spiral.placement import host_copy

DTYPES = [d for d in sp.dtype.ALL if d.name != "bfloat16"]


def on_device(a):
    return sp.asarray(a, device="cuda")


def values(dtype, shape, seed=0):
    """Many equal elements, the type's extremes, and for floating ones infinities, NaN, zeros of both signs."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "float":
        a = np.round(rng.standard_normal(shape) * 4).astype(dtype.numpy)
        special = [np.nan, np.inf, -np.inf, 0.0, -0.0, np.finfo(dtype.numpy).smallest_subnormal]
    elif dtype.kind == "bool":
        return rng.random(shape) < 0.5
    else:
        info = np.iinfo(dtype.numpy)
        a = rng.integers(max(info.min, -9), 9, shape).astype(dtype.numpy)
        special = [info.min, info.max, 0]
    flat = a.reshape(-1)
    at = rng.integers(0, max(flat.size, 1), min(len(special) * 3, flat.size))
    flat[at] = np.resize(np.array(special, dtype.numpy), at.size)
    return a


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("shape, axis", [((3, 9), 1), ((257, 2), 0), ((2, 256), -1)])
def test_sort_and_argsort_agree_with_numpy(dtype, shape, axis):
    a = values(dtype, shape)
    x = on_device(a)
    assert np.array_equal(host_copy(sp.argsort(x, axis=axis)), np.argsort(a, axis, stable=True))
    got = host_copy(sp.sort(x, axis=axis))
    expected = np.sort(a, axis, stable=True)
    assert np.array_equal(got, expected, equal_nan=dtype.kind == "float")
    if dtype.kind == "float":
        assert np.array_equal(np.signbit(got)[got == 0], np.signbit(expected)[got == 0])
    descending = host_copy(sp.argsort(x, axis=axis, descending=True))
    assert np.array_equal(descending, sp.op.OPS["argsort"].oracle(a, axis, True, True))


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 255, 2047, 2048, 2049, 4096, 6145])
@pytest.mark.parametrize("dtype", [sp.float32, sp.int64], ids=lambda d: d.name)
def test_rows_of_any_length(n, dtype):
    """Rows of one tile, of several, and of several whose last run is short or missing."""
    a = values(dtype, (2, n), n)
    x = on_device(a)
    assert np.array_equal(host_copy(sp.argsort(x)), np.argsort(a, -1, stable=True))
    assert np.array_equal(host_copy(sp.sort(x)), np.sort(a, -1), equal_nan=dtype is sp.float32)
    got, at = sp.top_k(x, min(n, 5))
    expected, places = sp.op.OPS["top_k"].oracle(a, min(n, 5), -1, True)
    assert np.array_equal(host_copy(at), places)
    assert np.array_equal(host_copy(got), expected, equal_nan=dtype is sp.float32)


@pytest.mark.parametrize("n, k", [(2049, 1), (4099, 7), (4099, 256), (4099, 257), (2048 * 10 + 3, 256)])
@pytest.mark.parametrize("largest", [True, False])
def test_first_of_long_rows(n, k, largest):
    """Candidates of each tile; of the last one there are fewer than k, and NaN sorts beside what fills it up."""
    a = values(sp.float32, (2, n), n)
    a[:, -2:] = np.nan
    got, at = sp.top_k(on_device(a), k, largest=largest)
    expected, places = sp.op.OPS["top_k"].oracle(a, k, -1, largest)
    assert np.array_equal(host_copy(at), places)
    assert np.array_equal(host_copy(got), expected, equal_nan=True)


def test_first_of_a_row_of_equal_elements_are_the_first():
    for value in (np.nan, np.inf, 0.0):
        for largest in (True, False):
            x = on_device(np.full((1, 4100), value, np.float32))
            assert host_copy(sp.top_k(x, 9, largest=largest)[1]).tolist() == [list(range(9))]


def test_bfloat16_is_sorted_by_value():
    a = np.array([1.0, -2.0, np.nan, 0.5, -np.inf, 3.0], np.float32)
    x = on_device(a).astype(sp.bfloat16)
    assert host_copy(sp.argsort(x)).tolist() == np.argsort(a, stable=True).tolist()


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted_of_many_types(side):
    rng = np.random.default_rng(0)
    a = np.sort(rng.integers(-5, 5, 65))
    for kind in (np.int8, np.int64, np.float32, np.float64):
        x1, x2 = a.astype(kind), rng.integers(-7, 7, (3, 7))
        got = host_copy(sp.searchsorted(on_device(x1), on_device(x2), side=side))
        assert np.array_equal(got, np.searchsorted(x1, x2, side))
    nan = np.array([0.0, 1.0, np.nan], np.float32)
    assert np.array_equal(host_copy(sp.searchsorted(on_device(nan), on_device(nan), side=side)),
                          np.searchsorted(nan, nan, side))  # fmt: skip
    big = np.array([2**53, 2**53 + 2])  # a float32 would not tell them apart
    half = np.array([2.0**53 + 1], np.float32)
    assert (
        host_copy(sp.searchsorted(on_device(big), on_device(half), side=side)).tolist()
        == np.searchsorted(big, half, side).tolist()
    )


def test_gradient_of_a_sort_goes_back_where_the_elements_came_from():
    a = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]], np.float32)
    x = on_device(a).requires_grad_()
    weights = on_device(np.array([[1.0, 10.0, 100.0]] * 2, np.float32))
    y = sp.sort(x)
    y.backward(sp.broadcast_to(weights, (2, 3)))
    assert x.grad.tolist() == [[100.0, 1.0, 10.0], [1.0, 100.0, 10.0]]

"""Statistics, cumulative functions, sorting, searching and sets: against NumPy, with gradients."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import ALL, FLOATS, INTEGERS, NUMERIC, arrays, axes_of, few, full_shapes, same, tensor

import spiral as sp


def wide(dtype):
    """Dtype that the standard accumulates in: default integers where they are wider, floats as they are."""
    dtype = np.dtype(dtype)
    return dtype if dtype.kind == "f" else np.dtype("uint64" if dtype.kind == "u" else "int64")


@few
@given(arrays(NUMERIC, low=-3, high=3), st.data(), st.booleans())
def test_sum_and_prod_agree_with_numpy_also_with_a_dtype(a, data, keepdims):
    axis = data.draw(axes_of(a.ndim))
    kind = FLOATS if a.dtype.kind == "f" else INTEGERS + FLOATS
    dtype = data.draw(st.sampled_from((None, *kind)))
    for name in ("sum", "prod"):
        want = getattr(np, name)(a, axis=axis, dtype=dtype or wide(a.dtype), keepdims=keepdims)
        same(getattr(sp, name)(tensor(a), axis=axis, dtype=dtype, keepdims=keepdims), want, 1e-4)
        same(getattr(tensor(a), name)(axis=axis, dtype=dtype, keepdims=keepdims), want, 1e-4)


@few
@given(arrays(NUMERIC, shape=full_shapes), st.data(), st.booleans())
def test_extremes_and_their_positions_agree_with_numpy(a, data, keepdims):
    axis = data.draw(axes_of(a.ndim))
    for name in ("max", "min"):
        same(getattr(sp, name)(tensor(a), axis=axis, keepdims=keepdims), getattr(np, name)(a, axis, keepdims=keepdims))
    axis = data.draw(axes_of(a.ndim, tuples=False))
    for name in ("argmax", "argmin"):
        same(getattr(sp, name)(tensor(a), axis=axis, keepdims=keepdims), getattr(np, name)(a, axis, keepdims=keepdims))


@few
@given(arrays(FLOATS, shape=full_shapes), st.data(), st.booleans())
def test_moments_agree_with_numpy(a, data, keepdims):
    axis = data.draw(axes_of(a.ndim))
    count = a.size // np.sum(a, axis=axis).size
    correction = data.draw(st.sampled_from([c for c in (0.0, 1, 0.5) if c < count]))
    same(sp.mean(tensor(a), axis=axis, keepdims=keepdims), np.mean(a, axis, keepdims=keepdims), 1e-4)
    for name in ("var", "std"):
        got = getattr(sp, name)(tensor(a), axis=axis, correction=correction, keepdims=keepdims)
        wide_result = getattr(np, name)(a.astype(np.float64), axis, ddof=correction, keepdims=keepdims)
        same(got, wide_result.astype(a.dtype), 2e-3)


@few
@given(arrays(ALL), st.data(), st.booleans())
def test_truth_and_counts_agree_with_numpy(a, data, keepdims):
    axis = data.draw(axes_of(a.ndim))
    for name in ("all", "any", "count_nonzero"):
        want = np.asarray(getattr(np, name)(a, axis=axis, keepdims=keepdims))
        same(getattr(sp, name)(tensor(a), axis=axis, keepdims=keepdims), want)


@few
@given(arrays(NUMERIC, low=-2, high=2), st.data(), st.booleans())
def test_cumulative_functions_agree_with_numpy(a, data, include_initial):
    if not a.ndim:
        return
    axis = data.draw(axes_of(a.ndim, tuples=False, none=False) if a.ndim > 1 else axes_of(1, tuples=False))
    dtype = data.draw(st.sampled_from((None, "float64")))
    for name in ("cumulative_sum", "cumulative_prod"):
        got = getattr(sp, name)(tensor(a), axis=axis, dtype=dtype, include_initial=include_initial)
        options = {"axis": axis, "dtype": dtype or wide(a.dtype), "include_initial": include_initial}
        same(got, getattr(np, name)(a, **options), 1e-4)


def test_cumulative_functions_need_an_axis_unless_given_a_vector():
    with pytest.raises(ValueError, match="axis is required"):
        sp.cumulative_sum(sp.ones((2, 2)))
    assert sp.cumulative_prod(sp.asarray([2, 3]), include_initial=True).tolist() == [1, 2, 6]


@pytest.mark.filterwarnings("error")
def test_special_values_of_reductions():
    nan = float("nan")
    for name in ("max", "min", "sum", "prod", "mean"):
        assert math.isnan(getattr(sp, name)(sp.asarray([1.0, nan, 2.0] * 11)).item())
    for dtype in (sp.float32, sp.float64):
        assert math.isnan(sp.mean(sp.zeros(0, dtype=dtype)).item())
        assert sp.mean(sp.zeros((0, 0), dtype=dtype), axis=0).shape == (0,)
        assert sp.var(sp.asarray([1.0, 2.0], dtype=dtype), correction=2).item() == math.inf
        assert math.isnan(sp.std(sp.ones(1, dtype=dtype), correction=1).item())
    assert sp.full((), 1e300, dtype=sp.float32).item() == math.inf
    assert sp.sum(sp.zeros((0, 2)), axis=0).tolist() == [0.0, 0.0] and sp.prod(sp.zeros(0)).item() == 1.0
    assert (
        sp.sum(sp.ones(3, dtype=sp.bool)).item() == 3 and sp.all(sp.zeros(0)).item() and not sp.any(sp.zeros(0)).item()
    )


@few
@given(arrays(NUMERIC), st.data(), st.booleans())
def test_sort_and_argsort_are_stable_both_ways(a, data, descending):
    if not a.ndim:
        return
    axis = data.draw(st.integers(-a.ndim, a.ndim - 1))
    got = sp.sort(tensor(a), axis=axis, descending=descending)
    want = np.sort(a, axis=axis, stable=True)
    same(got, np.flip(want, axis) if descending else want)
    order = sp.argsort(tensor(a), axis=axis, descending=descending)
    same(sp.take_along_axis(tensor(a), order, axis=axis), got.numpy())
    ties = sp.argsort(sp.zeros(a.shape), axis=axis, descending=descending)
    same(ties, np.argsort(np.zeros(a.shape), axis=axis, stable=True))


@few
@given(
    arrays(NUMERIC, st.integers(0, 6).map(lambda n: (n,)), low=-3, high=3),
    st.sampled_from(["left", "right"]),
    st.data(),
)
def test_searchsorted_agrees_with_numpy(a, side, data):
    values = data.draw(hnp.arrays(a.dtype, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)))
    if a.dtype.kind == "f":
        values = np.nan_to_num(values)
    ordered = np.sort(a)
    same(
        sp.searchsorted(tensor(ordered), tensor(values), side=side), np.asarray(np.searchsorted(ordered, values, side))
    )
    order = np.argsort(a)
    same(
        sp.searchsorted(tensor(a), tensor(values), side=side, sorter=tensor(order)),
        np.asarray(np.searchsorted(a, values, side, order)),
    )


@few
@given(arrays(ALL))
def test_nonzero_agrees_with_numpy(a):
    if not a.ndim:
        with pytest.raises(ValueError, match="nonzero"):
            sp.nonzero(tensor(a))
        return
    got = sp.nonzero(tensor(a))
    assert isinstance(got, tuple) and len(got) == a.ndim
    for g, w in zip(got, np.nonzero(a), strict=True):
        same(g, w)


@few
@given(arrays(ALL, low=-2, high=2))
def test_unique_functions_agree_with_numpy_and_name_their_results(a):
    x, want = tensor(a), np.unique_all(a)
    got = sp.unique_all(x)
    for field, w in zip(("values", "indices", "inverse_indices", "counts"), want, strict=True):
        same(getattr(got, field), w)
    same(sp.unique_counts(x).counts, want.counts)
    same(sp.unique_inverse(x).inverse_indices, want.inverse_indices)
    same(sp.unique_values(x), want.values)


def test_nan_is_unique_each_time_and_zeros_are_one():
    got = sp.unique_all(sp.asarray([float("nan"), 0.0, -0.0, float("nan")]))
    assert got.counts.tolist() == [2, 1, 1] and got.values.tolist()[0] == 0.0


@few
@given(arrays(NUMERIC, low=-50, high=50), st.data())
def test_diff_agrees_with_numpy(a, data):
    if not a.ndim:
        return
    axis, n = data.draw(st.integers(-a.ndim, a.ndim - 1)), data.draw(st.integers(0, 2))
    same(sp.diff(tensor(a), axis=axis, n=n), np.diff(a, n, axis))
    end = np.zeros((*a.shape[: axis % a.ndim], 1, *a.shape[axis % a.ndim + 1 :]), a.dtype)
    got = sp.diff(tensor(a), axis=axis, n=1, prepend=tensor(end), append=tensor(end))
    same(got, np.diff(a, 1, axis, prepend=end, append=end))


@pytest.mark.parametrize("zeros", [(), (1,), (1, 4), (0, 1, 2, 3, 4, 5)])
def test_gradient_of_prod_is_exact_where_elements_are_zero(zeros):
    a = np.arange(1.0, 7.0).reshape(2, 3)
    a.reshape(-1)[list(zeros)] = 0.0
    for axis in (None, 0, 1, (0, 1)):
        x = sp.asarray(a).requires_grad_()
        sp.prod(x, axis=axis).sum().backward()
        want = np.empty_like(a)
        for place in np.ndindex(a.shape):
            one = a.copy()
            one[place] = 1.0
            others = np.asarray(np.prod(one, axis=axis, keepdims=True))
            want[place] = others[tuple(min(i, n - 1) for i, n in zip(place, others.shape, strict=True))]
        np.testing.assert_array_equal(x.grad.numpy(), want)


def test_second_derivative_of_prod_survives_two_zeros():
    x = sp.asarray([0.0, 0.0, 3.0], dtype=sp.float64)
    g = sp.grad(lambda t: sp.grad(sp.prod)(t)[0])(x)
    assert g.tolist() == [0.0, 3.0, 0.0]


def test_gradient_of_sort_goes_back_to_where_elements_came_from():
    x = sp.asarray([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0]]).requires_grad_()
    (sp.sort(x, descending=True) * sp.asarray([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [[1.0, 100.0, 10.0], [1.0, 10.0, 100.0]]


def test_gradient_of_sum_with_a_dtype_has_the_dtype_of_its_input():
    x = sp.asarray([1.0, 2.0]).requires_grad_()
    sp.sum(x, dtype=sp.float64).backward()
    assert x.grad.dtype is sp.float32 and x.grad.tolist() == [1.0, 1.0]

"""Creation functions: shapes, dtypes, values, copies, devices."""

import array
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ALL, NUMERIC, arrays, few, full_shapes, same, shapes, tensor

import spiral as sp


@few
@given(shapes, st.sampled_from((None, *ALL)))
def test_zeros_ones_empty_and_full(shape, dtype):
    name = dtype or "float32"
    for made, value in ((sp.zeros(shape, dtype=dtype), 0), (sp.ones(shape, dtype=dtype), 1)):
        same(made, np.full(shape, value, name))
        same(sp.zeros_like(made), np.zeros(shape, name))
        same(sp.ones_like(made), np.ones(shape, name))
        same(sp.full_like(made, 1), np.ones(shape, name))
        assert (sp.empty_like(made).shape, sp.empty(shape, dtype=dtype).dtype.name) == (shape, name)
    assert sp.full(shape, 3).dtype is sp.int64
    assert sp.full(shape, 0.5).dtype is sp.float32
    assert sp.full(shape, False).dtype is sp.bool
    assert sp.zeros(3, device=sp.zeros(1).device).shape == (3,)


@few
@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-7, 7).filter(bool), st.sampled_from((None, *NUMERIC)))
def test_arange_of_integers(start, stop, step, dtype):
    if dtype is not None and dtype.startswith("u"):
        start, stop, step = abs(start), abs(stop), abs(step)
    got = sp.arange(start, stop, step, dtype=dtype)
    assert got.tolist() == list(range(start, stop, step)) and got.dtype.name == (dtype or "int64")


@few
@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.25, 7))
def test_arange_of_floats_has_the_right_length(start, stop, step):
    got = sp.arange(start, stop, step, dtype=sp.float64)
    assert got.size == max(0, math.ceil((stop - start) / step))
    same(got, np.arange(start, stop, step))


def test_arange_of_one_argument_and_of_a_zero_step():
    assert sp.arange(3).tolist() == [0, 1, 2] and sp.arange(2.5).dtype is sp.float32
    assert sp.arange(2**60, 2**60 + 3).tolist() == [2**60, 2**60 + 1, 2**60 + 2]
    with pytest.raises(ValueError, match="step"):
        sp.arange(1, 5, 0)


@few
@given(
    st.floats(-1e6, 1e6, width=32),
    st.floats(-1e6, 1e6, width=32),
    st.integers(0, 20),
    st.sampled_from(["float32", "float64"]),
)
def test_linspace_hits_both_ends(start, stop, num, dtype):
    got = sp.linspace(start, stop, num, dtype=dtype)
    same(got, np.linspace(start, stop, num, dtype=dtype))
    if num > 1:
        assert got[0].item() == start and got[-1].item() == stop
    open_end = sp.linspace(start, stop, num, dtype=dtype, endpoint=False)
    assert open_end.tolist() == sp.linspace(start, stop, num + 1, dtype=dtype)[:-1].tolist()


@few
@given(st.integers(0, 6), st.none() | st.integers(0, 6), st.integers(-7, 7), st.sampled_from(ALL))
def test_eye_agrees_with_numpy(rows, columns, k, dtype):
    same(sp.eye(rows, columns, k=k, dtype=dtype), np.eye(rows, columns, k=k, dtype=dtype))


@few
@given(st.lists(arrays(("float32",), st.integers(0, 4).map(lambda n: (n,))), max_size=3), st.sampled_from(["xy", "ij"]))
def test_meshgrid_agrees_with_numpy(vectors, indexing):
    got = sp.meshgrid(*map(tensor, vectors), indexing=indexing)
    want = np.meshgrid(*vectors, indexing=indexing)
    assert isinstance(got, list) and len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        same(g, w)


@few
@given(arrays(shape=shapes), st.integers(-3, 3) | st.sampled_from([2**70, -(2**70)]))
def test_triangles_agree_with_numpy(a, k):
    if a.ndim >= 2:
        near = max(-9, min(k, 9))
        same(sp.tril(tensor(a), k=k), np.tril(a, near))
        same(sp.triu(tensor(a), k=k), np.triu(a, near))
        same(sp.eye(3, k=k), np.eye(3, k=near, dtype=np.float32))
        same(sp.linalg.diagonal(tensor(a), offset=k), np.linalg.diagonal(a, offset=near))
    else:
        with pytest.raises(ValueError, match="2 axes"):
            sp.tril(tensor(a))


@few
@given(arrays(shape=full_shapes))
def test_asarray_of_nested_lists_and_of_tensors_in_lists(a):
    same(sp.asarray(a.tolist(), dtype=a.dtype.name), a)
    if a.ndim:
        same(sp.asarray([tensor(row) for row in a], dtype=a.dtype.name), a)


def test_asarray_copies_when_told_to_and_refuses_when_it_must_not():
    x = sp.asarray([1.0, 2.0])
    assert sp.asarray(x) is x and sp.asarray(x, copy=False) is x
    y = sp.asarray(x, copy=True)
    y[0] = 9.0
    assert x.tolist() == [1.0, 2.0] and not np.shares_memory(x.numpy(), y.numpy())
    for bad in (lambda: sp.asarray([1.0], copy=False), lambda: sp.asarray(x, dtype=sp.float64, copy=False)):
        with pytest.raises(ValueError, match="copy=False"):
            bad()


def test_asarray_of_buffers_keeps_their_dtype_and_shares_when_told_to():
    numbers = array.array("i", [1, 2, 3])
    assert sp.asarray(numbers).dtype is sp.int32
    shared = sp.asarray(numbers, copy=False)
    numbers[0] = 7
    assert shared.tolist() == [7, 2, 3] and sp.asarray(memoryview(b"ab")).tolist() == [97, 98]


def test_asarray_never_rounds_integers_through_floats():
    assert sp.asarray([0, 2**63 + 1], dtype=sp.uint64).tolist() == [0, 2**63 + 1]
    with pytest.raises(ValueError, match="int8"):
        sp.asarray([300], dtype=sp.int8)
    with pytest.raises(ValueError, match="NaN"):
        sp.asarray([float("nan")], dtype=sp.int32)


@pytest.mark.parametrize("bad", ["text", [1, "a"], [[1], [1, 2]], object(), 1j, [2j, 1.0]])
def test_asarray_of_what_is_no_real_array_is_a_typed_error(bad):
    with pytest.raises((TypeError, ValueError), match="asarray"):
        sp.asarray(bad)


def test_complex_number_without_an_imaginary_part_is_real():
    assert sp.asarray(complex(2.0)).tolist() == 2.0 and sp.asarray([1 + 0j]).dtype is sp.float32


def test_negative_lengths_are_refused():
    with pytest.raises(ValueError, match="negative"):
        sp.zeros((2, -1))
    with pytest.raises(ValueError, match="num"):
        sp.linspace(0.0, 1.0, -1)

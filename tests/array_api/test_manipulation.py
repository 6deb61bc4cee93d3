"""Functions that move elements, take them by position, or index: against NumPy, with gradients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import NUMERIC, arrays, axes_of, few, full_shapes, pairs, same, tensor

import spiral as sp


@few
@given(arrays(), st.data())
def test_functions_of_one_axis_agree_with_numpy(a, data):
    x = tensor(a)
    axis = data.draw(axes_of(a.ndim))
    same(sp.flip(x, axis=axis), np.flip(a, axis))
    shift = data.draw(st.integers(-9, 9))
    same(sp.roll(x, shift, axis=axis), np.roll(a, shift, axis))
    position = data.draw(st.integers(-a.ndim - 1, a.ndim))
    same(sp.expand_dims(x, axis=position), np.expand_dims(a, position))
    one = sp.expand_dims(x, axis=position)
    same(sp.squeeze(one, position), a)
    same(sp.tile(x, (2, 1, 3)), np.tile(a, (2, 1, 3)))
    same(sp.repeat(x, 3), np.repeat(a, 3))
    if a.ndim:
        order = tuple(data.draw(st.permutations(range(a.ndim))))
        same(sp.permute_dims(x, order), a.transpose(order))
        source, target = data.draw(st.permutations(range(a.ndim))), data.draw(st.permutations(range(a.ndim)))
        same(sp.moveaxis(x, tuple(source[:2]), tuple(target[:2])), np.moveaxis(a, source[:2], target[:2]))
        k = data.draw(st.integers(-a.ndim, a.ndim - 1))
        counts = data.draw(st.lists(st.integers(0, 3), min_size=a.shape[k], max_size=a.shape[k]))
        same(sp.repeat(x, sp.asarray(counts, dtype=sp.int64), axis=k), np.repeat(a, np.asarray(counts, int), axis=k))
        parts = sp.unstack(x, axis=k)
        assert isinstance(parts, tuple) and len(parts) == a.shape[k]
        if parts:
            same(sp.stack(parts, axis=k), a)


@few
@given(pairs(NUMERIC), st.data())
def test_broadcast_concat_and_stack_agree_with_numpy(ab, data):
    a, b = ab
    got, want = sp.broadcast_arrays(tensor(a), tensor(b)), np.broadcast_arrays(a, b)
    assert isinstance(got, list)
    for g, w in zip(got, want, strict=True):
        same(g, w)
    a, b = want
    same(sp.broadcast_to(tensor(ab[0]), a.shape), a)
    axis = data.draw(axes_of(a.ndim, tuples=False))
    same(sp.concat([tensor(a), tensor(b)], axis=axis), np.concatenate([a, b], axis))
    same(sp.stack((tensor(a), tensor(b)), axis=-1), np.stack([a, b], -1))


@few
@given(arrays(shape=full_shapes), st.data())
def test_take_and_take_along_axis_agree_with_numpy(a, data):
    if not a.ndim:
        return
    axis = data.draw(st.integers(-a.ndim, a.ndim - 1))
    n = a.shape[axis]
    places = np.asarray(data.draw(st.lists(st.integers(-n, n - 1), max_size=5)), np.int64)
    same(sp.take(tensor(a), tensor(places), axis=axis), np.take(a, places, axis))
    order = np.argsort(a, axis=axis, stable=True)
    same(sp.take_along_axis(tensor(a), tensor(order), axis=axis), np.take_along_axis(a, order, axis))


@few
@given(arrays(), st.data())
def test_getitem_and_setitem_agree_with_numpy(a, data):
    key = data.draw(hnp.basic_indices(a.shape, allow_newaxis=True))
    x = tensor(a)
    same(x[key], a[key])
    value = np.ones((), a.dtype)
    b = a.copy()
    b[key] = value
    y = sp.asarray(x, copy=True)
    y[key] = tensor(value)
    same(y, b)
    same(x, a)
    y[key] = value.item()
    same(y, b)


@few
@given(arrays(), st.data())
def test_boolean_masks_select_and_assign(a, data):
    mask = data.draw(hnp.arrays(np.bool_, a.shape[: data.draw(st.integers(0, a.ndim))]))
    x = tensor(a)
    same(x[tensor(mask)], a[mask])
    b = a.copy()
    b[mask] = 1
    x[tensor(mask)] = 1
    same(x, b)


def test_integer_tensors_index_alone_and_in_tuples():
    a = np.arange(24).reshape(2, 3, 4)
    x, i = tensor(a), np.array([[1, 0], [0, 1]])
    same(x[tensor(i)], a[i])
    same(x[tensor(i), 1], a[i, 1])
    same(x[:, tensor(i), ...], a[:, i, ...])
    same(x[sp.asarray(1), sp.asarray(-1, dtype=sp.int8)], a[1, -1])
    with pytest.raises(TypeError, match="float32"):
        x[sp.asarray(1.0)]
    with pytest.raises(IndexError, match=r"\(2, 3, 4\)"):
        x[5]


def test_reshape_copies_shares_or_refuses():
    x = sp.arange(6)
    assert np.shares_memory(sp.reshape(x, (2, 3), copy=False).numpy(), x.numpy())
    assert not np.shares_memory(sp.reshape(x, (2, 3), copy=True).numpy(), x.numpy())
    turned = sp.reshape(x, (2, 3)).T
    with pytest.raises(ValueError, match="copy=False"):
        sp.reshape(turned, (6,), copy=False)
    assert sp.reshape(turned, (-1,)).tolist() == [0, 3, 1, 4, 2, 5]


def test_errors_of_axes_are_those_the_standard_asks_for():
    x = sp.ones((2, 1))
    for axis in (3, -4):
        with pytest.raises(IndexError, match="expand_dims"):
            sp.expand_dims(x, axis=axis)
    with pytest.raises(ValueError, match="squeeze"):
        sp.squeeze(x, 0)
    for bad in (
        lambda: sp.roll(x, (1, 2)),
        lambda: sp.tile(x, (-1,)),
        lambda: sp.repeat(x, -1),
        lambda: sp.repeat(x, sp.asarray([1, 2, 3]), axis=0),
        lambda: sp.moveaxis(x, (0, 1), (0,)),
        lambda: sp.unstack(sp.asarray(1.0)),
        lambda: sp.take(x, sp.asarray([0])),
        lambda: sp.meshgrid(x),
        lambda: sp.meshgrid(sp.ones(2), indexing="yx"),
    ):
        with pytest.raises(ValueError):
            bad()
    for far in (lambda: sp.take(x, sp.asarray([2]), axis=0), lambda: sp.take_along_axis(x, sp.asarray([[5]]), axis=0)):
        with pytest.raises(IndexError, match="not in"):
            far()


def _gradient(function, x, weight):
    x = sp.asarray(x, dtype=sp.float64, copy=True).requires_grad_()
    y = function(x)
    (y * sp.asarray(weight[: y.size], dtype=sp.float64).reshape(y.shape)).sum().backward()
    return x.grad.numpy()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: sp.tile(x, (2, 2)),
        lambda x: sp.repeat(x, sp.asarray([2, 0, 1]), axis=1),
        lambda x: sp.moveaxis(x, 0, 1),
        lambda x: sp.take(x, sp.asarray([1, 1, 0]), axis=0),
        lambda x: sp.sort(x, axis=1, descending=True),
        lambda x: sp.diff(x, axis=1, prepend=sp.ones((2, 1), dtype=sp.float64)),
        lambda x: sp.unstack(x)[1] * sp.unstack(x)[0],
        lambda x: sp.concat([x, x * x], axis=None),
        lambda x: sp.roll(x, 1, axis=0) * x,
        lambda x: sp.linalg.diagonal(x, offset=1),
    ],
)
def test_gradients_of_moving_functions_agree_with_differences(function):
    rng = np.random.default_rng(0)
    x, weight, step = rng.normal(size=(2, 3)), rng.normal(size=64), rng.normal(size=(2, 3))

    def total(a):
        y = function(sp.asarray(a)).numpy()
        return float((y * weight[: y.size].reshape(y.shape)).sum())

    slope = (total(x + 1e-6 * step) - total(x - 1e-6 * step)) / 2e-6
    assert abs(float((_gradient(function, x, weight) * step).sum()) - slope) < 1e-7


def test_shapes_without_elements_survive():
    for shape in ((0,), (2, 0), (0, 3)):
        x = sp.zeros(shape)
        assert sp.tile(x, (2,)).size == 0 and sp.roll(x, 1).shape == shape and sp.repeat(x, 2).shape == (0,)


def _address(x):
    return x.numpy().__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", [sp.float32, sp.int64])
def test_item_assignment_stays_in_its_block_while_nobody_shares_it(dtype):
    x = sp.zeros(1000, dtype=dtype)
    place = _address(x)
    x[3] = 1.0
    x[5:7] = sp.ones(2, dtype=dtype)
    x[sp.asarray([1, 2])] = 4
    assert _address(x) == place and sp.sum(x).item() == 11


@pytest.mark.parametrize(
    "share",
    [
        lambda x: x[2:5],
        lambda x: sp.reshape(x, (2, 5)),
        lambda x: x.detach(),
        lambda x: sp.broadcast_to(x, (3, 10)),
        lambda x: x.numpy(),
        lambda x: np.from_dlpack(x),
        lambda x: sp.from_dlpack(x),
        lambda x: memoryview(x.numpy()),
        lambda x: x.T if x.ndim == 2 else sp.flip(x),
    ],
)
def test_item_assignment_leaves_whatever_shares_the_block_alone(share):
    x = sp.arange(10, dtype=sp.float32)
    seen = share(x)
    before = np.array(seen)
    x[3] = 100.0
    np.testing.assert_array_equal(np.array(seen), before)
    assert x[3].item() == 100.0


def test_item_assignment_does_not_change_what_a_node_saved_nor_foreign_memory():
    w = sp.ones(3).requires_grad_()
    x = sp.asarray([1.0, 2.0, 3.0])
    y = (w * x).sum()
    x[0] = 50.0
    y.backward()
    assert w.grad.tolist() == [1.0, 2.0, 3.0]
    a = np.zeros(3)
    t = sp.asarray(a, copy=False)
    t[0] = 1.0
    assert a.tolist() == [0.0, 0.0, 0.0] and t.tolist() == [1.0, 0.0, 0.0]
    z = sp.arange(5)
    z[1:] = z[:-1]
    assert z.tolist() == [0, 0, 1, 2, 3]
    m = sp.arange(3)
    m[m] = m
    m[...] = m
    assert m.tolist() == [0, 1, 2]


def test_item_assignment_that_does_not_fit_is_a_typed_error_and_changes_nothing():
    x = sp.zeros(3)
    with pytest.raises(sp.errors.ShapeError, match="item assignment"):
        x[:2] = sp.ones(3)
    with pytest.raises(IndexError, match=r"\(3,\)"):
        x[7] = 1.0
    with pytest.raises(IndexError, match=r"\(3,\)"):
        x[sp.ones((3, 1), dtype=sp.bool)] = 1.0
    assert x.tolist() == [0.0, 0.0, 0.0]

"""Products and the linalg extension: against NumPy, by what defines a decomposition, with gradients."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import FLOATS, NUMERIC, arrays, few, pairs, same, tensor

import spiral as sp

la = sp.linalg
stacks = st.sampled_from([(), (2,), (2, 1), (0,)])


@st.composite
def well_conditioned(draw, symmetric=False, shape=None):
    """Stacks of square matrices with separated eigenvalues."""
    lead, n = draw(stacks) if shape is None else shape, draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    a = rng.normal(size=(*lead, n, n)) * 0.1 + np.diag(np.arange(1.0, n + 1))
    return ((a + np.swapaxes(a, -1, -2)) / 2 if symmetric else a).astype(draw(st.sampled_from(FLOATS)))


def close(got, want, dtype):
    assert got.dtype.name == np.dtype(dtype).name and got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-4)


@few
@given(well_conditioned(), st.data())
def test_inverse_determinant_and_solution(a, data):
    x, eye = tensor(a), np.broadcast_to(np.eye(a.shape[-1]), a.shape)
    close(la.inv(x) @ x, eye, a.dtype)
    close(la.det(x), np.linalg.det(a), a.dtype)
    sign, logabsdet = la.slogdet(x)
    close(sign * sp.exp(logabsdet), np.linalg.det(a), a.dtype)
    n = a.shape[-1]
    for b in (np.ones(n, a.dtype), np.ones((n, 2), a.dtype), np.ones((*a.shape[:-2], n, 1), a.dtype)):
        solution = la.solve(x, tensor(b))
        back = x @ (sp.expand_dims(solution, axis=-1) if b.ndim == 1 else solution)
        want = np.broadcast_to(b[:, None] if b.ndim == 1 else b, back.shape)
        close(back, want, a.dtype)
    for n in (-2, -1, 0, 1, 3, 5):
        close(la.matrix_power(x, n), np.linalg.matrix_power(a, n) if a.size else a, a.dtype)
    close(la.pinv(x), np.linalg.pinv(a), a.dtype)
    assert la.matrix_rank(x).tolist() == np.full(a.shape[:-2], a.shape[-1]).tolist()


@few
@given(well_conditioned(symmetric=True))
def test_decompositions_give_back_the_matrix(a):
    x, n = tensor(a), a.shape[-1]
    w, v = la.eigh(x)
    close(v @ (sp.expand_dims(w, axis=-1) * v.mT), a, a.dtype)
    close(la.eigvalsh(x), np.linalg.eigvalsh(a), a.dtype)
    lower, upper = la.cholesky(x), la.cholesky(x, upper=True)
    close(lower @ lower.mT, a, a.dtype)
    close(upper.mT @ upper, a, a.dtype)
    assert bool(sp.all(sp.tril(lower) == lower)) and bool(sp.all(sp.triu(upper) == upper))
    tall = a[..., : n // 2]
    for mode in ("reduced", "complete"):
        q, r = la.qr(tensor(tall), mode=mode)
        close(q @ r, tall, a.dtype)
        close(q.mT @ q, np.broadcast_to(np.eye(q.shape[-1]), (*q.shape[:-2], q.shape[-1], q.shape[-1])), a.dtype)
    u, s, vh = la.svd(tensor(tall), full_matrices=False)
    close((u * sp.expand_dims(s, axis=-2)) @ vh, tall, a.dtype)
    close(la.svdvals(tensor(tall)), s.numpy(), a.dtype)
    assert la.svd(tensor(tall)).U.shape[-1] == n


def test_results_have_the_standard_s_field_names():
    x = sp.eye(3) * 2.0
    assert la.eigh(x)._fields == ("eigenvalues", "eigenvectors") and la.qr(x)._fields == ("Q", "R")
    assert la.svd(x)._fields == ("U", "S", "Vh") and la.slogdet(x)._fields == ("sign", "logabsdet")


def test_rank_and_pseudo_inverse_of_a_deficient_matrix():
    x = sp.asarray([[[1.0, 2.0], [2.0, 4.0]], [[1.0, 0.0], [0.0, 1e-3]]], dtype=sp.float64)
    assert la.matrix_rank(x).tolist() == [1, 2] and la.matrix_rank(x, rtol=0.01).tolist() == [1, 1]
    assert la.matrix_rank(x, rtol=sp.asarray([0.01, 1e-6], dtype=sp.float64)).tolist() == [1, 2]
    close(x[0] @ la.pinv(x)[0] @ x[0], x[0].numpy(), "float64")
    assert la.pinv(sp.zeros((2, 3))).shape == (3, 2) and la.matrix_rank(sp.zeros((2, 0))).item() == 0


@few
@given(arrays(NUMERIC, hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=4), -9, 9), st.integers(-5, 5))
def test_diagonal_and_trace_agree_with_numpy(a, offset):
    same(la.diagonal(tensor(a), offset=offset), np.linalg.diagonal(a, offset=offset))
    same(la.trace(tensor(a), offset=offset), np.asarray(np.linalg.trace(a, offset=offset)), 1e-4)
    same(la.trace(tensor(a), offset=offset, dtype=sp.float64), np.linalg.trace(a, offset=offset, dtype="float64"), 1e-4)


@few
@given(pairs(NUMERIC, low=-9, high=9), st.data())
def test_vecdot_outer_and_tensordot_agree_with_numpy(ab, data):
    a, b = np.broadcast_arrays(*ab)
    kind = np.result_type(a, b)
    if a.ndim:
        axis = data.draw(st.integers(-a.ndim, -1))
        want = (a.astype(kind) * b.astype(kind)).sum(axis, dtype=kind)
        same(sp.vecdot(tensor(a), tensor(b), axis=axis), want, 1e-3)
    n = data.draw(st.integers(0, a.ndim))
    left, right = data.draw(st.permutations(range(a.ndim))), list(range(b.ndim))
    pairs_of_axes = ([left[i] for i in range(n)], [left[i] for i in range(n)])
    same(
        sp.tensordot(tensor(a), tensor(b), axes=pairs_of_axes),
        np.asarray(np.tensordot(a.astype(kind), b.astype(kind), pairs_of_axes)),
        1e-3,
    )
    c = np.moveaxis(b, range(b.ndim), right[::-1])
    same(
        sp.tensordot(tensor(a), tensor(c), axes=min(1, a.ndim)),
        np.asarray(np.tensordot(a.astype(kind), c.astype(kind), min(1, a.ndim))),
        1e-3,
    )
    x, y = a.reshape(-1), b.reshape(-1)
    same(la.outer(tensor(x), tensor(y)), np.multiply.outer(x.astype(kind), y.astype(kind)))


def test_cross_broadcasts_and_wants_length_three():
    a, b = np.arange(12.0).reshape(4, 3), np.asarray([1.0, -2.0, 3.0])
    same(la.cross(tensor(a), tensor(b)), np.linalg.cross(a, b))
    same(la.cross(tensor(a.T), tensor(b[:, None]), axis=-2), np.linalg.cross(a, b).T)
    with pytest.raises(ValueError, match="length 3"):
        la.cross(sp.ones((3, 2)), sp.ones((3, 2)))
    with pytest.raises(ValueError, match="length 3"):
        la.cross(sp.ones((3, 1)), sp.ones((3, 3)))


@few
@given(
    arrays(FLOATS, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=4), -9, 9),
    st.sampled_from([1, 2, 3, 0.5, math.inf, -math.inf, 0]),
    st.booleans(),
)
def test_norms_agree_with_numpy(a, order, keepdims):
    for axis in (None, 0, (0, 1)):
        if order == 0.5:
            a = np.abs(a) + 1
        want = np.linalg.vector_norm(a, axis=axis, ord=order, keepdims=keepdims)
        same(la.vector_norm(tensor(a), axis=axis, ord=order, keepdims=keepdims), np.asarray(want, a.dtype), 1e-3)
    for kind in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf):
        want = np.linalg.matrix_norm(a, ord=kind, keepdims=keepdims)
        same(la.matrix_norm(tensor(a), ord=kind, keepdims=keepdims), np.asarray(want, a.dtype), 1e-3)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: la.inv(sp.ones((2, 3))),
        lambda: la.inv(sp.zeros((2, 2))),
        lambda: la.cholesky(-sp.eye(2)),
        lambda: la.solve(sp.eye(3), sp.ones(2)),
        lambda: la.qr(sp.eye(2), mode="full"),
        lambda: la.det(sp.ones(3)),
        lambda: la.outer(sp.ones((2, 2)), sp.ones(2)),
        lambda: la.matrix_norm(sp.eye(2), ord=7),
        lambda: sp.tensordot(sp.ones((2, 3)), sp.ones((2, 3))[:, :2]),
        lambda: sp.vecdot(sp.ones(3), sp.ones(1)),
        lambda: sp.matmul(sp.ones((2, 3)), sp.ones((2, 3))),
        lambda: la.matrix_power(sp.ones((2, 3)), 2),
        lambda: la.diagonal(sp.ones(3)),
    ],
)
def test_shapes_that_do_not_fit_are_typed_errors(bad):
    la.qr(sp.eye(2))  # what is checked must not be checked at the first call only
    la.det(sp.eye(2))
    with pytest.raises(sp.errors.SpiralError):
        bad()


def test_integers_have_no_decomposition():
    for name in ("cholesky", "det", "eigh", "inv", "qr", "slogdet", "svd", "svdvals", "pinv", "vector_norm"):
        with pytest.raises(TypeError, match=r"must be floating"):
            getattr(la, name)(sp.eye(2, dtype=sp.int64))


def test_gradients_flow_through_norms_trace_power_and_eigenvalues():
    a = np.array([[2.0, 0.5], [0.25, 3.0]])
    x = sp.asarray(a).requires_grad_()
    (la.trace(la.matrix_power(x, 3)) + la.matrix_norm(x) + sp.sum(la.eigvalsh(x))).backward()
    want = 3 * (a @ a).T + a / np.linalg.norm(a) + np.eye(2)
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-12)

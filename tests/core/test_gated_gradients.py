"""Gradients of gated activations whose operands differ in shape or dtype, and so must be summed or cast back."""

import numpy as np
import pytest

import spiral as sp

NORMAL = np.random.default_rng(2).standard_normal
OPS = [sp.swiglu, sp.geglu]


def gradients(op, a, b, g):
    a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
    sp.sum(op(a, b) * g).backward()
    return a.grad, b.grad


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
@pytest.mark.parametrize("shapes", [((5, 1), (7,)), ((7,), (3, 5, 7)), ((2, 5, 7), (1, 1)), ((1,), (1, 1))], ids=str)
def test_broadcast_operands_get_the_sums_of_the_gradients_of_full_ones(op, shapes):
    a, b = (sp.asarray(NORMAL(shape)) for shape in shapes)
    full = np.broadcast_shapes(*shapes)
    g = sp.asarray(NORMAL(full))
    got = gradients(op, a, b, g)
    whole = gradients(op, sp.broadcast_to(a, full), sp.broadcast_to(b, full), g)
    for x, dx, d in zip((a, b), got, whole, strict=True):
        lead = len(full) - x.ndim
        axes = tuple(i for i in range(len(full)) if i < lead or x.shape[i - lead] == 1)
        assert dx.shape == x.shape
        np.testing.assert_allclose(dx.numpy(), d.numpy().sum(axes).reshape(x.shape), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_operands_of_two_dtypes_get_gradients_of_their_own(op):
    a, b, g = (sp.asarray(NORMAL((5, 7))) for _ in range(3))
    da, db = gradients(op, a.astype(sp.bfloat16), b.astype(sp.float32), g.astype(sp.float32))
    assert (da.dtype, db.dtype) == (sp.bfloat16, sp.float32)
    wide = gradients(op, a.astype(sp.bfloat16).astype(sp.float64), b, g)
    np.testing.assert_allclose(da.astype(sp.float64).numpy(), wide[0].numpy(), rtol=8e-3, atol=1e-2)
    np.testing.assert_allclose(db.numpy(), wide[1].numpy(), rtol=1e-2, atol=1e-2)

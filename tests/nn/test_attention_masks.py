"""scaled_dot_product_attention: every mask, window, grouping and length against a float64 computation in PyTorch."""

import math

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.errors import ArgumentError, DTypeError, ShapeError

torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
attend = nn.functional.scaled_dot_product_attention


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def reference(q, k, v, seen, added):
    """y and the gradients of its sum; rows that see nothing are 0."""
    q, k, v = (torch.tensor(a.astype(np.float64), requires_grad=True) for a in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(groups, 1).mT / math.sqrt(q.shape[-1])
    if added is not None:
        scores = scores + torch.tensor(added.astype(np.float64))
    scores = scores.masked_fill(~torch.tensor(np.broadcast_to(seen, scores.shape).copy()), -math.inf)
    empty = (scores == -math.inf).all(-1, keepdim=True)
    p = torch.where(empty, 0.0, torch.softmax(torch.where(empty, 0.0, scores), -1))
    y = p @ v.repeat_interleave(groups, 1)
    y.sum().backward()
    return [t.detach().numpy() for t in (y, q.grad, k.grad, v.grad)]


@pytest.mark.parametrize("n_kv_head", [4, 2, 1])
@pytest.mark.parametrize("t, s", [(5, 5), (3, 7), (7, 3), (1, 9), (65, 65)])
@pytest.mark.parametrize("causal, window", [(False, 0), (True, 0), (True, 2), (False, 3)])
@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_values_and_gradients(n_kv_head, t, s, causal, window, kind):
    q, k, v = normal(2, 4, t, 8), normal(2, n_kv_head, s, 8, seed=1), normal(2, n_kv_head, s, 8, seed=2)
    position, key = np.arange(t)[:, None] + s - t, np.arange(s)[None]
    seen = np.ones((t, s), bool)
    if causal:
        seen &= key <= position
    if window:
        seen &= key > position - window
    mask = added = None
    if kind == "bool":
        mask = np.random.default_rng(0).random((2, 1, t, s)) < 0.6
        mask[0, 0, 0] = False  # a row that sees nothing
        seen = seen & mask
    elif kind == "float":
        mask = added = normal(1, 4, t, s, seed=3)
    leaves = [sp.asarray(a).requires_grad_() for a in (q, k, v)]
    y = attend(*leaves, None if mask is None else sp.asarray(mask), is_causal=causal, window=window)
    y.sum().backward()
    for got, want in zip([y, *(x.grad for x in leaves)], reference(q, k, v, seen, added), strict=True):
        np.testing.assert_allclose(got.numpy(), want, atol=2e-5)


def test_a_row_that_sees_nothing_gives_zeros_and_no_nan_in_any_gradient():
    mask = np.where(np.arange(16).reshape(4, 4) % 3 == 0, -np.inf, 0.5).astype(np.float32)
    mask[1] = -np.inf
    m = sp.asarray(mask).requires_grad_()
    q, k, v = (sp.asarray(normal(1, 2, 4, 8, seed=i)).requires_grad_() for i in range(3))
    y = attend(q, k, v, m)
    (y * y).sum().backward()
    assert not y.numpy()[:, :, 1].any()
    for t in (q, k, v, m):
        assert np.isfinite(t.grad.numpy()).all()
    assert not m.grad.numpy()[np.isneginf(mask)].any() and not q.grad.numpy()[:, :, 1].any()


@pytest.mark.parametrize("lead", [(), (3,), (2, 3, 4)])
def test_any_number_of_batch_axes(lead):
    q, k, v = normal(*lead, 5, 8), normal(*lead, 6, 8, seed=1), normal(*lead, 6, 8, seed=2)
    mask = np.random.default_rng(0).random((5, 6)) < 0.7
    mask[:, 0] = True
    y = attend(*map(sp.asarray, (q, k, v)), sp.asarray(mask))
    t = torch.nn.functional.scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), torch.tensor(mask))
    np.testing.assert_allclose(y.numpy(), t.numpy(), atol=1e-5)


def test_a_mask_over_several_batch_axes():
    q = normal(2, 3, 4, 5, 8)
    mask = normal(2, 1, 4, 5, 5)
    y = attend(*[sp.asarray(q)] * 3, sp.asarray(mask))
    t = torch.nn.functional.scaled_dot_product_attention(*[torch.tensor(q)] * 3, torch.tensor(mask))
    np.testing.assert_allclose(y.numpy(), t.numpy(), atol=1e-5)


@pytest.mark.parametrize("width", [3, 16])
def test_values_of_another_width_than_keys(width):
    q, k, v = normal(2, 4, 5, 8), normal(2, 2, 6, 8), normal(2, 2, 6, width)
    leaves = [sp.asarray(a).requires_grad_() for a in (q, k, v)]
    y = attend(*leaves)
    y.sum().backward()
    expected = reference(q, k, v, np.ones((5, 6), bool), None)
    for got, want in zip([y, *(x.grad for x in leaves)], expected, strict=True):
        np.testing.assert_allclose(got.numpy(), want, atol=2e-5)


def test_dropout_drops_weights_keeps_the_mean_and_repeats_with_the_seed():
    q = k = sp.zeros((1, 4, 64, 8))
    v = sp.ones((1, 2, 64, 8)).requires_grad_()
    k = k[:, :2]
    sp.random.manual_seed(0)
    y = attend(q, k, v, dropout_p=0.25)
    assert y.shape == (1, 4, 64, 8) and abs(float(y.mean()) - 1.0) < 0.02
    assert len(np.unique(y.numpy())) > 5
    y.sum().backward()
    assert float(v.grad.sum()) == pytest.approx(float(y.sum()), rel=1e-5)
    sp.random.manual_seed(0)
    assert attend(q, k, v, dropout_p=0.25).tolist() == y.tolist()


def test_multi_head_attention_drops_in_training_only():
    sp.random.manual_seed(0)
    module, x = nn.MultiHeadAttention(8, 2, dropout=0.5), sp.asarray(normal(1, 6, 8))
    assert module(x).tolist() != module(x).tolist()
    module.eval()
    assert module(x).tolist() == module(x).tolist()
    with pytest.raises(ArgumentError, match="dropout must be a number in"):
        nn.MultiHeadAttention(8, 2, dropout=1.5)


def test_wrong_masks_and_shapes_are_refused():
    q = sp.asarray(normal(2, 2, 5, 8))
    with pytest.raises(DTypeError, match="mask must be floating; received int64"):
        attend(q, q, q, sp.ones((5, 5), dtype=sp.int64))
    with pytest.raises(ShapeError, match=r"mask must broadcast to \(2, 2, 5, 5\); received \(5, 4\)"):
        attend(q, q, q, sp.ones((5, 4)))
    with pytest.raises(ShapeError, match="same number of axes"):
        attend(q[0], q, q)
    with pytest.raises(ShapeError, match="same batch axes"):
        attend(sp.ones((1, 2, 2, 5, 8)), sp.ones((2, 2, 2, 5, 8)), sp.ones((2, 2, 2, 5, 8)))

"""float32 products with factors rounded to tf32: only where they are asked for, and then rounded to the nearest."""

import numpy as np
import pytest

import spiral as sp
from spiral.backends.cuda import gemm, linear, linear_loss
from spiral.gpu import drivers
from tests.on_cuda.test_library_products import NumpyBlas


def rounded(a):
    bits = a.view(np.uint32)
    return ((bits + 0x1000) & 0xFFFFE000).view(np.float32)


def operand(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def on_device(a):
    return sp.asarray(a).to("cuda")


@pytest.mark.parametrize("turn_x", [False, True])
@pytest.mark.parametrize("turn_y", [False, True])
@pytest.mark.parametrize("m, n, k", [(70, 68, 40), (65, 67, 33), (1, 3, 5), (130, 132, 64), (4, 4, 0)])
def test_factors_are_rounded_to_the_nearest(turn_x, turn_y, m, n, k):
    x, y = operand(*((k, m) if turn_x else (m, k))), operand(*((n, k) if turn_y else (k, n)))
    with sp.prefer(tf32=True):
        got = sp.matmul(*(sp.permute_dims(t, (1, 0)) if turn else t
                          for t, turn in ((on_device(x), turn_x), (on_device(y), turn_y))))  # fmt: skip
    x, y = x.T if turn_x else x, y.T if turn_y else y
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    want = rounded(x).astype(np.float64) @ rounded(y).astype(np.float64)
    np.testing.assert_allclose(got.to("cpu").numpy(), want, atol=1e-5)


def test_products_are_exact_unless_asked_for():
    x, y = operand(33, 40), operand(40, 17)
    got = sp.matmul(on_device(x), on_device(y)).to("cpu").numpy()
    np.testing.assert_allclose(got, x.astype(np.float64) @ y.astype(np.float64), atol=1e-5)
    np.testing.assert_raises(
        AssertionError, np.testing.assert_allclose, rounded(x).astype(np.float64) @ rounded(y), got, atol=1e-5
    )


def test_explain_names_the_way_to_it():
    x = on_device(operand(5, 5))
    assert "spiral.prefer(tf32=True)" in str(sp.explain("matmul", x, x))
    with sp.prefer(tf32=True):
        assert sp.explain("matmul", x, x).chosen.kernel == "_matmul, in tf32"
        with sp.prefer(tf32=False):
            assert sp.explain("matmul", x, x).chosen.kernel == "_matmul"


def test_other_dtypes_run_as_ever():
    x = operand(9, 9)
    with sp.prefer(tf32=True):
        got = sp.matmul(*(on_device(x).astype(sp.float64) for _ in range(2)))
    np.testing.assert_allclose(got.to("cpu").numpy(), x.astype(np.float64) @ x.astype(np.float64), atol=1e-12)


def test_linear_and_its_gradients_are_rounded_in_a_backward_that_asks_for_it():
    x, w, g = operand(37, 24), operand(19, 24), operand(37, 19)
    tx, tw = on_device(x), on_device(w)
    tx.requires_grad = tw.requires_grad = True
    with sp.prefer(tf32=True):
        y = sp.linear(tx, tw, activation="none")
        y.backward(on_device(g))
    x, w, g = (rounded(a).astype(np.float64) for a in (x, w, g))
    for got, want in ((y, x @ w.T), (tx.grad, g @ w), (tw.grad, g.T @ x)):
        np.testing.assert_allclose(got.to("cpu").numpy(), want, atol=2e-5)


def test_a_library_is_told(monkeypatch):
    library = NumpyBlas()
    monkeypatch.setattr(drivers()[0], "blas", library, raising=False)
    for module in (gemm, linear):
        monkeypatch.setattr(module, "LIBRARY_FROM", 60)
    x = on_device(operand(9, 9))
    sp.matmul(x, x)
    assert library.tf32 is False
    with sp.prefer(tf32=True):
        sp.matmul(x, x)
    assert library.tf32 is True
    assert library.calls == 2


def test_linear_with_activation_is_rounded():
    x, w, residual = operand(37, 24), operand(19, 24), operand(37, 19)
    with sp.prefer(tf32=True):
        got = sp.linear_activation(on_device(x), on_device(w), None, on_device(residual), activation="relu")
    want = np.maximum(rounded(x).astype(np.float64) @ rounded(w).T, 0) + residual
    np.testing.assert_allclose(got.to("cpu").numpy(), want, atol=1e-5)


def test_linear_cross_entropy_is_rounded_and_joins_its_tiles(monkeypatch):
    monkeypatch.setattr(linear_loss, "TILE", 1 << 11)
    monkeypatch.setattr(linear_loss, "TILE_CLASSES", 130)
    monkeypatch.setattr(linear_loss, "GRADIENTS", 1 << 12)
    x, w, targets = rounded(operand(33, 24)), rounded(operand(403, 24)), np.arange(33) * 7
    results = []
    for device in ("cpu", "cuda"):
        leaves = [sp.asarray(a).to(device).detach() for a in (x, w)]
        for leaf in leaves:
            leaf.requires_grad = True
        with sp.prefer(tf32=True):
            loss = sp.linear_cross_entropy(*leaves, sp.asarray(targets).to(device))
            loss.backward()
        results.append([t.to("cpu").numpy() for t in (loss, *(leaf.grad for leaf in leaves))])
    for i, (on_cpu, on_cuda) in enumerate(zip(*results, strict=True)):  # the logits' gradient is rounded too
        np.testing.assert_allclose(on_cuda, on_cpu, atol=(1e-3 if i else 1e-6) * np.abs(on_cpu).max())

"""Cross-entropy of a linear layer on the Triton backend, in more tiles than one."""

import numpy as np
import pytest

import spiral as sp
from spiral.backends.triton import linear_loss
from spiral.op import OPS


def call(name, *args):
    with sp.prefer("triton", fallback="error"):
        found = OPS[name].call(*args)
    return [t.to("cpu").astype(sp.float64).numpy() for t in (found if isinstance(found, tuple) else (found,))]


def device(x, dtype=sp.float32):
    return sp.asarray(np.asarray(x)).to("cuda").astype(dtype)


@pytest.mark.parametrize("dtype", [sp.float32, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize(("reduction", "smoothing", "z"), [("mean", 0.0, 0.0), ("none", 0.1, 1e-2)])
def test_tiles_of_rows_and_classes_are_joined(monkeypatch, dtype, reduction, smoothing, z):
    monkeypatch.setattr(linear_loss, "TILE", 16 * 128)
    monkeypatch.setattr(linear_loss, "TILE_CLASSES", 40)
    monkeypatch.setattr(linear_loss, "GRADIENTS", 1)
    rng = np.random.default_rng(0)
    x, weight = device(rng.normal(size=(60, 5)), dtype), device(rng.normal(size=(150, 5)), dtype)
    t = rng.integers(0, 150, 60)
    t[7] = 3
    attrs = (3, smoothing, z, reduction)
    wide = [a.to("cpu").astype(sp.float64).numpy() for a in (x, weight)]
    want = OPS["linear_cross_entropy"].oracle(*wide, t, *attrs)
    (loss,) = call("linear_cross_entropy", x, weight, device(t, sp.int64), *attrs)
    np.testing.assert_allclose(loss, want[0], rtol=2e-5, atol=1e-5)
    g = rng.normal(size=want[0].shape).astype(np.float32)
    lse = want[1].astype(np.float32)
    args = (device(g), x, weight, device(t, sp.int64), device(lse), True, True)
    found = call("linear_cross_entropy_grad", *args, *attrs)
    expected = OPS["linear_cross_entropy_grad"].oracle(g, *wide, t, lse, True, True, *attrs)
    for got, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            got, exact, rtol=0, atol=(1e-5 if dtype is sp.float32 else 2e-2) * np.abs(exact).max()
        )


def test_no_rows_leave_a_gradient_of_zero():
    x, weight = device(np.zeros((0, 3))), device(np.ones((4, 3)))
    args = (device(1.0), x, weight, device(np.zeros(0), sp.int64), device(np.zeros(0)), True, True)
    dx, dw = call("linear_cross_entropy_grad", *args, -100, 0.0, 0.0, "sum")
    assert dx.shape == (0, 3) and dw.tolist() == [[0.0] * 3] * 4

"""Softmax and cross-entropy on the Triton backend: long rows and columns, infinities, in place, other targets."""

import numpy as np
import pytest

import spiral as sp
from spiral.backends.triton.loss import _cross_entropy_grad
from spiral.op import OPS


def host(t):
    return t.to("cpu").astype(sp.float64).numpy()


def device(x, dtype=sp.float32):
    return sp.asarray(np.asarray(x, np.float32)).to("cuda").astype(dtype)


def close(got, want, tolerance):
    np.testing.assert_allclose(host(got), want, rtol=tolerance, atol=tolerance * np.abs(want[np.isfinite(want)]).max())


def call(name, *args):
    with sp.prefer("triton", fallback="error"):
        return OPS[name].call(*args)


SHAPES = [((3, 33), 1), ((2, 1027), 1), ((2, 9001), 1), ((70, 5), 0), ((2, 30, 70), 1)]


@pytest.mark.parametrize("dtype", [sp.float32, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_rows_and_columns_of_any_length(shape, axis, dtype):
    rng = np.random.default_rng(0)
    x, g = device(rng.normal(0.0, 5.0, shape), dtype), device(rng.normal(0.0, 1.0, shape), dtype)
    tolerance = 5e-6 if dtype is sp.float32 else 8e-3
    for name in ("softmax", "log_softmax"):
        want = OPS[name].oracle(host(x), axis)
        y = call(name, x, axis)
        close(y, want, tolerance)
        close(call(f"{name}_grad", g, y, axis), OPS[f"{name}_grad"].oracle(host(g), host(y), axis), tolerance)


def test_rows_with_infinities():
    inf, nan = np.inf, np.nan
    x = np.full((5, 600), 1.0)
    x[0, :599], x[1, :] = -inf, -inf
    x[2, 5], x[3, 7], x[4, ::2] = inf, nan, -inf
    for t, axis in ((device(x), 1), (device(x.T), 0)):
        got = host(call("softmax", t, axis)) if axis else host(call("softmax", t, axis)).T
        np.testing.assert_array_equal(got[0], [0.0] * 599 + [1.0])
        assert np.isnan(got[[1, 2, 3]]).all()
        np.testing.assert_allclose(got[4], [0.0, 1 / 300] * 300, rtol=1e-6)


LOSSES = [("mean", 0.0, 0.0), ("sum", 0.1, 0.0), ("none", 0.1, 1e-3)]


@pytest.mark.parametrize(("reduction", "smoothing", "z"), LOSSES)
@pytest.mark.parametrize("shape", [(110, 7), (5, 1025), (2, 9001)], ids=str)
def test_cross_entropy_of_any_size_with_any_targets(shape, reduction, smoothing, z):
    rng = np.random.default_rng(1)
    x = device(rng.normal(0.0, 3.0, shape))
    for dtype in (np.int64, np.int32, np.uint8):
        t = rng.integers(0, min(256, shape[1]), shape[0]).astype(dtype)
        t[1] = 3
        targets = sp.asarray(t).to("cuda")
        attrs = (3, smoothing, z, reduction)
        loss, lse = OPS["cross_entropy"].oracle(host(x), t.astype(np.int64), *attrs)
        close(call("cross_entropy", x, targets, *attrs), loss, 5e-6)
        g = device(rng.normal(size=loss.shape))
        args = (g, x, targets, device(lse))
        want = OPS["cross_entropy_grad"].oracle(host(g), host(x), t.astype(np.int64), host(device(lse)), *attrs)
        got = call("cross_entropy_grad", *args, *attrs)
        close(got, want, 5e-6)
        if dtype is np.int32:  # into the logits themselves
            _cross_entropy_grad(*(a._a for a in args), *attrs, x._a)
            np.testing.assert_array_equal(host(x), host(got))
            x = device(rng.normal(0.0, 3.0, shape))


def test_a_target_that_is_no_class_gives_nan_and_harms_no_other_row():
    x = device(np.zeros((3, 4)))
    for bad in (4, -1, 1 << 40):
        t = sp.asarray(np.array([1, bad, 2])).to("cuda")
        loss = host(call("cross_entropy", x, t, -100, 0.0, 0.0, "none"))
        assert np.isnan(loss).tolist() == [False, True, False]
        d = host(
            call("cross_entropy_grad", device(np.ones(3)), x, t, device(np.full(3, np.log(4))), -100, 0.0, 0.0, "none")
        )
        assert np.isnan(d).all(axis=1).tolist() == [False, True, False]


def test_the_mean_over_no_target_is_nan_and_the_sum_0():
    x, t = device(np.zeros((2, 3))), sp.asarray(np.array([-100, -100])).to("cuda")
    assert np.isnan(host(call("cross_entropy", x, t, -100, 0.0, 0.0, "mean")))
    assert host(call("cross_entropy", x, t, -100, 0.0, 0.0, "sum")) == 0.0
    assert host(call("cross_entropy", device(np.zeros((0, 3))), t[:0], -100, 0.0, 0.0, "sum")) == 0.0

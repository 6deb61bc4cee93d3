"""What the samples do not reach: rows longer than any block, misaligned views, values at the edges of a dtype."""

import ml_dtypes
import numpy as np
import pytest

import spiral as sp
from spiral.backend import Spec
from spiral.device_array import DeviceArray
from spiral.op import OPS

LONG = 4096 + 77  # longer than the longest block that is held in registers


def run(name, *inputs, eps=1e-5):
    """All outputs of a kernel, hidden ones too, and the oracle's."""
    (kernel,) = sp.backends()["triton"].kernels[name]
    arrays = [None if a is None else sp.asarray(a).to("cuda")._a for a in inputs]
    dtype = sp.asarray(inputs[0]).dtype
    specs = OPS[name].meta(*[None if a is None else Spec(a.shape, dtype) for a in inputs], eps)
    outs = [DeviceArray.of_spec(arrays[0].memory, s) for s in specs]
    kernel.fn(*arrays, eps, *outs)
    with np.errstate(all="ignore"):
        want = OPS[name].oracle(*[None if a is None else a.astype(np.float64) for a in inputs], eps)
    return [o.to_host() for o in outs], want


@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
@pytest.mark.parametrize("n", [127, 128, 129, 1025, LONG])
def test_rows_of_every_block_size(name, n):
    rng = np.random.default_rng(n)
    rest = [rng.standard_normal(n).astype(np.float32) for _ in range(1 if name == "rms_norm" else 2)]
    got, want = run(name, (rng.standard_normal((2, n)) + 3).astype(np.float32), *rest)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
def test_a_row_of_a_larger_array_is_read_where_it_lies(name):
    x = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    view = sp.asarray(x).to("cuda")[3:]  # 84 bytes into its memory
    assert view._a.address % 16
    with sp.prefer("triton"):
        got = OPS[name].call(view, *[None] * (len(OPS[name].inputs) - 1), 1e-6)
    want = OPS[name].oracle(x[3:].astype(np.float64), *[None] * (len(OPS[name].inputs) - 1), 1e-6)[0]
    np.testing.assert_allclose(got.to("cpu").numpy(), want, rtol=1e-5)


def test_infinities_and_nan_stay_in_their_rows():
    x = np.ones((4, 33), np.float32)
    x[1, 3], x[2, 5] = np.inf, np.nan
    got, want = run("rms_norm", x, None)
    np.testing.assert_array_equal(np.isnan(got[0]), np.isnan(want[0]))
    assert np.isfinite(got[0][[0, 3]]).all()


def test_half_precision_squares_do_not_overflow():
    x = np.full((1, 64), 60000.0, np.float16)
    got, _ = run("rms_norm", x, None)
    np.testing.assert_array_equal(got[0], np.ones((1, 64), np.float16))


def test_bfloat16_results_are_rounded_to_the_nearest():
    x = np.random.default_rng(1).standard_normal((16, 64)).astype(np.float32).astype(ml_dtypes.bfloat16)
    got, want = run("rms_norm", x, None)
    exact = want[0].astype(np.float32)
    off = np.abs(got[0].astype(np.float64) - exact)
    ulp = np.spacing(np.abs(exact).astype(ml_dtypes.bfloat16)).astype(np.float64)
    assert (off <= 0.501 * ulp).all()


def test_rows_of_any_strides_are_taken():
    x = np.random.default_rng(2).standard_normal((8, 4)).astype(np.float32)
    with sp.prefer("triton", fallback="error"):
        got = OPS["rms_norm"].call(sp.asarray(x).to("cuda").T, None, 1e-6).to("cpu").numpy()
    np.testing.assert_allclose(got, OPS["rms_norm"].oracle(x.T.astype(np.float64), None, 1e-6)[0], rtol=1e-5)


def on_triton(name, *inputs, **attrs):
    """All outputs of an op on the device."""
    with sp.prefer("triton", fallback="error"):
        outs = OPS[name].call(*[None if a is None else sp.asarray(a).to("cuda") for a in inputs], *attrs.values())
    return [t.to("cpu").numpy() for t in (outs if isinstance(outs, tuple) else (outs,))]


@pytest.mark.parametrize(("rows", "n"), [(3, LONG), (40, 100), (1100, 5), (9, 1500)])
def test_gradients_of_many_and_of_long_rows(rows, n):
    rng = np.random.default_rng(n)
    g, x = (rng.standard_normal((rows, n)).astype(np.float32) for _ in range(2))
    weight = rng.standard_normal(n).astype(np.float32)
    wide = [a.astype(np.float64) for a in (g, x, weight)]
    mean, rstd = wide[1].mean(1), 1 / np.sqrt(wide[1].var(1) + 1e-5)
    got = on_triton("layer_norm_grad", g, x, weight, mean.astype(np.float32), rstd.astype(np.float32))
    for a, b in zip(got, OPS["layer_norm_grad"].oracle(*wide, mean, rstd), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    rstd = 1 / np.sqrt((wide[1] ** 2).mean(1) + 1e-6)
    got = on_triton("add_rms_norm_grad", g, x, x, weight, rstd.astype(np.float32))
    for a, b in zip(got, OPS["add_rms_norm_grad"].oracle(wide[0], wide[1], *wide[1:], rstd), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_weights_may_be_wider_than_what_they_scale():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((5, 33)).astype(np.float16)
    weight, bias = (1 + 1e-4 * rng.standard_normal(33)).astype(np.float32), rng.standard_normal(33).astype(np.float32)
    got = on_triton("layer_norm", x, weight, bias, eps=1e-5)[0]
    want = OPS["layer_norm"].oracle(*[a.astype(np.float64) for a in (x, weight, bias)], 1e-5)[0]
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=6e-4, atol=1e-6)


def test_no_rows_give_gradients_of_zero():
    x = np.zeros((0, 4), np.float32)
    dx, dw, db = on_triton("layer_norm_grad", x, x, np.ones(4, np.float32), x[:, 0], x[:, 0])
    assert dx.shape == (0, 4) and dw.tolist() == db.tolist() == [0.0] * 4

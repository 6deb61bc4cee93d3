"""What the samples do not reach: rows longer than any block, misaligned views, values at the edges of a dtype."""

import ml_dtypes
import numpy as np
import pytest

import spiral as sp
from spiral.backend import Spec
from spiral.device_array import DeviceArray
from spiral.op import OPS

LONG = 8192 + 77  # longer than the longest block that is held in registers


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
@pytest.mark.parametrize("n", [255, 256, 257, 1025, 4097, LONG])
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


def test_noncontiguous_rows_are_left_to_another_kernel():
    x = sp.asarray(np.ones((4, 8), np.float32)).to("cuda").T
    with sp.prefer("triton"):
        rows = sp.explain("rms_norm", x, None, eps=1e-6)
    assert rows.chosen is None or rows.chosen.backend != "triton"

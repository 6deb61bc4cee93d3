"""Norms on the CUDA backend: long rows, many rows, views that begin anywhere, weights wider than x."""

import numpy as np
import pytest

import spiral as sp
from spiral.op import OPS


def host(t):
    return t.to("cpu").astype(sp.float64).numpy()


def cuda(x, dtype=sp.float32):
    return sp.asarray(np.asarray(x, np.float32)).to("cuda").astype(dtype)


def close(got, want, dtype, what=""):
    tolerance = {sp.float32: 3e-6, sp.bfloat16: 8e-3, sp.float16: 1e-3}[dtype]
    got = host(got)
    assert got.shape == want.shape
    bound = tolerance * max(1.0, np.abs(want).max())
    assert np.abs(got - want).max() <= bound, (what, np.abs(got - want).max(), bound)


def run(name, *args, **options):
    op = OPS[name]
    with sp.prefer("cuda", fallback="error"):
        attrs = [options[a.name] for a in op.attrs]
        out = op.call(*args, *attrs)
    return out if isinstance(out, tuple) else (out,)


def wide(args):
    return [None if a is None else host(a) for a in args]


SHAPES = [(1100, 8), (3, 1000), (5, 1025), (3, 20_000), (2, 33_333)]


@pytest.mark.parametrize("dtype", [sp.float32, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_of_any_length(shape, dtype):
    rng = np.random.default_rng(0)
    x, r = cuda(rng.normal(2.0, 1.0, shape), dtype), cuda(rng.normal(0.0, 3.0, shape), dtype)
    g, more = cuda(rng.normal(0.0, 1.0, shape), dtype), cuda(rng.normal(0.0, 1.0, shape), dtype)
    w, b = cuda(rng.normal(1.0, 0.1, shape[1])), cuda(rng.normal(0.0, 1.0, shape[1]))  # float32 beside 16 bits
    for name, args in {
        "layer_norm": (x, w, b), "rms_norm": (x, w), "add_layer_norm": (x, r, w, b), "add_rms_norm": (x, r, w),
    }.items():  # fmt: skip
        got = run(name, *args, eps=1e-5)
        want = OPS[name].oracle(*wide(args), 1e-5)
        for a, e in zip(got, want, strict=False):
            close(a, e, dtype, name)
    mean, rstd = host(x).mean(1).astype(np.float32), (1 / host(x).std(1)).astype(np.float32)
    mean, rstd = sp.asarray(mean).to("cuda"), sp.asarray(rstd).to("cuda")
    for name, args in {
        "layer_norm_grad": (g, x, w, mean, rstd), "rms_norm_grad": (g, x, w, rstd),
        "add_layer_norm_grad": (g, more, x, w, mean, rstd), "add_rms_norm_grad": (g, None, x, None, rstd),
    }.items():  # fmt: skip
        got = run(name, *args)
        want = OPS[name].oracle(*wide(args))
        for a, e in zip(got, want, strict=True):
            close(a, e, dtype, name)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_views_that_begin_anywhere(start):
    rng = np.random.default_rng(1)
    flat = cuda(rng.normal(50.0, 1.0, 8 * 65 + 3))
    x = sp.reshape(flat[start : start + 520], (8, 65))  # each row begins at another distance from 16 bytes
    y, *_ = run("layer_norm", x, None, None, eps=1e-5)
    close(y, OPS["layer_norm"].oracle(host(x), None, None, 1e-5)[0], sp.float32)
    for axis in (0, 1):
        with sp.prefer("cuda", fallback="error"):
            close(sp.softmax(x, axis=axis), OPS["softmax"].oracle(host(x), axis), sp.float32)


@pytest.mark.parametrize("shape", [(2, 6, 70, 71), (3, 8, 1), (2, 4, 9000)], ids=str)
def test_groups_of_any_size(shape):
    rng = np.random.default_rng(2)
    x, g = cuda(rng.normal(20.0, 1.0, shape)), cuda(rng.normal(0.0, 1.0, shape))
    w, b = cuda(rng.normal(1.0, 0.3, shape[1])), cuda(rng.normal(0.0, 1.0, shape[1]))
    y, mean, rstd = OPS["group_norm"].oracle(*wide((x, w, b)), 2, 1e-5)
    close(run("group_norm", x, w, b, groups=2, eps=1e-5)[0], y, sp.float32)
    args = (g, x, w, sp.asarray(mean).to("cuda"), sp.asarray(rstd).to("cuda"))
    for a, e in zip(
        run("group_norm_grad", *args, groups=2), OPS["group_norm_grad"].oracle(*wide(args), 2), strict=True
    ):
        close(a, e, sp.float32)


def test_no_rows_leave_zero_gradients_of_weights():
    x = cuda(np.zeros((0, 5)))
    stats = cuda(np.zeros(0))
    dx, dw, db = run("layer_norm_grad", x, x, None, stats, stats)
    assert dx.shape == (0, 5) and not host(dw).any() and not host(db).any()

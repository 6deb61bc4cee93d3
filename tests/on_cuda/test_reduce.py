"""Reductions on the CUDA backend: layouts, lengths and dtypes that the ops' samples do not have."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import spiral as sp

INTEGERS = [np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


def of(name, x, **options):
    with sp.prefer("cuda", fallback="error"):
        return getattr(sp, name)(x, **options).to("cpu").numpy()


def integers(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    if dtype is np.bool_:
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    x.flat[:2] = info.min, info.max
    return x


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.__name__)
def test_integers_are_reduced_as_numpy_does(dtype):
    x = integers(dtype, (5, 3, 37))
    t = sp.asarray(x).to("cuda")
    for axis in (None, 0, 1, 2, (0, 2)):
        for name in ("sum", "prod", "max", "min", "any", "all"):
            np.testing.assert_array_equal(of(name, t, axis=axis), getattr(np, name)(x, axis=axis), f"{name} {axis}")
        np.testing.assert_allclose(of("mean", t, axis=axis), np.mean(x, axis=axis, dtype=np.float64), rtol=1e-6)
    for name, axis in itertools.product(("argmax", "argmin"), (None, 0, 1, 2)):
        np.testing.assert_array_equal(of(name, t, axis=axis), getattr(np, name)(x, axis=axis), f"{name} {axis}")


def layouts(x):
    """Views of an array, with what they are called, as functions of arrays and of tensors alike."""
    yield "as it is", lambda a: a
    yield "transposed", lambda a: sp.permute_dims(a, (2, 0, 1)) if isinstance(a, sp.Tensor) else a.transpose(2, 0, 1)
    yield "reversed", lambda a: a[::-1, :, ::-1]
    yield "cut", lambda a: a[1:, 1:, 1:]
    yield "every second", lambda a: a[:, ::2]
    yield "with an axis of 1", lambda a: a[:, 1:2]


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=lambda d: d.__name__)
def test_any_layout_and_axes_give_what_numpy_gives(dtype):
    x = np.random.default_rng(1).integers(-9, 9, (6, 5, 19)).astype(dtype)  # sums are exact
    t = sp.asarray(x).to("cuda")
    for (what, view), name in itertools.product(layouts(x), ("sum", "max", "argmin", "var")):
        a, b = view(x), view(t)
        assert tuple(b.shape) == a.shape
        for axis in (None, 0, 1, 2) if name == "argmin" else (None, 0, 1, 2, (0, 1), (0, 2), (1, 2)):
            want = getattr(np, name)(a.astype(np.float64), axis=axis)
            got = of(name, b, axis=axis)
            np.testing.assert_allclose(
                got.astype(np.float64), want, rtol=2e-3 if name == "var" else 0, err_msg=f"{name} {what} {axis}"
            )


def test_four_groups_of_axes_are_joined_step_by_step():
    x = np.random.default_rng(2).normal(5.0, 1.0, (3, 4, 5, 6, 7))
    t = sp.asarray(x).to("cuda")
    for axis in ((0, 2, 4), (1, 3), (0, 2), (0, 3, 4)):
        np.testing.assert_allclose(of("var", t, axis=axis), np.var(x, axis=axis), rtol=1e-12)
        np.testing.assert_allclose(of("sum", t, axis=axis), np.sum(x, axis=axis), rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 40_001), (3, 9000), (20_001, 2), (2, 10_000, 3)], ids=str)
def test_long_reductions_are_cut_and_joined(shape):
    x = np.random.default_rng(3).normal(100.0, 1.0, shape).astype(np.float32)
    t = sp.asarray(x).to("cuda")
    axis = {(20_001, 2): 0}.get(shape, 1)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(of("sum", t, axis=axis), wide.sum(axis), rtol=1e-6)
    np.testing.assert_allclose(of("var", t, axis=axis), wide.var(axis), rtol=1e-5)
    np.testing.assert_array_equal(of("max", t, axis=axis), x.max(axis))
    np.testing.assert_array_equal(of("argmax", t, axis=axis), x.argmax(axis))
    np.testing.assert_array_equal(of("sum", sp.asarray(x > 100).to("cuda")), (x > 100).sum())


def test_nan_wins_wherever_it_stands():
    for at, dtype in itertools.product((0, 1, 511, 600), (sp.float32, sp.bfloat16)):
        x = np.arange(601, dtype=np.float32)[None].repeat(2, 0)
        x[1, at] = np.nan
        t = sp.asarray(x).to("cuda").astype(dtype)
        for name in ("max", "min"):
            got = of(name, t.astype(sp.float32), axis=1)
            assert np.isnan(got).tolist() == [False, True]
        for name in ("argmax", "argmin"):
            assert of(name, t, axis=1)[1] == at
        assert np.isnan(of("max", t.astype(sp.float32), axis=0)).sum() == 1


def test_infinities_signed_zeros_and_ties():
    x = sp.asarray(np.array([[-np.inf, -np.inf], [-0.0, 0.0], [3.0, 3.0]], np.float32)).to("cuda")
    assert of("max", x, axis=1).tolist() == [-np.inf, 0.0, 3.0]
    assert of("argmax", x, axis=1).tolist() == [0, 0, 0]
    assert of("any", x, axis=1).tolist() == [True, False, True]
    assert of("all", x, axis=1).tolist() == [True, False, True]
    assert of("any", sp.asarray([float("nan")]).to("cuda")).tolist() is True


def test_no_elements_give_the_neutral_result():
    x = sp.zeros((3, 0)).to("cuda")
    assert of("sum", x, axis=1).tolist() == [0.0] * 3
    assert of("prod", x, axis=1).tolist() == [1.0] * 3
    assert of("any", x, axis=1).tolist() == [False] * 3
    assert of("all", x, axis=1).tolist() == [True] * 3
    assert np.isnan(of("mean", x, axis=1)).all() and np.isnan(of("var", x, axis=1)).all()
    assert of("sum", x, axis=0).shape == (0,)


ORDERED = """
import numpy as np, spiral as sp
x = sp.asarray(np.random.default_rng(0).normal(3.0, 1.0, (7, 3001)).astype(np.float32)).to("cuda")
y = sp.asarray(np.random.default_rng(0).normal(3.0, 1.0, (3001, 7)).astype(np.float32)).to("cuda")
for a in (x.sum(), x.sum(axis=1), y.sum(axis=0), sp.var(y, axis=0), sp.var(x)):
    print(a.to("cpu").numpy().tobytes().hex())
"""


@pytest.mark.on_processor
def test_the_order_of_blocks_and_threads_makes_no_difference():
    found = {
        subprocess.run(
            [sys.executable, "-c", ORDERED],
            env=os.environ | {"SPIRAL_CUDA_ORDER": order},
            check=True,
            capture_output=True,
        ).stdout
        for order in ("forward", "shuffle:1")
    }
    assert len(found) == 1


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 17), 1), ((1, 40_001), 1), ((5, 300, 3), 1), ((3000, 2), 0), ((2, 1025), 1)], ids=str
)
def test_running_sums_and_products_of_any_length(shape, axis):
    rng = np.random.default_rng(4)
    x = rng.integers(-9, 9, shape)
    np.testing.assert_array_equal(of("cumulative_sum", sp.asarray(x).to("cuda"), axis=axis), np.cumsum(x, axis=axis))
    np.testing.assert_array_equal(of("cumulative_prod", sp.asarray(x).to("cuda"), axis=axis), np.cumprod(x, axis=axis))
    f = x.astype(np.float32)
    np.testing.assert_array_equal(of("cumulative_sum", sp.asarray(f).to("cuda"), axis=axis), np.cumsum(f, axis=axis))
    u = np.exp(rng.normal(0.0, 0.01, shape))
    np.testing.assert_allclose(
        of("cumulative_prod", sp.asarray(u).to("cuda"), axis=axis), np.cumprod(u, axis=axis), rtol=1e-10
    )

"""Linear and cross-entropy in one: several tiles of rows and classes, gradients end to end, and memory."""

import numpy as np
import pytest

import spiral as sp
from spiral.backends.cuda import gemm, linear_loss
from spiral.gpu import drivers
from tests.on_cuda.test_library_products import NumpyBlas

TOLERANCE = {"float32": 2e-5, "float64": 1e-12, "float16": 2e-3, "bfloat16": 1.6e-2}
DTYPES = [sp.float32, sp.float64, sp.float16, sp.bfloat16]


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(linear_loss, "TILE", 1 << 11)
    monkeypatch.setattr(linear_loss, "TILE_CLASSES", 130)
    monkeypatch.setattr(linear_loss, "GRADIENTS", 1 << 12)


def inputs(dtype, rows, width, classes):
    rng = np.random.default_rng(rows)
    x, w = (
        sp.asarray(rng.standard_normal(s).astype(np.float32)).astype(dtype) for s in ((rows, width), (classes, width))
    )
    targets = rng.integers(0, classes, rows)
    targets[1::5] = -100
    return x, w, sp.asarray(targets)


def loss_and_gradients(x, w, targets, device, **options):
    leaves = [t.to(device).detach() for t in (x, w)]
    for t in leaves:
        t.requires_grad = True
    loss = sp.linear_cross_entropy(*leaves, targets.to(device), **options)
    sp.sum(loss).backward()
    return [t.to("cpu").astype(sp.float64).numpy() for t in (loss, *(leaf.grad for leaf in leaves))]


def check(dtype, got, want):
    for g, w, kind in zip(got, want, ("float32", dtype.name, dtype.name), strict=True):
        tolerance = TOLERANCE[dtype.name if dtype is sp.float64 else kind]
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance * np.abs(w).max())


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_tiles_join_to_the_whole(small_tiles, dtype, reduction):
    options = {"reduction": reduction, "label_smoothing": 0.1, "z_loss": 1e-3}
    x, w, targets = inputs(dtype, 67, 24, 403)
    got = loss_and_gradients(x, w, targets, "cuda", **options)
    want = loss_and_gradients(x.astype(sp.float64), w.astype(sp.float64), targets, "cpu", **options)
    check(dtype, got, want)


@pytest.mark.parametrize("dtype", [sp.float32, sp.bfloat16], ids=lambda d: d.name)
def test_a_library_multiplies_the_tiles(small_tiles, monkeypatch, dtype):
    library = NumpyBlas()
    monkeypatch.setattr(drivers()[0], "blas", library, raising=False)
    monkeypatch.setattr(gemm, "LIBRARY_FROM", 60)
    x, w, targets = inputs(dtype, 67, 24, 403)
    got = loss_and_gradients(x, w, targets, "cuda")
    check(dtype, got, loss_and_gradients(x.astype(sp.float64), w.astype(sp.float64), targets, "cpu"))
    assert library.calls > 20


@pytest.mark.parametrize("dtype", [sp.float32, sp.bfloat16], ids=lambda d: d.name)
def test_memory_is_a_fraction_of_the_logits(small_tiles, dtype):
    x, w, targets = inputs(dtype, 256, 8, 2048)
    leaves = [t.to("cuda").detach() for t in (x, w)]
    targets = targets.to("cuda")
    for t in leaves:
        t.requires_grad = True
    sp.reset_peak_memory("cuda")
    before = sp.memory("cuda")["live"]
    sp.linear_cross_entropy(*leaves, targets).backward()
    peak = sp.memory("cuda")["peak"] - before
    assert peak < 0.3 * 256 * 2048 * dtype.itemsize


def test_same_bits_every_time(small_tiles):
    x, w, targets = inputs(sp.bfloat16, 67, 24, 403)
    first, second = (loss_and_gradients(x, w, targets, "cuda") for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_target_outside_of_the_classes_gives_nan(small_tiles):
    x, w, _ = inputs(sp.float32, 3, 4, 300)
    loss = sp.linear_cross_entropy(x.to("cuda"), w.to("cuda"), sp.asarray([0, 300, -1]).to("cuda"), reduction="none")
    assert np.isnan(loss.to("cpu").numpy()).tolist() == [False, True, True]

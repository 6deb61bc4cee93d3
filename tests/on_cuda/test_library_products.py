"""Products through a driver's BLAS, with NumPy standing in for the library: how matrices are described to it."""

import ctypes
import math

import numpy as np
import pytest

import spiral as sp
from spiral.backends.cuda import gemm, linear
from spiral.gpu import drivers

pytestmark = pytest.mark.on_processor  # NumPy reads what the device's addresses point to


class NumpyBlas:
    """`spiral.gpu.driver.Blas` over the processor's memory."""

    name = "NumPy"

    def __init__(self):
        self.calls = 0

    def gemm(self, dtype, transposed, lengths, a, b, c, batch, add, to, tf32):
        self.calls += 1
        self.tf32 = tf32
        m, n, k = lengths

        def matrix(operand, rows, columns, i, dtype=dtype):
            address, leading, step = operand
            assert leading >= max(1, rows)
            size = dtype.itemsize
            length = (leading * (columns - 1) + rows) * size
            raw = (ctypes.c_char * length).from_address(address + i * step * size)
            return np.ndarray((rows, columns), dtype, raw, strides=(size, leading * size))

        for i in range(batch):
            x = matrix(a, k, m, i).T if transposed[0] else matrix(a, m, k, i)
            y = matrix(b, n, k, i).T if transposed[1] else matrix(b, k, n, i)
            out = matrix(c, m, n, i, to)
            product = x.astype(np.float64) @ y.astype(np.float64)
            out[...] = (product + out.astype(np.float64) if add else product).astype(np.float32).astype(to)


@pytest.fixture
def blas(monkeypatch):
    library = NumpyBlas()
    monkeypatch.setattr(drivers()[0], "blas", library, raising=False)
    for module in (gemm, linear):
        monkeypatch.setattr(module, "LIBRARY_FROM", 60)
    return library


def normal(*shape, seed=0):
    rng = np.random.default_rng(seed + math.prod(shape))
    return sp.asarray(rng.standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("dtype", [sp.float32, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("x, y", [
    ((5, 7), (7, 3)), ((2, 5, 7), (2, 7, 3)), ((2, 3, 5, 7), (2, 3, 7, 4)), ((2, 3, 5, 7), (7, 4)),
])  # fmt: skip
@pytest.mark.parametrize("turned", ["", "x", "y", "xy"])
def test_matmul_describes_every_layout(blas, dtype, x, y, turned):
    def operand(shape, turn):
        axes = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
        stored = tuple(shape[a] for a in axes) if turn else shape
        t = normal(*stored).astype(dtype)
        return t, (lambda v: sp.permute_dims(v, axes)) if turn else (lambda v: v)

    (a, view_a), (b, view_b) = operand(x, "x" in turned), operand(y, "y" in turned)
    got = sp.matmul(view_a(a.to("cuda")), view_b(b.to("cuda"))).to("cpu").astype(sp.float64).numpy()
    want = view_a(a.astype(sp.float64)).numpy() @ view_b(b.astype(sp.float64)).numpy()
    np.testing.assert_allclose(got, want, atol=2e-2 if dtype is sp.bfloat16 else 1e-5, rtol=1e-2)
    folds = not ("x" in turned and len(y) < len(x))  # turned rows of several matrices do not lie in one stretch
    assert blas.calls == (1 if folds else 0)


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_linear_adds_bias_and_activation(blas, activation, with_bias):
    x, weight, bias = normal(2, 5, 7), normal(3, 7), normal(3) if with_bias else None
    moved = [None if t is None else t.to("cuda") for t in (x, weight, bias)]
    got = sp.linear(*moved, activation=activation).to("cpu").numpy()
    np.testing.assert_allclose(got, sp.linear(x, weight, bias, activation=activation).numpy(), atol=1e-5)
    assert blas.calls == 1


def test_gradients_of_linear(blas):
    leaves = [normal(2, 5, 7), normal(3, 7), normal(3)]
    results = []
    for device in ("cpu", "cuda"):
        moved = [t.to(device).detach() for t in leaves]
        for t in moved:
            t.requires_grad = True
        sp.linear(*moved).backward(normal(2, 5, 3, seed=9).to(device))
        results.append([t.grad.to("cpu").numpy() for t in moved])
    for on_cpu, on_cuda in zip(*results, strict=True):
        np.testing.assert_allclose(on_cuda, on_cpu, atol=1e-5)
    assert blas.calls == 3


def test_explain_says_why_a_small_product_stays():
    x = normal(5, 7).to("cuda")
    assert "BLAS library" in str(sp.explain("matmul", x, sp.permute_dims(x, (1, 0))))

"""Matrix products on the CUDA backend: what the samples are too small or too tidy to show."""

import numpy as np
import pytest

import spiral as sp
from spiral.backends.cuda import gemm
from spiral.device_array import DeviceArray
from spiral.gpu import drivers
from spiral.op import OPS

WIDE = {"float32": np.float64, "float64": np.float64, "int32": np.int32, "int64": np.int64}


def on_device(a):
    return DeviceArray.from_host(drivers()[0], a)


def random(rng, dtype, *shape):
    return (
        rng.standard_normal(shape).astype(dtype) if np.dtype(dtype).kind == "f" else rng.integers(-9, 9, shape, dtype)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("m, n, k", [(130, 67, 33), (64, 64, 16), (1, 130, 64), (65, 1, 1)])
@pytest.mark.parametrize("transposed", ["", "x", "w", "xw"])
def test_edges_of_tiles_in_every_layout(dtype, m, n, k, transposed):
    rng = np.random.default_rng(m + n + k)
    x = random(rng, dtype, k, m).T if "x" in transposed else random(rng, dtype, m, k)
    w = random(rng, dtype, k, n).T if "w" in transposed else random(rng, dtype, n, k)
    dx = on_device(x.T).transpose((1, 0)) if "x" in transposed else on_device(x)
    dw = on_device(w.T).transpose((1, 0)) if "w" in transposed else on_device(w)
    y = on_device(np.zeros((m, n), dtype))
    gemm.multiply(dx, dw, y)
    want = x.astype(WIDE[dtype]) @ w.astype(WIDE[dtype]).T
    np.testing.assert_allclose(y.to_host(), want, rtol=0, atol=1e-5 * k**0.5)


@pytest.mark.parametrize("dtype", [sp.float16, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("m, n, k, offset", [(136, 72, 104, 0), (136, 200, 32, 1), (64, 8, 8, 0), (67, 130, 33, 0)])
@pytest.mark.parametrize("transposed", ["", "x", "w", "xw"])
def test_tensor_cores_in_every_layout_with_and_without_aligned_pieces(dtype, m, n, k, offset, transposed):
    rng = np.random.default_rng(m + n + k)

    def operand(rows, is_transposed):
        shape = (k, rows) if is_transposed else (rows, k)
        flat = np.zeros(rows * k + offset, dtype.numpy)
        flat[offset:] = rng.standard_normal(rows * k).astype(np.float32).astype(dtype.numpy)
        host = flat[offset:].reshape(shape)
        device = on_device(flat)[offset:].reshape_view(shape)
        return (host.T, device.transpose((1, 0))) if is_transposed else (host, device)

    (x, dx), (w, dw) = operand(m, "x" in transposed), operand(n, "w" in transposed)
    want = x.astype(np.float64) @ w.astype(np.float64).T
    for splits in (1, 2):
        y = on_device(np.zeros((m, n), dtype.numpy))
        gemm.multiply(dx, dw, y, splits=splits)
        ulp = 2.0**-10 if dtype is sp.float16 else 2.0**-7
        np.testing.assert_allclose(y.to_host().astype(np.float64), want, rtol=ulp, atol=1e-5 * k**0.5)


@pytest.mark.parametrize("splits", [2, 3, 7])
def test_split_sums_are_added_once_each_and_in_order(splits):
    rng = np.random.default_rng(splits)
    x, w, bias = random(rng, "float32", 3, 5, 211), random(rng, "float32", 3, 9, 211), random(rng, "float32", 9)
    results = []
    for _ in range(2):
        y = on_device(np.zeros((3, 5, 9), np.float32))
        gemm.multiply(on_device(x), on_device(w), y, on_device(bias), "relu", splits=splits)
        results.append(y.to_host())
    want = np.maximum(x.astype(np.float64) @ w.transpose(0, 2, 1) + bias, 0)
    np.testing.assert_allclose(results[0], want, atol=1e-4)
    assert results[0].tobytes() == results[1].tobytes()


def test_column_sums_of_many_rows_are_split_and_exact_for_integers_in_floats():
    x = np.random.default_rng(0).integers(-9, 9, (517, 70)).astype(np.float32)
    for splits in (1, 2, 5):
        y = on_device(np.zeros(70, np.float32))
        gemm.column_sums(on_device(x), y, splits=splits)
        np.testing.assert_array_equal(y.to_host(), x.sum(0))


def test_batches_broadcast_over_more_axes_than_a_kernel_takes():
    rng = np.random.default_rng(1)
    x, y = random(rng, "float32", 2, 1, 2, 1, 2, 1, 3, 4), random(rng, "float32", 1, 2, 1, 2, 1, 2, 4, 3)
    got = sp.matmul(sp.asarray(x).to("cuda"), sp.asarray(y).to("cuda"))
    np.testing.assert_allclose(got.to("cpu").numpy(), x @ y, atol=1e-5)


def test_infinities_outside_of_a_tile_do_not_reach_its_results():
    x, y = np.ones((3, 5), np.float32), np.full((5, 9), 2, np.float32)
    x[1, 2], y[4, 8], y[0, 3] = np.inf, np.nan, -np.inf
    got = sp.matmul(sp.asarray(x).to("cuda"), sp.asarray(y).to("cuda")).to("cpu").numpy()
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(got, x @ y)


@pytest.mark.parametrize("dtype", [sp.int8, sp.uint8, sp.uint64, sp.int16, sp.bool])
def test_integers_wrap_as_numpy_has_it(dtype):
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 200, (5, 40)).astype(dtype.numpy), rng.integers(0, 200, (40, 3)).astype(dtype.numpy)
    got = sp.matmul(sp.asarray(x).to("cuda"), sp.asarray(y).to("cuda")).to("cpu").numpy()
    np.testing.assert_array_equal(got, x @ y)


@pytest.mark.on_processor
def test_a_transposed_view_is_multiplied_without_a_copy():
    gpu = drivers()[0]
    x, y = sp.asarray(np.ones((7, 5), np.float32)).to("cuda"), sp.asarray(np.ones((3, 7), np.float32)).to("cuda")
    gpu.launches.clear()
    sp.matmul(x.T, y.T)
    assert [launch.name.split("<")[0] for launch in gpu.launches] == ["spiral::product"]


@pytest.mark.parametrize("dtype", [sp.float32, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("turned", ["", "x", "w", "xw"])
def test_groups_that_begin_between_aligned_pieces(dtype, turned):
    rng = np.random.default_rng(0)
    sizes = np.array([3, 0, 70, 6])
    x, w = rng.standard_normal((80, 16)), rng.standard_normal((4, 16, 24))
    g = rng.standard_normal((80, 24))

    def moved(a, turn):
        a = a.swapaxes(-1, -2) if turn else a
        t = sp.asarray(np.ascontiguousarray(a).astype(np.float32)).astype(dtype).to("cuda")
        return sp.permute_dims(t, (*range(a.ndim - 2), a.ndim - 1, a.ndim - 2)) if turn else t

    def host(t):
        return t.to("cpu").astype(sp.float64).numpy()

    dx, dw, dg = moved(x, "x" in turned), moved(w, "w" in turned), moved(g, "w" in turned)
    on_device = sp.asarray(sizes).to("cuda")
    atol = 1e-4 if dtype is sp.float32 else 0.2
    y = OPS["grouped_matmul"].call(dx, dw, on_device)
    np.testing.assert_allclose(host(y), OPS["grouped_matmul"].oracle(host(dx), host(dw), sizes), atol=atol)
    grad = OPS["grouped_matmul_grad"].call(dg, dx, on_device)
    np.testing.assert_allclose(host(grad), OPS["grouped_matmul_grad"].oracle(host(dg), host(dx), sizes), atol=atol)

"""Launch configurations of Triton kernels: any that is declared computes the same."""

import numpy as np
import pytest

import spiral as sp
from spiral.backends.triton import gemm, norm, softmax
from spiral.device import as_device
from spiral.gpu import tuning
from spiral.gpu.search import forced, search
from spiral.op import OPS


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIRAL_CACHE", str(tmp_path))
    sp.ones(1).to("cuda")
    driver = as_device("cuda").memory.driver
    tuning.forget(driver)
    yield driver
    monkeypatch.undo()
    tuning.forget(driver)


@pytest.mark.parametrize("shape", [(3, 5, 7), (70, 3, 129), (65, 200, 33)])
def test_products_are_the_same_with_every_tile(gpu, shape):
    m, n, k = shape
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((n, k)).astype(np.float32)
    key = gemm.product_class(sp.float32, m, n, k)
    for config in gemm.PRODUCT.configs[key]:
        with forced(gemm.PRODUCT, gpu, key, config), sp.prefer("triton", fallback="error"):
            y = sp.linear(sp.asarray(x).to("cuda"), sp.asarray(w).to("cuda"))
        np.testing.assert_allclose(y.to("cpu").numpy(), x @ w.T, rtol=1e-5, atol=1e-4, err_msg=str(config))


def test_norms_are_the_same_with_any_number_of_warps(gpu):
    x = np.random.default_rng(0).standard_normal((2, 100)).astype(np.float32)
    want = OPS["rms_norm"].oracle(x.astype(np.float64), None, 1e-5)[0]
    choice = norm.NORM_ROWS.choice
    for config in choice.configs["fp32", 128, 0]:
        with forced(choice, gpu, ("fp32", 128, 0), config), sp.prefer("triton", fallback="error"):
            y = sp.rms_norm(sp.asarray(x).to("cuda"), eps=1e-5)
        np.testing.assert_allclose(y.to("cpu").numpy(), want, rtol=1e-5, err_msg=str(config))


@pytest.mark.parametrize("shape", [(5, 100), (3, 700)])
def test_softmax_is_the_same_with_any_rows_of_a_program(gpu, shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    key = ("float32", 128 if shape[1] <= 128 else 1024, 0)
    for config in softmax._ROWS.choice.configs[key]:
        with forced(softmax._ROWS.choice, gpu, key, config), sp.prefer("triton", fallback="error"):
            y = sp.softmax(sp.asarray(x).to("cuda"), axis=-1)
        want = OPS["softmax"].oracle(x.astype(np.float64), -1)
        np.testing.assert_allclose(y.to("cpu").numpy(), want, rtol=1e-5, err_msg=str(config))


def test_a_search_runs_every_configuration(gpu):
    choice = norm.NORM_ROWS.choice
    found = search(choice, ("fp32", 128, 0), gpu, "cuda", rounds=2, nbytes=2048)
    assert found.milliseconds.keys() == set(choice.configs["fp32", 128, 0]) and not found.failed

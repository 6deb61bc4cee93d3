"""The tensor-core wrappers of mma.cuh, emulated on the processor, against NumPy."""

import ml_dtypes
import numpy as np
import pytest

from spiral.backend import Unavailable
from spiral.errors import KernelError
from spiral.gpu import nvrtc

NAMES = (
    "product<f16>", "product<bf16>", "product_tf32", "product_through_shared<f16>", "product_through_shared<bf16>",
    "copies", "misaligned", "half_a_warp", "rounded",
)  # fmt: skip
TYPES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}


@pytest.fixture
def cores(bench):
    bench.take_kernels("tensor_cores.cu", NAMES)
    return bench


def operands(dtype, depth):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((16, depth)).astype(dtype), rng.standard_normal((depth, 8)).astype(dtype)
    return a, b, rng.standard_normal((16, 8)).astype(np.float32)


@pytest.mark.parametrize("name", TYPES)
def test_product_of_16_bit_matrices(cores, name):
    a, b, c = operands(TYPES[name], 16)
    block = cores.put(c)
    cores.run(f"product<{name}>", "P P P", cores.put(a), cores.put(b), block)
    np.testing.assert_allclose(
        cores.get(block, c.shape, np.float32), c + a.astype(np.float64) @ b.astype(np.float64), 0, 1e-5
    )


def test_product_of_tf32_matrices(cores):
    a, b, c = operands(np.float32, 8)
    block = cores.put(c)
    cores.run("product_tf32", "P P P", cores.put(a), cores.put(b), block)
    got = cores.get(block, c.shape, np.float32)
    exact = c + a.astype(np.float64) @ b.astype(np.float64)
    bound = np.abs(a) @ np.abs(b) * 2.0**-10
    assert (np.abs(got - exact) <= bound).all()
    assert np.abs(got - exact).max() > 1e-5  # it does have fewer bits


@pytest.mark.parametrize("name", TYPES)
def test_fragments_come_through_shared_memory(cores, name):
    a, b, c = operands(TYPES[name], 16)
    block = cores.put(c)
    cores.run(f"product_through_shared<{name}>", "P P P", cores.put(a), cores.put(b), block)
    np.testing.assert_allclose(
        cores.get(block, c.shape, np.float32), a.astype(np.float64) @ b.astype(np.float64), 0, 1e-5
    )


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_copies_that_were_not_waited_for_leave_nan(cores, groups):
    x = np.arange(1, 17, dtype=np.float32)
    y = cores.gpu.allocate(64)
    cores.run("copies", "P P i", cores.put(x), y, groups)
    expected = np.concatenate([x[:12], np.zeros(4, np.float32)])
    expected[16 - 4 * groups :] = np.nan
    np.testing.assert_array_equal(cores.get(y, 16, np.float32), expected)


def test_misaligned_asynchronous_copy_is_refused(cores):
    with pytest.raises(KernelError, match=r"misaligned.*\n?.*runtime\.h"):
        cores.run("misaligned", "P P", cores.put(np.zeros(4, np.float32)), cores.gpu.allocate(4))


def test_product_needs_the_whole_warp(cores):
    with pytest.raises(KernelError, match="all 32 lanes"):
        cores.run("half_a_warp", "P", cores.gpu.allocate(4))


def test_tf32_rounds_to_nearest_ties_away(cores):
    half = 2.0**-11
    x = np.full(32, 1.0, np.float32)
    x[:8] = [1 + half, -1 - half, 1 + 0.99 * half, 1 + 3 * half, np.inf, -np.inf, np.nan, 0.0]
    y = cores.gpu.allocate(128)
    cores.run("rounded", "P P", cores.put(x), y)
    got = cores.get(y, 32, np.float32)[:8]
    np.testing.assert_array_equal(
        got, np.float32([1 + 2 * half, -1 - 2 * half, 1, 1 + 4 * half, np.inf, -np.inf, np.nan, 0])
    )


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_wrappers_compile_for_devices(cores, arch):
    found = nvrtc.binding()
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)
    built = nvrtc.compile_cubin(cores.folder / "tensor_cores.cu", NAMES, arch)
    assert all(cubin[:4] == b"\x7fELF" for _, cubin in built.values())

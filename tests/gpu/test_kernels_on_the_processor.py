"""The CUDA C++ kernels compiled for the processor give what NumPy gives."""

import numpy as np
import pytest

TYPES = {"float": np.float32, "double": np.float64, "spiral::f16": np.float16}
TOLERANCE = {"float": 3e-6, "double": 1e-14, "spiral::f16": 1e-3}


@pytest.mark.parametrize("name", TYPES)
def test_rms_norm_equals_numpy(bench, name):
    rows, n = 5, 1000
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, n)).astype(TYPES[name]), rng.standard_normal(n).astype(TYPES[name])
    bx, bw, y, rstd = bench.put(x), bench.put(w), bench.gpu.allocate(x.nbytes), bench.gpu.allocate(rows * x.itemsize)
    bench.run(
        f"spiral::norm_rows<{name}, false>", "P P P P P P P P q q q q i i i d", bx, 0, 0, bw, 0, y, 0, rstd,
        rows, n, 0, 0, 1, 64, 1, 1e-6, grid=(rows, 1, 1), block=(64, 1, 1), file="norm.cu",
    )  # fmt: skip
    wide = x.astype(np.float64)
    expected = 1 / np.sqrt((wide**2).mean(axis=1) + 1e-6)
    np.testing.assert_allclose(bench.get(rstd, rows, x.dtype), expected, TOLERANCE[name])
    np.testing.assert_allclose(bench.get(y, x.shape, x.dtype), wide * expected[:, None] * w, TOLERANCE[name], 1e-7)
    bench.gpu.check_memory()

"""The GEMM against float64, over the edges of its blocks, panels, strips and passes; same bits for any thread count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import spiral as sp
from spiral.storage import native, native_reason

pytestmark = pytest.mark.skipif(native is None, reason=f"no C++ kernels: {native_reason}")

# around the rows of a block (6, 12, 14), the columns of a panel (8, 16, 32) and steps of k (512 a pass)
EDGES = (1, 2, 5, 6, 7, 15, 17, 33)
LARGE = ((97, 70, 530), (64, 130, 1030), (150, 33, 3), (1, 300, 600), (300, 1, 600), (8, 257, 513), (200, 48, 64))
SHAPES = [*itertools.product(EDGES, EDGES, (1, 4, 9, 40)), *LARGE]


def product(a, b, ta, tb, threads):
    sp.set_num_threads(threads)
    try:
        out = np.full((a.shape[1] if ta else a.shape[0], b.shape[0] if tb else b.shape[1]), np.nan, np.float32)
        native.matmul(a, b, ta, tb, out)
        return out
    finally:
        sp.set_num_threads(1)


@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_product_is_right_at_every_edge_of_the_blocking(ta, tb):
    rng = np.random.default_rng(0)
    for m, n, k in SHAPES:
        a = rng.standard_normal((k, m) if ta else (m, k)).astype(np.float32)
        b = rng.standard_normal((n, k) if tb else (k, n)).astype(np.float32)
        x, y = (a.T if ta else a).astype(np.float64), (b.T if tb else b).astype(np.float64)
        bound = 2e-7 * k * (np.abs(x) @ np.abs(y)) / max(1, k) * max(4, k**0.5) + 1e-30
        error = np.abs(product(a, b, ta, tb, 1) - x @ y)
        assert (error <= bound).all(), f"m, n, k = {m, n, k}: {np.nanmax(error / bound):.2f} times the bound"


@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_bits_do_not_depend_on_the_number_of_threads(ta, tb):
    rng = np.random.default_rng(1)
    for m, n, k in ((200, 300, 260), (512, 128, 768), (64, 256, 784), (7, 1000, 300)):
        a = rng.standard_normal((k, m) if ta else (m, k)).astype(np.float32)
        b = rng.standard_normal((n, k) if tb else (k, n)).astype(np.float32)
        one = product(a, b, ta, tb, 1)
        for threads in (2, 3):
            assert np.array_equal(one, product(a, b, ta, tb, threads))


def test_nan_and_infinity_in_either_operand_reach_their_row_and_column_only():
    a, b = np.ones((9, 20), np.float32), np.ones((20, 35), np.float32)
    a[3, 19], b[0, 34] = np.nan, np.inf
    for ta, tb in itertools.product((False, True), repeat=2):
        left, right = (np.ascontiguousarray(a.T) if ta else a), (np.ascontiguousarray(b.T) if tb else b)
        out = product(left, right, ta, tb, 1)
        assert np.isnan(out[3]).all() and np.isinf(out[[0, 8], 34]).all()
        assert np.array_equal(np.delete(out, 3, 0)[:, :34], np.full((8, 34), 20, np.float32))


def test_operands_stored_side_by_side_are_not_read_past_their_rows():
    """Columns of one wide matrix: what stands beside an operand (NaN here) must not reach the product."""
    wide = np.full((40, 64), np.nan, np.float32)
    wide[:, 10:27] = 1.0
    part = wide[:, 10:27]
    for x, y in ((part, part.T), (part.T, part)):
        z = sp.matmul(sp.asarray(x, copy=False), sp.asarray(y, copy=False)).numpy()
        assert np.array_equal(z, np.full(z.shape, x.shape[1], np.float32))

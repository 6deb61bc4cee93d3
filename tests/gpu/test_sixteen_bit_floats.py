"""`up` and `down` of spiral.cuh are the conversions that ml_dtypes and NumPy define, for every bit pattern."""

import ml_dtypes
import numpy as np
import pytest

TYPES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}
NAMES = tuple(f"{kernel}<{name}>" for kernel in ("widen", "narrow") for name in TYPES)


@pytest.fixture
def conversions(bench):
    bench.take_kernels("behaviour.cu", NAMES)
    return bench


def convert(bench, name, x, dtype):
    y = bench.gpu.allocate(x.size * np.dtype(dtype).itemsize)
    bench.run(name, "P P i", bench.put(x), y, x.size, grid=(-(-x.size // 256), 1, 1), block=(256, 1, 1))
    return bench.get(y, x.size, dtype)


def same(got, expected):
    """Equal bit by bit, and NaN where NaN is expected."""
    with np.errstate(invalid="ignore"):  # signalling NaN are among the patterns
        nan = np.isnan(expected)
        assert np.isnan(got)[nan].all()
    kind = f"u{got.dtype.itemsize}"
    np.testing.assert_array_equal(got.view(kind)[~nan], expected.view(kind)[~nan])


@pytest.mark.parametrize("name", TYPES)
def test_all_65536_patterns_widen_exactly(conversions, name):
    x = np.arange(1 << 16, dtype=np.uint16)
    same(convert(conversions, f"widen<{name}>", x, np.float32), x.view(TYPES[name]).astype(np.float32))


@pytest.mark.parametrize("name", TYPES)
def test_every_value_survives_there_and_back(conversions, name):
    x = np.arange(1 << 16, dtype=np.uint16).view(TYPES[name])
    same(convert(conversions, f"narrow<{name}>", x.astype(np.float32), TYPES[name]), x)


@pytest.mark.parametrize("name", TYPES)
def test_rounding_to_nearest_even(conversions, name):
    dtype = TYPES[name]
    # all neighbours' midpoints (ties), and the floats just below and above them
    values = np.sort(np.arange(1 << 16, dtype=np.uint16).view(dtype).astype(np.float32))
    values = np.unique(values[np.isfinite(values)]).astype(np.float64)
    ties = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    rng = np.random.default_rng(0)
    x = np.concatenate([
        ties, np.nextafter(ties, np.float32(-np.inf)), np.nextafter(ties, np.float32(np.inf)),
        rng.integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32),  # all exponents, NaN among them
        (rng.standard_normal(50_000) * 10.0 ** rng.uniform(-8, 5, 50_000)).astype(np.float32),
        np.float32([0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.996, 65520, 65536, 3.4e38, -3.4e38, 1e-45, 2**-25]),
        np.uint32([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0x7F80FFFF]).view(np.float32),  # NaN by their low bits
    ])  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(dtype)
    same(convert(conversions, f"narrow<{name}>", x, dtype), expected)

"""Running kernels on addresses, and what the tests' interpreter does better than Triton's."""

import os
import sys

import ml_dtypes
import numpy as np
import pytest
import triton
import triton.language as tl

from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.errors import KernelError
from spiral.testing.recording import RecordingDriver
from spiral.testing.triton_interpreter import round_to_bfloat16

pytestmark = pytest.mark.skipif(
    not os.environ.get("TRITON_INTERPRET"), reason="this is about the interpreter; TRITON_INTERPRET is not set"
)


@triton.jit
def inner(a, b):
    return a * b


@triton.jit
def add_scaled(x, y, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, inner(tl.load(x + i, mask=i < n), scale) + tl.program_id(1), mask=i < n)


@triton.jit
def square_bfloat16(x, y):
    v = tl.load(x)
    tl.store(y, v * v)


@triton.jit
def where_am_i(y, big, WIDTH: tl.constexpr):
    at = tl.program_id(2) * 6 + tl.program_id(1) * 2 + tl.program_id(0)
    tl.store(y + at, big + at)


ADD = TritonKernel(add_scaled, {"x": "*fp32", "y": "*fp32", "n": "i32", "scale": "fp32"}, {"BLOCK": 8})


def test_kernel_writes_the_memory_it_was_given_and_nothing_beyond():
    gpu = RecordingDriver(on_processor=True)
    x = DeviceArray.from_host(gpu, np.arange(20, dtype=np.float32))
    y = DeviceArray.empty(gpu, (32,), np.dtype(np.float32))
    ADD(gpu, (3, 1, 1), x.address, y.address, 20, 0.5)
    got = y.to_host()
    np.testing.assert_array_equal(got[:20], np.arange(20, dtype=np.float32) / 2)
    assert np.isnan(got[20:]).all()
    assert gpu.named("launch") == []
    assert "torch" not in sys.modules


def test_programs_see_all_three_axes_and_64_bit_numbers():
    gpu = RecordingDriver(on_processor=True)
    kernel = TritonKernel(where_am_i, {"y": "*i64", "big": "i64"}, {"WIDTH": 1})
    y = DeviceArray.empty(gpu, (12,), np.dtype(np.int64))
    kernel(gpu, (2, 3, 2), y.address, 7)
    np.testing.assert_array_equal(y.to_host(), 7 + np.arange(12))
    kernel(gpu, (1, 1, 1), y.address, 2**40)
    assert y[:1].to_host()[0] == 2**40


def test_numbers_have_their_declared_width():
    with pytest.raises(OverflowError):
        ADD(RecordingDriver(on_processor=True), (1, 1, 1), 0, 0, 2**31, 1.0)


def test_failing_kernel_says_which_and_why():
    gpu = RecordingDriver(on_processor=True)
    x = DeviceArray.empty(gpu, (1,), np.dtype(ml_dtypes.bfloat16))
    kernel = TritonKernel(square_bfloat16, {"x": "*bf16", "y": "*bf16"})
    with pytest.raises(KernelError, match="square_bfloat16: fails in Triton's interpreter: .*widen right after"):
        kernel(gpu, (1, 1, 1), x.address, x.address)


def test_interpreted_kernels_are_refused_on_a_gpu():
    with pytest.raises(KernelError, match="add_scaled.*recording driver with TRITON_INTERPRET=1"):
        ADD(RecordingDriver(cc=90), (1, 1, 1), 0, 0, 0, 0.0)


def test_rounding_to_bfloat16_is_that_of_ml_dtypes():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32)
    ties = (bits & 0xFFFF0000) | 0x8000
    x = np.concatenate([bits, ties, np.array([0x7F7FFFFF, 0x7F800000, 0xFF800000, 1, 0x80000000], np.uint32)])
    with np.errstate(all="ignore"):
        x = x.view(np.float32)
        want = x.astype(ml_dtypes.bfloat16).view(np.uint16)
    got = round_to_bfloat16(x)
    nan = np.isnan(x)
    np.testing.assert_array_equal(got[~nan], want[~nan])
    assert np.isnan(got[nan].view(ml_dtypes.bfloat16).astype(np.float32)).all()

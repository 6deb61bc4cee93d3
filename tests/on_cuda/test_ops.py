"""Every op's samples on the CUDA backend: its kernels compiled for the processor here, or run on a device."""

import pytest

import spiral as sp
from spiral.op import OPS
from spiral.testing import check_against_oracle

FLOATS = [sp.float32, sp.float64, sp.float16, sp.bfloat16]


def has_kernel(name, backend="cuda"):
    return name in sp.backends()[backend].kernels


def on_cuda():
    assert sp.backends()["cuda"].unavailable is None, sp.backends()["cuda"]
    return sorted(name for name in OPS if has_kernel(name))


@pytest.mark.parametrize("name", on_cuda())
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_kernel_agrees_with_the_oracle(name, dtype):
    kernels = sp.backends()["cuda"].kernels[name]
    if not any(dtype in k.cap.dtypes for k in kernels):
        pytest.skip(f"no CUDA kernel of {name} takes {dtype.name}")
    assert check_against_oracle(OPS[name], "cuda", dtype, device="cuda") >= 1

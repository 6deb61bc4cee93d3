"""Every op's samples on the Triton backend, in Triton's interpreter."""

import pytest

import spiral as sp
from spiral.op import OPS
from spiral.testing import check_against_oracle

FLOATS = [sp.float32, sp.float64, sp.float16, sp.bfloat16]


def cases():
    entry = sp.backends()["triton"]
    assert entry.unavailable is None, entry
    return [
        pytest.param(name, dtype, id=f"{name}-{dtype.name}")
        for name in sorted(entry.kernels)
        for dtype in FLOATS
        if any(dtype in k.cap.dtypes for k in entry.kernels[name])
    ]


@pytest.mark.parametrize(("name", "dtype"), cases())
def test_kernel_agrees_with_the_oracle(name, dtype):
    assert check_against_oracle(OPS[name], "triton", dtype, device="cuda") >= 1

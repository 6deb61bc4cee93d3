"""The C++ kernels in every layout and on every dtype that they declare, by the suite that other backends inherit."""

import pytest

from spiral.op import OPS
from spiral.storage import native
from spiral.testing import conformance_suite

if native is None:
    pytest.skip("there are no C++ kernels here", allow_module_level=True)

CPU = conformance_suite("cpu")
SHARED = ("test_kernel_takes_every_layout", "test_kernel_takes_the_integers", "test_same_inputs", "test_threads")
CHECKS = dict(check for check in CPU.checks() if check[0].startswith(SHARED))


@pytest.mark.parametrize("name", CHECKS)
def test_conformance(name):
    CHECKS[name]()


def test_every_kernel_is_among_them():
    assert set(CPU.own_kernels()) <= set(OPS)
    assert len(CHECKS) > 4 * len(CPU.own_kernels())

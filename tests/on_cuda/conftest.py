"""After every test, what kernels wrote outside of their memory is an error."""

import pytest

from spiral.gpu.devices import drivers
from spiral.testing.cuda_on_cpu import CudaOnCpu


@pytest.fixture(autouse=True)
def nothing_written_outside_of_memory():
    yield
    found = drivers()
    for driver in found if isinstance(found, list) else []:
        if isinstance(driver, CudaOnCpu):  # a GPU's own memory has no fences
            driver.check_memory()

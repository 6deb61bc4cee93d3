"""After every test, what kernels wrote outside of their memory is an error."""

import os

import pytest

from spiral.gpu.devices import drivers
from spiral.testing.cuda_on_cpu import CudaOnCpu


def pytest_collection_modifyitems(items):
    """On a device, the reason for leaving out what only the processor can be asked for."""
    if os.environ.get("SPIRAL_GPU") == "processor":
        return
    skip = pytest.mark.skip(reason="asks for launches, the order of threads or host memory, which a device has not")
    for item in items:
        if item.get_closest_marker("on_processor"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def nothing_written_outside_of_memory():
    yield
    found = drivers()
    for driver in found if isinstance(found, list) else []:
        if isinstance(driver, CudaOnCpu):  # a GPU's own memory has no fences
            driver.check_memory()

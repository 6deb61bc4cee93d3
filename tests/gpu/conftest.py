"""Kernels written in a test, launched on the processor."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from spiral.gpu import CudaSource
from spiral.gpu.params import Params
from spiral.gpu.sources import CUDA_FOLDER
from spiral.testing.cuda_on_cpu import CudaOnCpu, unavailable


class Bench:
    """A driver over a folder of its own, which holds the project's headers and what a test writes beside them."""

    def __init__(self, folder):
        for path in CUDA_FOLDER.glob("*.cu*"):
            shutil.copy(path, folder)
        self.folder = folder
        self.gpu = CudaOnCpu(folder)

    def order(self, order):
        """Another driver over the same folder whose threads run in another order."""
        other = Bench.__new__(Bench)
        other.folder, other.gpu = self.folder, CudaOnCpu(self.folder, order=order)
        return other

    def write_kernel(self, text, file="test.cu"):
        """A file of kernels; they find the project's names without a prefix."""
        (self.folder / file).write_text(f'#include "spiral.cuh"\nusing namespace spiral;\n{text}')

    def put(self, array):
        """A block that holds an array."""
        block = self.gpu.allocate(array.nbytes)
        self.gpu.write(block.address, np.ascontiguousarray(array))
        return block

    def get(self, block, shape, dtype):
        """A block's bytes as an array."""
        out = np.empty(shape, dtype)
        self.gpu.read(block.address, out)
        return out

    def run(self, name, formats, *values, grid=(1, 1, 1), block=(32, 1, 1), shared=0, file="test.cu"):
        """Launches a kernel; blocks among the values stand for their addresses."""
        function = self.gpu.compile(CudaSource(file, (name,)), name)
        values = [getattr(v, "address", v) for v in values]
        params = Params(*formats.split())
        self.gpu.launch(function, grid, block, shared, params.pack(*values))


@pytest.fixture
def bench(tmp_path):
    """What launches a test's own kernels."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    return Bench(tmp_path)

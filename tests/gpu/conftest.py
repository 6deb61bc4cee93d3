"""Kernels written in a test, launched on the processor."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from spiral.gpu import CudaSource
from spiral.gpu.params import Params
from spiral.gpu.sources import CUDA_FOLDER
from spiral.testing.cuda_on_cpu import CudaOnCpu, unavailable


class Bench:
    """A driver over a folder of its own, which holds the project's headers and what a test writes beside them."""

    def __init__(self, folder, order=None, file="test.cu", names=()):
        self.folder, self.file, self.names = folder, file, names
        self.gpu = CudaOnCpu(folder, order=order)

    def in_order(self, order):
        """Another device with the same kernels, whose threads run in another order."""
        return Bench(self.folder, order, self.file, self.names)

    def take_kernels(self, file, names):
        """A file of this folder, some of whose kernels are built together."""
        shutil.copy(Path(__file__).parent / file, self.folder)
        self.file, self.names = file, tuple(names)

    def write_kernels(self, text):
        """A file of kernels, which find the project's names without a prefix."""
        (self.folder / "test.cu").write_text(f'#include "spiral.cuh"\nusing namespace spiral;\n{text}')

    def change(self, file, old, new):
        """Changes a copy of one of the project's files."""
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))

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

    def run(self, name, formats, *values, grid=(1, 1, 1), block=(32, 1, 1), shared=0, file=None):
        """Launches a kernel; blocks among the values stand for their addresses."""
        function = self.gpu.compile(CudaSource(file or self.file, self.names if name in self.names else (name,)), name)
        params = Params(*formats.split())
        self.gpu.launch(function, grid, block, shared, params.pack(*[getattr(v, "address", v) for v in values]))


@pytest.fixture
def bench(tmp_path):
    """What launches a test's own kernels."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    for path in CUDA_FOLDER.glob("*.cuh"):
        shutil.copy(path, tmp_path)
    return Bench(tmp_path)

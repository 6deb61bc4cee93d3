"""CUDA C++ kernels as Python callables.

    norm = Source("norm.cu")
    rms_norm = {d: norm.kernel(f"spiral::rms_norm<{T[d]}>", "P", "P", "P", "P", "q", "i", "f") for d in T}

    rms_norm[d](gpu, (rows, 1, 1), (256, 1, 1), x.address, weight.address, y.address, rstd.address, rows, n, eps)

A kernel is compiled at its first launch on a device; after that a call packs its values and launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spiral.gpu import CudaSource, Driver
from spiral.gpu.params import Params

SOURCES: dict[str, Source] = {}
"""Every CUDA C++ file with the kernels asked of it; what `make aot` compiles."""


class Source:
    """A file of ``kernels/cuda``."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.names: list[str] = []
        SOURCES[file] = self

    def kernel(self, name: str, *formats: str) -> CudaKernel:
        """A kernel of the file by its name expression, with a `struct` format per parameter."""
        self.names.append(name)
        return CudaKernel(self, name, formats)

    def wanted(self) -> CudaSource:
        """What a driver compiles."""
        return CudaSource(self.file, tuple(self.names))


class CudaKernel:
    """One instantiated kernel."""

    __slots__ = ("name", "params", "source")

    def __init__(self, source: Source, name: str, formats: Sequence[str]) -> None:
        self.source = source
        self.name = name
        self.params = Params(*formats)

    def __call__(
        self, gpu: Driver, grid: tuple[int, int, int], block: tuple[int, int, int], *values: Any, shared: int = 0
    ) -> None:
        """Launches on a device; see `spiral.gpu.Driver.launch`."""
        function = gpu.functions.get(self)
        if function is None:
            function = gpu.functions[self] = gpu.compile(self.source.wanted(), self.name)
        gpu.launch(function, grid, block, shared, self.params.pack(*values))

"""CUDA C++ kernels as Python callables.

    random = Source("random.cu")
    dropout = {d: random.kernel(f"spiral::dropout<{T[d]}>", *"PPIIdQQQ") for d in T}

    dropout[d](gpu, (blocks, 1, 1), (256, 1, 1), x.address, y.address, n, edge, scale, seed, stream, first)

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

    def prepare(self, gpu: Driver) -> None:
        """Compiles it for a device, where that has not been done.

        An op that overwrites its inputs prepares what it launches before the first launch: a kernel that cannot be
        built then leaves them as they were, and another may do the work.

        Raises:
            KernelBuildError: it cannot be built.
        """
        if self not in gpu.functions:
            gpu.functions[self] = gpu.compile(self.source.wanted(), self.name)

    def __call__(
        self, gpu: Driver, grid: tuple[int, int, int], block: tuple[int, int, int], *values: Any, shared: int = 0
    ) -> None:
        """Launches on a device; see `spiral.gpu.Driver.launch`."""
        function = gpu.functions.get(self)
        if function is None:
            function = gpu.functions[self] = gpu.compile(self.source.wanted(), self.name)
        gpu.launch(function, grid, block, shared, self.params.pack(*values))

"""What is compared: a framework on a device, with its clock, its graphs and its memory."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Run = Callable[[], Any]


@dataclass(frozen=True)
class Drawn:
    """An array of random values that repeat: few are drawn and moved, devices repeat them.

    Attributes:
        values: one axis of them, not longer than the array.
        shape: of the array.
    """

    values: Array
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements of the array."""
        return math.prod(self.shape)

    def nbytes(self, dtype: str) -> int:
        """Bytes of the array on a device, where floating values have a dtype."""
        wide = self.values.dtype.kind != "f" or dtype == "float32"
        return self.size * (self.values.itemsize if wide else 2)


class Side(Protocol):
    """A framework, or one of its ways to run.

    Attributes:
        name: how reports call it.
    """

    name: str

    def put(self, drawn: Drawn, dtype: str) -> Any:
        """A tensor on the device; ``dtype`` as in ``float32`` for floating values, ignored for integers."""

    def values(self, outputs: Any, most: int) -> list[Array]:
        """The first elements of each result, as float32; waits."""

    def mark(self) -> Any:
        """A moment of the device."""

    def milliseconds(self, start: Any, end: Any) -> float:
        """Device time between two moments that have passed."""

    def wait(self) -> None:
        """Until the device has done everything."""

    def graph(self, run: Run) -> Run:
        """What replays a run's device work; raises where it cannot be recorded."""

    def peak(self, run: Run) -> int:
        """Bytes that a run needs at most beside what there is."""

    def within(self) -> contextlib.AbstractContextManager[Any]:
        """What runs and recordings happen in."""


class SpiralSide:
    """spiral with a backend preferred."""

    def __init__(self, backend: str) -> None:
        import spiral as sp
        from spiral.device import as_device

        self.name = f"spiral {backend}"
        self.backend = backend
        self.sp = sp
        sp.ones(1).to("cuda")
        self.memory: Any = as_device("cuda").memory
        self.driver = self.memory.driver

    def put(self, drawn: Drawn, dtype: str) -> Any:
        return _spiral_tensor(self.sp, drawn, dtype, "cuda")

    def values(self, outputs: Any, most: int) -> list[Array]:
        flat = [self.sp.reshape(t, (-1,))[:most] for t in _tensors(outputs)]
        return [t.to("cpu").astype(self.sp.float32).numpy() for t in flat]

    def mark(self) -> Any:
        return self.driver.event()

    def milliseconds(self, start: Any, end: Any) -> float:
        return float(end.milliseconds_since(start))

    def wait(self) -> None:
        self.driver.synchronize()

    def graph(self, run: Run) -> Run:
        launch: Run = self.driver.capture(run).launch
        return launch

    def peak(self, run: Run) -> int:
        self.memory.restart_peak()
        before = self.driver.usage.used
        kept = run()
        del kept
        return int(self.driver.usage.peak - before)

    @contextlib.contextmanager
    def within(self) -> Iterator[None]:
        with self.sp.prefer(self.backend):
            yield


class HostSide:
    """spiral on the processor: what results are compared with where there is no PyTorch on a GPU."""

    name = "spiral cpu"

    def __init__(self) -> None:
        import spiral as sp

        self.sp = sp

    def put(self, drawn: Drawn, dtype: str) -> Any:
        """See `Side`."""
        return _spiral_tensor(self.sp, drawn, dtype, "cpu")

    def values(self, outputs: Any, most: int) -> list[Array]:
        """See `Side`."""
        return [self.sp.reshape(t, (-1,))[:most].astype(self.sp.float32).numpy() for t in _tensors(outputs)]


class TorchSide:
    """PyTorch on a GPU, or on the processor where the benchmark itself is tested.

    Args:
        name: how reports call it.
        device: ``cuda`` or ``cpu``.
    """

    def __init__(self, name: str, device: str) -> None:
        import torch

        self.name, self.device, self.torch = name, device, torch

    def put(self, drawn: Drawn, dtype: str) -> Any:
        t = self.torch.tensor(drawn.values)  # a copy: some cases write their inputs
        if drawn.values.dtype.kind == "f":
            t = t.to(getattr(self.torch, dtype))
        t = t.to(self.device)
        return t.repeat(-(-drawn.size // len(t)))[: drawn.size].clone().reshape(drawn.shape)

    def values(self, outputs: Any, most: int) -> list[Array]:
        return [t.detach().reshape(-1)[:most].float().cpu().numpy() for t in _tensors(outputs)]

    def mark(self) -> Any:
        if self.device == "cpu":
            return time.perf_counter()
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, start: Any, end: Any) -> float:
        return (end - start) * 1e3 if self.device == "cpu" else float(start.elapsed_time(end))

    def wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def graph(self, run: Run) -> Run:
        if self.device == "cpu":
            raise RuntimeError("there are no graphs of the processor's work")
        stream = self.torch.cuda.Stream()
        stream.wait_stream(self.torch.cuda.current_stream())
        with self.torch.cuda.stream(stream):  # as PyTorch's notes on graphs ask: libraries make their workspaces
            run()
        self.torch.cuda.current_stream().wait_stream(stream)
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            kept = run()
        return functools.partial(_replay, graph, kept)

    def peak(self, run: Run) -> int:
        if self.device == "cpu":
            return 0
        cuda = self.torch.cuda
        cuda.synchronize()
        cuda.reset_peak_memory_stats()
        before = cuda.memory_allocated()
        kept = run()
        del kept
        return int(cuda.max_memory_allocated() - before)

    def within(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()


def _spiral_tensor(sp: Any, drawn: Drawn, dtype: str, device: str) -> Any:
    t = sp.asarray(drawn.values, copy=True)
    if drawn.values.dtype.kind == "f":
        t = t.astype(getattr(sp, dtype))
    t = t.to(device)
    whole, rest = divmod(drawn.size, len(drawn.values))
    parts = [sp.reshape(sp.broadcast_to(t, (whole, len(drawn.values))), (-1,))] + ([t[:rest]] if rest else [])
    return sp.reshape(t if drawn.size == len(drawn.values) else sp.concat(parts), drawn.shape)


def _replay(graph: Any, kept: Any) -> None:
    graph.replay()


def _tensors(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]

"""Measures the configurations of a choice on a device; what ``spiral tune`` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from spiral.errors import KernelError
from spiral.gpu.driver import Driver
from spiral.gpu.tuning import Choice, Config, Key, Trial

WORTH = 0.02
"""By which part another configuration must be faster than the heuristic to take its place: less is noise."""

_CALLS = 8  # in a graph


@dataclass(frozen=True)
class Outcome:
    """What a search has found for a class of shapes.

    Attributes:
        choice: of which kernel.
        key: the class.
        milliseconds: a call's device time, the median, by configuration.
        failed: configurations that do not run, with the reason.
        best: the configuration to take.
    """

    choice: Choice
    key: Key
    milliseconds: dict[Config, float]
    failed: dict[Config, str]
    best: Config

    @property
    def gain(self) -> float:
        """How many times as fast as the heuristic."""
        default = self.milliseconds.get(self.choice.default(self.key))
        found = self.milliseconds.get(self.best)
        return default / found if default and found else 1.0


@contextmanager
def forced(choice: Choice, gpu: Driver, key: Key, config: Config) -> Iterator[None]:
    """Within the block, launches for a class of shapes take a configuration."""
    before = choice.in_effect(gpu)
    gpu.functions[choice] = {**before, key: config}
    try:
        yield
    finally:
        gpu.functions[choice] = before


def search(choice: Choice, key: Key, gpu: Driver, device: str, *, rounds: int = 15, nbytes: int = 32 << 20) -> Outcome:
    """Measures every configuration of a class of shapes; they take turns.

    Args:
        choice: whose.
        key: the class.
        gpu: the device's driver.
        device: as tensors know it.
        rounds: how often each is measured.
        nbytes: about how many of an input.

    Raises:
        KernelError: the heuristic itself does not run.
    """
    runs: dict[Config, Callable[[], None]] = {}
    failed: dict[Config, str] = {}
    call = prepared(choice.trial(key, nbytes), choice.backend, device, 4 * int(gpu.facts.more.get("l2", 0)))
    for config in choice.configs[key]:
        try:
            with forced(choice, gpu, key, config):
                call()  # compiled before it is recorded
                gpu.synchronize()
                runs[config] = _recorded(gpu, call)
        except KernelError as error:
            if config == choice.default(key):
                raise
            failed[config] = str(error)
    spent: dict[Config, list[float]] = {config: [] for config in runs}
    for i in range(rounds):
        for config in list(runs) if i % 2 == 0 else list(reversed(runs)):
            start = gpu.event()
            runs[config]()
            end = gpu.event()
            gpu.synchronize()
            spent[config].append(end.milliseconds_since(start) / _CALLS)
    milliseconds = {config: median(times) for config, times in spent.items()}
    default = choice.default(key)
    best = min(milliseconds, key=lambda c: milliseconds[c])
    if milliseconds[best] > (1 - WORTH) * milliseconds[default]:
        best = default
    return Outcome(choice, key, milliseconds, failed, best)


def _recorded(gpu: Driver, call: Callable[[], None]) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(_CALLS):
            call()

    if gpu.facts.more.get("on_processor") and not hasattr(gpu, "keep"):
        return calls  # the interpreter's memory records nothing
    return gpu.capture(calls).launch


def prepared(trial: Trial, backend: str, device: str, beyond: int) -> Callable[[], None]:
    """A call of a trial's op by a backend, each on the next of several sets of inputs.

    Args:
        trial: what to call.
        backend: whose kernel.
        device: where the tensors are.
        beyond: bytes that all sets together have at least: more than the device's cache.
    """
    import spiral as sp
    from spiral.op import OPS

    rng = np.random.default_rng(0)

    def tensor(of: tuple[tuple[int, ...], str] | None) -> Any:
        if of is None:
            return None
        shape, dtype = of
        drawn = rng.standard_normal(min(int(np.prod(shape)), 1 << 20), dtype=np.float32)
        return sp.asarray(np.resize(drawn, shape)).astype(getattr(sp, dtype)).to(device)

    first = [tensor(i) for i in trial.inputs]
    size = sum(t.size * t.dtype.numpy.itemsize for t in first if t is not None)
    sets = [first, *([tensor(i) for i in trial.inputs] for _ in range(min(_CALLS, -(-beyond // max(1, size))) - 1))]
    at, op = [0], OPS[trial.op]

    def call() -> None:
        at[0] = (at[0] + 1) % len(sets)
        with sp.prefer(backend, fallback="error"):
            op.call(*sets[at[0]], *trial.attrs)

    return call

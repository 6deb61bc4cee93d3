"""A competitor as the measuring process sees it: a child process that runs steps when told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Settings by which a machine forces one OpenBLAS core on everybody. Users do not have them, so
# measuring with them would measure another program.
_FORCED_CORE = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_THREAD_COUNTS = (
    "SPIRAL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


class BenchmarkError(RuntimeError):
    """The measurement cannot be made, or would compare different things."""


def environment(threads: int) -> dict[str, str]:
    """The environment of a competitor: ours, without a forced OpenBLAS core, with thread counts."""
    env = {name: value for name, value in os.environ.items() if name not in _FORCED_CORE}
    env.update(dict.fromkeys(_THREAD_COUNTS, str(threads)))
    return env


class Competitor:
    """One framework training one workload in a child process; use it in a ``with`` block.

    Args:
        framework: ``"spiral"`` or ``"torch"``.
        workload: a key of `benchmarks.workloads.WORKLOADS`.
        threads: how many it may use.
        batches: how many different batches it goes through, again and again.
        seed: of batches and initial weights.
        lr: AdamW's learning rate.
    """

    def __init__(
        self,
        framework: str,
        workload: str,
        *,
        threads: int,
        batches: int = 16,
        seed: int = 0,
        lr: float = 1e-3,
    ) -> None:
        self.framework = framework
        arguments = {"threads": threads, "batches": batches, "seed": seed, "lr": lr}
        command = [sys.executable, "-m", "benchmarks.child", framework, workload]
        self._process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in arguments.items())],
            cwd=ROOT,
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Competitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin and self._process.stdout
        if kind is not None:
            self._process.kill()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it died; ask() has said so
        self._process.wait()
        self._process.stdout.close()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Sends one command and waits for its answer.

        Raises:
            BenchmarkError: the child ended instead of answering (its own message is on stderr).
        """
        assert self._process.stdin and self._process.stdout
        line = ""
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass  # it died before it read the command: reported below
        if not line:
            status = self._process.wait()
            raise BenchmarkError(
                f"{self.framework}: expected an answer to {do!r}; its process ended with status {status}."
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def check_same_start(ours: Competitor, theirs: Competitor) -> None:
    """Checks that both train the same parameters.

    Raises:
        BenchmarkError: a parameter's name or shape differs.
    """
    shapes = [{k: tuple(v) for k, v in c.ask("shapes")["shapes"].items()} for c in (ours, theirs)]
    if shapes[0] != shapes[1]:
        differing = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
        raise BenchmarkError(
            f"{ours.framework} and {theirs.framework}: expected equal parameters; these differ: {differing}."
        )


def largest_difference(ours: list[float], theirs: list[float]) -> tuple[float, int]:
    """The largest relative difference of two sequences of losses, and its step (nan counts as inf)."""
    differences = [abs(a - b) / max(abs(b), 1e-30) for a, b in zip(ours, theirs, strict=True)]
    differences = [d if d == d else float("inf") for d in differences]
    worst = max(differences)
    return worst, differences.index(worst)

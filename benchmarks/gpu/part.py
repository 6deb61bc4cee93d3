"""A part of the run in a process of its own: what breaks a device, or hangs, takes nothing else with it.

A part writes a line of JSON for each thing it has found, as soon as it has found it, so that what it found before it
failed or ran out of time is kept.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_TOLD = 3000  # characters of the end of a failed part's output


@dataclass
class Part:
    """What became of a part.

    Attributes:
        name: which.
        seconds: how long it took.
        found: its lines.
        failure: why it did not end well; None: it did.
    """

    name: str
    seconds: float = 0.0
    found: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None

    @property
    def told(self) -> str:
        """How it ended, in a line."""
        if self.failure is None:
            return "done"
        first, *rest = self.failure.splitlines()
        return f"{first[:60]} … {rest[-1][-110:]}" if rest else first[:170]

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "seconds": round(self.seconds, 2), "failure": self.failure, "found": self.found}


class Sink:
    """Where a part's process writes its lines."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def put(self, **line: Any) -> None:
        """Writes a line that will be kept whatever happens next."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def environment(device: str, **more: str) -> dict[str, str]:
    """The variables of a part's process: the clone's own spiral, on the device asked for.

    Args:
        device: ``cuda`` or ``processor``.
        more: variables to set besides.
    """
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    if device == "processor":
        env |= {"SPIRAL_GPU": "processor", "TRITON_INTERPRET": "1", "SPIRAL_NUM_THREADS": "1"}
    return {**env, **more}


def run_part(name: str, command: Sequence[str], *, env: dict[str, str], seconds: float) -> Part:
    """Runs ``python COMMAND --found FILE`` for at most so long; never raises for what happens there."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.jsonl"
        path.touch()
        log = (Path(folder) / "log").open("w+")
        process = subprocess.Popen(
            [sys.executable, *command, "--found", str(path), "--seconds", f"{seconds:.1f}"],
            cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        failure = None
        try:
            status = process.wait(timeout=max(1.0, seconds))
            if status:
                failure = f"exit status {status}"
        except subprocess.TimeoutExpired:
            failure = f"stopped after {seconds:.0f} s"
        except BaseException:
            _end(process)
            raise
        _end(process)
        if failure is not None:
            log.seek(0)
            failure = f"{failure}: {log.read()[-_TOLD:].strip()}"
        log.close()
        found = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return Part(name, time.perf_counter() - start, found, failure)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has ended
        pass
    process.wait()

"""The record of a run: one JSON object per line, and the loss curve drawn from it."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spiral.errors import SaveError
from spiral.optional import missing

_BLOCKS = "▁▂▃▄▅▆▇█"


class MetricsFile:
    """Appends events to a file, so that a run that dies has its record up to there.

    Args:
        path: The file; made with the first event.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, event: str, values: Mapping[str, Any]) -> None:
        """Append one event; a number that is not finite becomes null, as JSON has none.

        Raises:
            SaveError: It cannot be written; the file is as before.
        """
        plain = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
        line = (json.dumps({"event": event, **plain}) + "\n").encode("utf-8")
        before = None
        try:
            with self.path.open("ab", buffering=0) as file:
                before = file.tell()
                if file.write(line) != len(line):  # the disk had room for a part
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if before is not None:
                os.truncate(self.path, before)
            raise SaveError(f"{self.path}: cannot be written: {error.strerror}; free some space and resume.") from error

    def read(self) -> Iterator[dict[str, Any]]:
        """The events; a last line that a crash cut short is left out."""
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                return
            if not isinstance(event, dict):
                return
            yield event

    def keep_up_to(self, step: int) -> None:
        """Drop what was recorded after a step: a resumed run records it again."""
        if not self.path.exists():
            return
        from spiral.io import atomic_write

        kept = [event for event in self.read() if event.get("step", 0) <= step and event.get("event") != "failure"]
        with atomic_write(self.path) as partial:
            partial.write_text("".join(json.dumps(event) + "\n" for event in kept), encoding="utf-8")


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Values as a line of blocks, the mean of each stretch.

    Example:
        >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7], width=8)
        '▁▂▃▄▅▆▇█'
    """
    if not values:
        return ""
    width = min(width, len(values))
    bounds = [len(values) * i // width for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in zip(bounds, bounds[1:], strict=False)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def draw_loss(metrics: MetricsFile, path: str | Path, *, title: str, references: Mapping[str, float]) -> None:
    """Draw loss and bits per byte over steps as a PNG.

    Args:
        metrics: The run's record.
        path: The picture.
        title: Its heading.
        references: Name and bits per byte of baselines, drawn as lines.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        SaveError: It cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing("matplotlib", "the loss curve (PNG)", "pip install 'spiral[plot]'") from error
    from spiral.io import atomic_write

    events = list(metrics.read())
    steps = [e for e in events if e["event"] == "step" and e["loss"] is not None]
    evaluations = [e for e in events if e["event"] == "evaluation" and e["bits_per_byte"] is not None]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    loss, bits = figure.subplots(1, 2)
    loss.plot([e["step"] for e in steps], [e["loss"] for e in steps], linewidth=0.8)
    loss.set(title="training loss", xlabel="step", ylabel="nats per token")
    bits.plot([e["step"] for e in evaluations], [e["bits_per_byte"] for e in evaluations], marker="o", label="model")
    for i, (name, value) in enumerate(references.items()):
        bits.axhline(value, linestyle="--", color=f"C{i + 1}", linewidth=1, label=f"{name} {value:.2f}")
    bits.set(title="held-out text", xlabel="step", ylabel="bits per byte")
    bits.legend()
    figure.suptitle(title)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110, format="png")

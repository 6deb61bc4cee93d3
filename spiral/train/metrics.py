"""The record of a run: one JSON object per line, and the loss curve drawn from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_BLOCKS = "▁▂▃▄▅▆▇█"


class MetricsFile:
    """Appends events to a file, so that a run that dies has its record up to there.

    Args:
        path: The file; made with the first event.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, event: str, values: Mapping[str, Any]) -> None:
        """Append one event."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **values}) + "\n")

    def read(self) -> Iterator[dict[str, Any]]:
        """The events; a last line that a crash cut short is left out."""
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return

    def keep_up_to(self, step: int) -> None:
        """Drop what was recorded after a step: a resumed run records it again."""
        if not self.path.exists():
            return
        from spiral.io import atomic_write

        kept = [event for event in self.read() if event.get("step", 0) <= step]
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


def draw_loss(metrics: MetricsFile, path: str | Path, *, title: str, references: Mapping[str, float]) -> bool:
    """Draw loss and bits per byte over steps as a PNG.

    Args:
        metrics: The run's record.
        path: The picture.
        title: Its heading.
        references: Name and bits per byte of baselines, drawn as lines.

    Returns:
        Whether it was drawn: False where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    events = list(metrics.read())
    steps = [e for e in events if e["event"] == "step"]
    evaluations = [e for e in events if e["event"] == "evaluation"]
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
    figure.savefig(Path(path), dpi=110)
    return True

"""Learning curves that follow a run: a picture with other runs beside it, and a curve in the terminal."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import spiral
from spiral.errors import ArgumentError, DataError, SaveError
from spiral.io import atomic_write
from spiral.plugin import Plugin, PluginCapability, PluginContext, PluginMetadata
from spiral.train import Callback, Evaluation, MetricsFile, Trainer

log = logging.getLogger("spiral.plugin.curve")
Points = list[tuple[float, float]]
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bits of a braille character's dots, by row


def recorded(metrics: MetricsFile, event: str, key: str) -> Points:
    """Steps and values of a figure in a run's record."""
    return [(e["step"], e[key]) for e in metrics.read() if e.get("event") == event and e.get(key) is not None]


def smoothed(points: Points) -> Points:
    """The moving average over about the last 50th of the points, without a bias at its start."""
    out, total, weight, keep = [], 0.0, 0.0, 0.5 ** (100.0 / max(len(points), 100))
    for x, y in points:
        total, weight = total * keep + y, weight * keep + 1.0
        out.append((x, total / weight))
    return out


def braille(points: Points, width: int = 64, height: int = 10) -> list[str]:
    """A curve of 2 x 4 dots a character over its range and its steps.

    Example:
        >>> braille([(1, 4.0), (2, 2.0), (3, 1.0)], width=4, height=2)
        ['4.000 ┤⠑⡄⠀⠀', '1.000 ┤⠀⠈⠢⢄', '       1  3']
    """
    low, high = min(y for _, y in points), max(y for _, y in points)
    (start, _), (end, _) = points[0], points[-1]
    cells, at, last = [[0] * width for _ in range(height)], 0, -1
    for column in range(2 * width):
        step = start + (end - start) * column / (2 * width - 1)
        while at + 2 < len(points) and points[at + 1][0] < step:
            at += 1
        (x0, y0), (x1, y1) = points[at], points[min(at + 1, len(points) - 1)]
        y = y0 + (y1 - y0) * min((step - x0) / (x1 - x0), 1.0) if x1 > x0 else y1
        row = round((high - y) / (high - low) * (4 * height - 1)) if high > low else 2 * height
        other = row if last < 0 else last + (row > last) - (row < last)  # no gap where it is steep
        for each in range(min(row, other), max(row, other) + 1):
            cells[each // 4][column // 2] |= DOTS[each % 4][column % 2]
        last = row
    labels = {0: f"{high:.3f}", height - 1: f"{low:.3f}"}
    side = max(map(len, labels.values()))
    lines = [f"{labels.get(i, ''):>{side}} ┤{''.join(chr(0x2800 + c) for c in row)}" for i, row in enumerate(cells)]
    return [*lines, f"{'':{side + 2}}{start:<{width - len(str(end))}}{end}"]


def draw(runs: dict[str, MetricsFile], path: Path) -> None:
    """A picture of runs, the first in front: loss, as it was and smoothed, and bits per byte."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    loss, held_out = figure.subplots(1, 2)
    for number, (name, metrics) in reversed(list(enumerate(runs.items()))):
        color, order = f"C{number}", 10 - number
        steps, bits = recorded(metrics, "step", "loss"), recorded(metrics, "evaluation", "bits_per_byte")
        loss.plot(*zip(*steps, strict=True), color=color, alpha=0.25, linewidth=0.7) if steps else None
        for axes, points, style in ((loss, smoothed(steps), "-"), (held_out, bits, "o-")):
            if points:
                axes.plot(*zip(*points, strict=True), style, color=color, zorder=order, markersize=4, label=name)
                axes.annotate(f"{points[-1][1]:.3f}", points[-1], (4, 0), textcoords="offset points", color=color,
                              va="center", fontsize=8)  # fmt: skip
    loss.set(title="training loss", xlabel="step", ylabel="nats per token")
    held_out.set(title="held-out text", xlabel="step", ylabel="bits per byte")
    for axes in (loss, held_out):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
        axes.margins(x=0.08)
    if len(runs) > 1:
        loss.legend(frameon=False, reverse=True)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


class Curve(Callback):
    """Keeps ``curve.png`` in the run's folder up to date, and shows the loss in the terminal at the end.

    The picture is drawn after evaluations and at the end. Without matplotlib there is none, and it cannot be written
    when the disk is full: each is said once in the log, and training goes on.

    Args:
        compare: Folders of other runs, drawn beside this one.
        seconds: How long to wait at least between two pictures; one takes about half a second.
        terminal: Whether to show the curve at the end.
    """

    def __init__(self, compare: Sequence[str] = (), seconds: float = 30.0, terminal: bool = True) -> None:
        if isinstance(compare, str) or not seconds >= 0:
            raise ArgumentError(
                f"curve: expected a list of folders and seconds >= 0; received {compare!r}, {seconds!r}."
            )
        self.compare, self.seconds, self.terminal, self.due, self.able = tuple(compare), seconds, terminal, 0.0, True

    def on_start(self, trainer: Trainer) -> None:
        self.runs = {trainer.folder.name: trainer.metrics}
        for folder in self.compare:
            self.runs[folder] = MetricsFile(Path(folder) / "metrics.jsonl")
            if not self.runs[folder].path.is_file():
                raise DataError(f"curve: {folder}: there is no run to compare with (no metrics.jsonl).")
        self.able = importlib.util.find_spec("matplotlib") is not None
        if not self.able:
            log.warning("curve: no picture without matplotlib; pip install 'spiral[plot]'")

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        if time.monotonic() >= self.due:
            self.picture(trainer)

    def on_end(self, trainer: Trainer) -> None:
        self.picture(trainer)
        steps = smoothed(recorded(trainer.metrics, "step", "loss"))
        if self.terminal and steps:
            print("\n".join(["training loss, nats per token", *braille(steps)]))

    def picture(self, trainer: Trainer) -> None:
        """Draws what there is by now."""
        if self.able:
            try:
                draw(self.runs, trainer.folder / "curve.png")
            except SaveError as error:
                self.able = False
                log.warning("curve: %s", error)
            self.due = time.monotonic() + self.seconds


class CurvePlugin(Plugin):
    """Brings the callback ``curve``."""

    def metadata(self) -> PluginMetadata:
        made = PluginMetadata("curve", spiral.__version__).with_capability(PluginCapability.Visualization)
        return made.with_description("learning curves as a picture and in the terminal")

    def on_load(self, ctx: PluginContext) -> None:
        ctx.register_callback("curve", Curve)

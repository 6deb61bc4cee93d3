"""A live view of a run in the terminal; where there is none, or in a log, plain lines."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import spiral
from spiral.errors import ArgumentError
from spiral.plugin import Plugin, PluginCapability, PluginContext, PluginMetadata
from spiral.train import Callback, Evaluation, StepRecord, Trainer, sparkline

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def duration(seconds: float) -> str:
    """A time for people.

    Example:
        >>> duration(7), duration(192), duration(7384), duration(200000)
        ('7 s', '3:12 min', '2:03 h', '2 d 7 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    if whole < 86400:
        return f"{whole // 3600}:{whole % 3600 // 60:02} h"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


class Live(Callback):
    """Shows step, loss with its curve, rate, gradient norm, speed, time left, evaluations and memory of a run.

    In a terminal it is a panel that is drawn over itself; elsewhere a line every ``run.log_every`` steps. The terminal
    is as before once the run is over, however it ended. ``spiral train`` then shows no progress bar of its own.

    Args:
        seconds: How long to wait at least between two drawings.
        console: Where to; None: standard output.
    """

    shows_progress = True

    def __init__(self, seconds: float = 0.1, console: Console | None = None) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
            raise ArgumentError(f"live: seconds must be a number of at least 0; received {seconds!r}.")
        self.seconds, self.given, self.due = seconds, console, 0.0
        self.view: Any = None
        self.losses: list[float] = []
        self.recent: deque[StepRecord] = deque(maxlen=20)
        self.evaluation = "none yet"
        self.best = float("inf")

    def on_start(self, trainer: Trainer) -> None:
        from rich.console import Console
        from rich.live import Live as View

        self.began, self.first = time.monotonic(), trainer.step
        self.losses = [e["loss"] for e in trainer.metrics.read() if e.get("event") == "step" and e["loss"] is not None]
        self.console = self.given or Console()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self.view = View(self.panel(trainer), console=self.console, auto_refresh=False)
            self.view.start(refresh=True)

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        self.losses.append(record.loss)
        self.recent.append(record)
        last = record.step == trainer.config.run.steps
        if self.view is None and (last or record.step % trainer.config.run.log_every == 0):
            self.say(f"step {record.step:>6}  " + "  ".join(f"{k} {v}" for k, v in self.figures(trainer).items()))
        elif self.view is not None and (last or time.monotonic() >= self.due):
            self.refresh(trainer)

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        bits, mark = evaluation.bits_per_byte, ""
        if bits < self.best:
            self.best, mark = bits, ", the best so far"
        self.evaluation = f"{bits:.4f} bits per byte at step {trainer.step}{mark}"
        if self.view is None:
            self.say(f"step {trainer.step:>6}  held-out {self.evaluation}")
        else:
            self.refresh(trainer)

    def on_close(self, trainer: Trainer) -> None:
        view, self.view = self.view, None
        if view is not None:
            view.update(self.panel(trainer))
            view.stop()

    def say(self, line: str) -> None:
        """A plain line."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def refresh(self, trainer: Trainer) -> None:
        """Draws the panel anew."""
        self.view.update(self.panel(trainer), refresh=True)
        self.due = time.monotonic() + self.seconds

    def figures(self, trainer: Trainer) -> dict[str, str]:
        """What there is to say of the last steps, by name."""
        if not self.recent:
            return {}
        last, took = self.recent[-1], sum(r.seconds for r in self.recent)
        tokens, steps = sum(r.tokens for r in self.recent), len(self.recent)
        pace = (time.monotonic() - self.began) / max(trainer.step - self.first, 1)  # with evaluations and all
        pool = spiral.memory()
        memory = {"memory": f"{pool['live'] / 2**20:,.1f} MiB (peak {pool['peak'] / 2**20:,.1f})"} if pool else {}
        return {
            "loss": f"{last.loss:.4f}",
            "lr": f"{last.lr:.2e}",
            "norm": f"{last.grad_norm:.2f}",
            "speed": f"{steps / took:.1f} steps/s, {tokens / took:,.0f} tokens/s" if took else "-",
            "left": duration(pace * max(trainer.config.run.steps - trainer.step, 0)),
            **memory,
        }

    def panel(self, trainer: Trainer) -> RenderableType:
        """The view as it is now."""
        from rich.markup import escape
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        steps, table = trainer.config.run.steps, Table.grid(padding=(0, 2))
        table.add_row(f"step {trainer.step:,} / {steps:,}", ProgressBar(steps, trainer.step, width=48))
        for name, text in self.figures(trainer).items():
            table.add_row(name, f"{text}  {sparkline(self.losses, 40)}" if name == "loss" else text)
        table.add_row("held-out", self.evaluation)
        return Panel(table, title=escape(trainer.folder.name), title_align="left", expand=False)


class LivePlugin(Plugin):
    """Brings the callback ``live``."""

    def metadata(self) -> PluginMetadata:
        made = PluginMetadata("live", spiral.__version__).with_capability(PluginCapability.Visualization)
        return made.with_description("a live view of a run in the terminal")

    def on_load(self, ctx: PluginContext) -> None:
        ctx.register_callback("live", Live)

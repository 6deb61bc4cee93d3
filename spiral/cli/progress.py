"""What a training run shows in the terminal: a bar while it is one, plain lines where it is a log."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spiral.train import Callback, Evaluation, StepRecord, Trainer
from spiral.train.metrics import sparkline


class TerminalProgress(Callback):
    """Shows steps, loss, speed and evaluations, unless another callback of the run shows them.

    Args:
        console: Where to; a bar is drawn only on a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._losses: list[float] = []
        self._silent = False

    def on_start(self, trainer: Trainer) -> None:
        self._silent = any(callback.shows_progress for callback in trainer.callbacks)
        steps = trainer.config.run.steps
        if self._silent or not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  loss {task.fields[loss]:.3f}  {task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("training", total=steps, completed=trainer.step, loss=float("nan"), speed="")
        self._bar.start()

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if self._silent:
            return
        self._losses.append(record.loss)
        speed = f"{1.0 / record.seconds:.1f} steps/s, {record.tokens / record.seconds:,.0f} tokens/s"
        if self._bar is not None:
            self._bar.update(
                self._task, completed=record.step, total=trainer.config.run.steps, loss=record.loss, speed=speed
            )
        elif record.step % trainer.config.run.log_every == 0 or record.step == trainer.config.run.steps:
            self._console.print(
                f"step {record.step:>6}  loss {record.loss:.4f}  lr {record.lr:.2e}  "
                f"norm {record.grad_norm:.2f}  {speed}",
                soft_wrap=True,
                highlight=False,
            )

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        if self._silent:
            return
        self._console.print(
            f"step {trainer.step:>6}  held-out {evaluation.bits_per_byte:.4f} bits per byte "
            f"({evaluation.loss:.4f} nats per token)",
            soft_wrap=True,
            highlight=False,
        )

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        if self._bar is None and not self._silent:
            self._console.print(f"step {trainer.step:>6}  saved {path}", soft_wrap=True, highlight=False)

    def on_end(self, trainer: Trainer) -> None:
        self.close()
        if self._losses:
            self._console.print(
                f"loss {self._losses[0]:.2f} {sparkline(self._losses)} {self._losses[-1]:.2f}", highlight=False
            )

    def close(self) -> None:
        """Leave the terminal as it was; also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

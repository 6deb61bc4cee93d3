"""Training for a time instead of a number of steps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from spiral.errors import ArgumentError
from spiral.train.callbacks import Callback

if TYPE_CHECKING:
    from spiral.train.trainer import StepRecord, Trainer

_FIRST = 10  # steps before the first plan: the first ones bind kernels and fill the buffer pool


class TimeBudget(Callback):
    """Lowers the run's number of steps so that it ends in time with its schedule complete.

    The plan follows the speed, which other programs change. So two such runs are not alike: give a
    number of steps where a run shall be repeatable.

    Args:
        seconds: Wall time to train, evaluations included.
    """

    def __init__(self, seconds: float) -> None:
        if not isinstance(seconds, (int, float)) or not 0 < seconds < 1e9:
            raise ArgumentError(f"TimeBudget: seconds must be positive and below 1e9; received {seconds!r}.")
        self._seconds = seconds
        self._start = 0.0
        self._first_step = 0
        self._most = 0

    def on_start(self, trainer: Trainer) -> None:
        self._start = time.monotonic()
        self._most = trainer.config.run.steps
        self._first_step = trainer.step

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        taken = record.step - self._first_step
        elapsed = time.monotonic() - self._start
        left = self._seconds - elapsed
        if taken < _FIRST and left > 0:
            return
        steps = record.step + max(0, int(left * taken / elapsed))
        trainer.config = trainer.config.updated({"run": {"steps": min(steps, self._most)}})

"""What a training run tells the process's event bus; nothing is made for nobody.

The running mean of the epoch is kept in checkpoints, so that a run that is stopped and resumed publishes each epoch's
start and end once, with the loss that an uninterrupted run gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiral.plugin.bus import EventBus, event_bus
from spiral.plugin.events import (
    CheckpointSaved,
    EpochEnd,
    EpochStart,
    Evaluated,
    StepEnd,
    Telemetry,
    TrainingEnd,
    TrainingStart,
)

if TYPE_CHECKING:
    from spiral.train.evaluate import Evaluation
    from spiral.train.trainer import StepRecord


class Publisher:
    """Publishes a run's events; the first pass over the training tokens is epoch 1.

    A step belongs to the epoch in which its first tokens lie. An epoch that is over before a step of its own (there
    are fewer tokens than a step takes) has that step's loss.

    Args:
        bus: where to.
    """

    def __init__(self, bus: EventBus = event_bus) -> None:
        self._bus = bus
        self._started = 0  # the newest epoch whose start was published
        self._loss, self._steps = 0.0, 0  # of the steps that began in it

    def training_started(self, total_steps: int) -> None:
        """Before the first step of this process."""
        if self._bus.has_listeners(TrainingStart):
            self._bus.publish(TrainingStart(total_steps))

    def step_begins(self, epoch: int) -> None:
        """Before a step whose first tokens lie in an epoch, counted from 0 as loaders do."""
        if epoch + 1 > self._started:
            self._start(epoch + 1)

    def step_ended(self, record: StepRecord, epoch: int) -> None:
        """After a step; the next one begins in `epoch`, counted from 0."""
        self._loss += record.loss
        self._steps += 1
        if self._bus.has_listeners(StepEnd):
            self._bus.publish(StepEnd(**record.__dict__))
        if self._bus.has_listeners(Telemetry):
            self._bus.publish(Telemetry(_numbers(record)))
        if self._started <= epoch:
            self._end(self._loss / self._steps)
        while self._started < epoch:  # epochs that lie within one step
            self._start(self._started + 1)
            self._end(record.loss)

    def _start(self, epoch: int) -> None:
        self._started, self._loss, self._steps = epoch, 0.0, 0
        if self._bus.has_listeners(EpochStart):
            self._bus.publish(EpochStart(epoch))

    def _end(self, loss: float) -> None:
        if self._bus.has_listeners(EpochEnd):
            self._bus.publish(EpochEnd(self._started, loss))

    def evaluated(self, step: int, found: Evaluation) -> None:
        """After an evaluation."""
        if self._bus.has_listeners(Evaluated):
            self._bus.publish(Evaluated(step, found.loss, found.bits_per_byte))

    def checkpoint_saved(self, step: int, path: Path) -> None:
        """After a checkpoint was written."""
        if self._bus.has_listeners(CheckpointSaved):
            self._bus.publish(CheckpointSaved(step, path))

    def training_ended(self, step: int) -> None:
        """After the last step."""
        if self._bus.has_listeners(TrainingEnd):
            self._bus.publish(TrainingEnd(step))

    def state_dict(self) -> dict[str, Any]:
        """Which epoch was started, and the loss of its steps so far."""
        return {"started": self._started, "loss": self._loss, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where a run stood that was saved."""
        self._started, self._loss, self._steps = int(state["started"]), float(state["loss"]), int(state["steps"])


def _numbers(record: StepRecord) -> dict[str, float]:
    return {
        "step": float(record.step),
        "loss": record.loss,
        "lr": record.lr,
        "grad_norm": record.grad_norm,
        "tokens_per_second": record.tokens / record.seconds if record.seconds > 0 else 0.0,
    }

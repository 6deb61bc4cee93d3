"""What callbacks hold is given back, however a run ends."""

from __future__ import annotations

import signal

import pytest
from tiny_run import Signal, trained

from spiral.train import Callback, Interrupted, StepRecord, TrainConfig, Trainer


class Notes(Callback):
    """Writes down what it is told, and raises where it shall."""

    def __init__(self, log: list[str], name: str, raises: str = "") -> None:
        self.log, self.name, self.raises = log, name, raises

    def note(self, what: str) -> None:
        self.log.append(f"{self.name} {what}")
        if what == self.raises:
            raise ValueError(f"{self.name} {what}")

    def on_start(self, trainer: Trainer) -> None:
        self.note("start")

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step == 3:
            self.note("step")

    def on_end(self, trainer: Trainer) -> None:
        self.note("end")

    def on_close(self, trainer: Trainer) -> None:
        self.note("close")


def test_callbacks_are_closed_after_the_end_the_last_first(config: TrainConfig) -> None:
    log: list[str] = []
    trained(config, callbacks=(Notes(log, "a"), Notes(log, "b")))
    assert log == ["a start", "b start", "a step", "b step", "a end", "b end", "b close", "a close"]


@pytest.mark.parametrize("where", ["start", "step", "end"])
def test_callbacks_are_closed_after_an_error(config: TrainConfig, where: str) -> None:
    log: list[str] = []
    with pytest.raises(ValueError, match=f"a {where}"):
        trained(config, callbacks=(Notes(log, "a", where), Notes(log, "b")))
    assert log[-2:] == ["b close", "a close"]


def test_one_that_cannot_be_closed_does_not_keep_the_others_open(config: TrainConfig) -> None:
    log: list[str] = []
    with pytest.raises(ValueError, match="b close"):
        trained(config, callbacks=(Notes(log, "a"), Notes(log, "b", "close"), Notes(log, "c")))
    assert log[-3:] == ["c close", "b close", "a close"]


def test_callbacks_are_closed_when_the_run_is_asked_to_stop(config: TrainConfig) -> None:
    log: list[str] = []
    with pytest.raises(Interrupted):
        trained(config, callbacks=(Notes(log, "a"), Signal(4, signal.SIGTERM)))
    assert log[-1] == "a close" and "a end" not in log

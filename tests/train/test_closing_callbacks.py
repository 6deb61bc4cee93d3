"""What callbacks hold is given back, however a run ends; and only one of them owns the terminal."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from rich.console import Console
from tiny_run import Signal, tiny_config, trained

from spiral.cli.progress import TerminalProgress
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


class Shows(Callback):
    """Says that it shows the run."""

    shows_progress = True


def test_the_commands_own_progress_stays_away_where_another_callback_shows_it(tmp_path: Path) -> None:
    for number, others in enumerate([(), (Shows(),)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        text = io.StringIO()
        progress = TerminalProgress(Console(file=text, force_terminal=True))
        trained(tiny_config(folder, run={"eval_every": 4}), callbacks=(progress, *others))
        assert bool(text.getvalue()) is not bool(others)

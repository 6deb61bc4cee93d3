"""The trainer publishes what happens in a run, each epoch once however often it is stopped, and changes nothing."""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter
from pathlib import Path

import pytest

import spiral as sp
from spiral.data import TokenDataset
from spiral.errors import TrainingError
from spiral.models import Llama
from spiral.plugin.bus import event_bus
from spiral.plugin.events import EpochEnd, EpochStart, StepEnd, Telemetry
from spiral.train import Callback, StepRecord, TrainConfig, Trainer
from spiral.train.checkpoint import load_checkpoint
from spiral.train.publishing import Publisher
from spiral.train.trainer import HeldOut

_tiny = importlib.util.spec_from_file_location("tiny_run", Path(__file__).parents[1] / "train" / "tiny_run.py")
tiny_run = importlib.util.module_from_spec(_tiny)
_tiny.loader.exec_module(tiny_run)


def config_for(folder, **run):
    values = {"steps": 14, "batch_size": 4, "eval_every": 0, "checkpoint_every": 0, "keep": 9, **run}
    return TrainConfig.from_dict(
        {
            "model": {"context_length": 8, "n_layer": 1, "n_head": 2, "n_kv_head": 1, "dim": 8, "ffn_dim": 16},
            "optim": {"warmup_steps": 2, "lr": 1e-2},
            "run": {"out": str(folder), **values},
        }
    )


def trainer_for(folder, *, held_out=None, callbacks=(), **run):
    config = config_for(folder, **run)
    tokens = TokenDataset([i % 7 for i in range(100)], vocab_size=7)
    sp.random.manual_seed(0)
    return Trainer(Llama(config.model.llama(7)), tokens, held_out, config, callbacks=callbacks)


@pytest.fixture
def heard():
    found = []
    with event_bus.subscribe("*", lambda event: event.name == "TensorOp" or found.append(event)):
        yield found


def of(heard, kind):
    return [event for event in heard if isinstance(event, kind)]


class Stop(Callback):
    """Ends the process's part of a run when a step's checkpoint has been written."""

    def __init__(self, step):
        self.step = step

    def on_checkpoint(self, trainer, path):
        if trainer.step == self.step:
            raise InterruptedError


# ------------------------------------------------------------ order
def test_a_run_is_told_from_start_to_end_in_order(tmp_path, heard):
    text = TokenDataset([i % 7 for i in range(40)], vocab_size=7)
    trainer_for(tmp_path, steps=4, batch_size=6, eval_every=2, checkpoint_every=4, held_out=HeldOut(text, 40)).fit()
    names = [event.name for event in heard if event.name not in ("BackendChanged", "PluginLoaded")]
    step = ["StepEnd", "Telemetry"]
    # two steps of 6 windows see the 12 of an epoch, or its 11 and the first of the next
    assert names == [
        "TrainingStart", "EpochStart", *step, *step, "EpochEnd", "Evaluated", "EpochStart", *step, *step, "EpochEnd",
        "Evaluated", "CheckpointSaved", "TrainingEnd",
    ]  # fmt: skip
    assert next(e for e in heard if e.name == "TrainingStart").total_steps == 4 and heard[-1].step == 4
    assert [event.step for event in heard if event.name in ("Evaluated", "CheckpointSaved")] == [2, 4, 4]
    assert [e.path.is_dir() for e in heard if e.name == "CheckpointSaved"] == [True]


def test_steps_and_telemetry_say_what_the_record_says(tmp_path, heard):
    trainer_for(tmp_path, steps=3).fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    written = [line for line in lines if line["event"] == "step"]
    steps, telemetry = of(heard, StepEnd), of(heard, Telemetry)
    assert len(steps) == len(telemetry) == len(written) == 3
    for line, step, numbers in zip(written, steps, telemetry, strict=True):
        assert {**step.to_dict(), "event": "step"} == line
        assert set(numbers.data) == {"step", "loss", "lr", "grad_norm", "tokens_per_second"}
        assert all(type(value) is float for value in numbers.data.values())
        assert numbers.data["tokens_per_second"] == step.tokens / step.seconds


def test_epochs_follow_the_loader_and_their_loss_is_the_mean_of_their_steps(tmp_path, heard):
    trainer = trainer_for(tmp_path, steps=20)
    trainer.fit()
    starts, ends = [e.epoch for e in of(heard, EpochStart)], [e.epoch for e in of(heard, EpochEnd)]
    assert ends == list(range(1, trainer.loader.epoch + 1)) and len(ends) >= 5
    assert starts[: len(ends)] == ends and starts == list(range(1, len(starts) + 1))
    losses, number = {}, 0
    for event in heard:
        if isinstance(event, EpochStart):
            number = event.epoch
        elif isinstance(event, StepEnd):
            losses.setdefault(number, []).append(event.loss)
        elif isinstance(event, EpochEnd):
            assert event.loss == pytest.approx(sum(losses[event.epoch]) / len(losses[event.epoch]), rel=1e-12)


def test_epochs_that_lie_within_one_step_each_start_and_end(tmp_path, heard):
    trainer_for(tmp_path, steps=2, batch_size=40).fit()  # more than three epochs in a step
    names = Counter(event.name for event in heard)
    assert names["EpochEnd"] >= 6
    numbers = [(e.name, e.epoch) for e in heard if isinstance(e, (EpochStart, EpochEnd))]
    expected = [(name, i) for i in range(1, names["EpochStart"] + 1) for name in ("EpochStart", "EpochEnd")]
    assert numbers == expected[: len(numbers)]
    assert all(math.isfinite(event.loss) for event in of(heard, EpochEnd))


def test_no_epoch_is_announced_that_no_step_follows(heard):
    publisher = Publisher()
    for step, (begins, ends) in enumerate([(0, 0), (0, 1)]):
        publisher.step_begins(begins)
        publisher.step_ended(StepRecord(step + 1, 1.0 + step, 0.1, 1.0, 0.5, 8), ends)
    assert [(e.name, e.epoch) for e in heard if isinstance(e, (EpochStart, EpochEnd))] == [
        ("EpochStart", 1), ("EpochEnd", 1),
    ]  # fmt: skip
    assert of(heard, EpochEnd)[0].loss == 1.5


# ------------------------------------------------------------ stopping and resuming
def epochs(events):
    return [event for event in events if isinstance(event, (EpochStart, EpochEnd))]


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_run_that_is_stopped_and_resumed_tells_each_epoch_once_with_the_same_loss(tmp_path, heard, stop):
    trainer_for(tmp_path / "whole", steps=12).fit()
    expected = epochs(heard)
    heard.clear()
    with pytest.raises(InterruptedError):
        trainer_for(tmp_path / "parts", steps=12, checkpoint_every=1, callbacks=[Stop(stop)]).fit()
    resumed = trainer_for(tmp_path / "parts", steps=12)
    resumed.resume()
    assert resumed.step == stop
    resumed.fit()
    assert epochs(heard) == expected and len(expected) > 6


@pytest.mark.parametrize(("steps", "first"), [(1, "EpochEnd"), (4, "EpochEnd")])
def test_a_checkpoint_from_before_there_were_events_resumes_where_the_loader_stands(tmp_path, heard, steps, first):
    trainer_for(tmp_path, steps=steps).fit()
    saved = load_checkpoint(tmp_path / "checkpoints")
    del saved.state["epochs"]
    heard.clear()
    trainer = trainer_for(tmp_path, steps=12)
    trainer._restore(saved)
    assert saved.state["loader"]["position"] > 0
    trainer.fit()
    assert epochs(heard)[0].name == first
    assert [e.epoch for e in of(heard, EpochEnd)][0] == saved.state["loader"]["epoch"] + 1


# ------------------------------------------------------------ nothing else changes
def test_weights_are_the_same_bits_with_and_without_listeners(tmp_path):
    def run(name):
        folder = tmp_path / name
        folder.mkdir()
        return tiny_run.weights(tiny_run.trained(tiny_run.tiny_config(folder, run={"eval_every": 4})))

    silent = run("silent")
    with event_bus.subscribe("*", lambda event: None):
        observed = run("observed")
    assert silent.keys() == observed.keys()
    assert all(silent[name].tobytes() == observed[name].tobytes() for name in silent)


def test_a_listener_that_raises_does_not_stop_training(tmp_path):
    def bad(event):
        raise ValueError("no")

    with event_bus.subscribe(StepEnd, bad) as subscription:
        trainer = trainer_for(tmp_path, steps=3)
        trainer.fit()
    assert trainer.step == 3 and subscription.failures == 3


def test_events_are_made_for_nobody_when_nobody_listens(tmp_path, monkeypatch):
    from spiral.train import publishing

    def never(*args, **kwargs):
        raise AssertionError("an event was made")

    for name in ("TrainingStart", "EpochStart", "EpochEnd", "StepEnd", "Telemetry", "CheckpointSaved", "TrainingEnd"):
        original = getattr(publishing, name)
        monkeypatch.setattr(original, "__init__", never)
    assert not event_bus.has_listeners()
    trainer_for(tmp_path, steps=6).fit()


def test_a_failed_step_is_not_published_and_the_run_has_no_end(tmp_path, heard, monkeypatch):
    trainer = trainer_for(tmp_path, steps=3)

    def fails():
        raise TrainingError("step 1: loss nan")

    monkeypatch.setattr(trainer, "train_step", fails)
    with pytest.raises(TrainingError):
        trainer.fit()
    assert [event.name for event in heard] == ["TrainingStart", "EpochStart"]

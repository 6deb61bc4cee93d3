"""The JSONL recorder: every event, whole lines, one id for a run, and never the end of one."""

from __future__ import annotations

import json
import time

import pytest
from recorded_run import Fails, killed, loaded, require_same_weights, tiny_config, trained

from spiral.errors import ArgumentError, RegistryError, SaveError
from spiral.plugin import PluginEvent, event_bus
from spiral.plugins.jsonl import USUAL, JsonLines
from spiral.train import Callback


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_event_of_a_run_is_recorded(tmp_path):
    class Says(Callback):
        def on_step(self, trainer, record):
            if record.step == 2:
                event_bus.publish(PluginEvent.custom("Mine", {"value": float("nan"), "note": "ü\n"}))
                event_bus.publish(PluginEvent.Telemetry({"temperature": 40.5}))

    before = time.time()
    with loaded("jsonl") as make:
        callback = make()
        trainer = trained(tiny_config(tmp_path, run={"eval_every": 6}), callbacks=(callback, Says())).trainer
    found = lines(tmp_path / "run" / "events.jsonl")
    assert all(before <= line["time"] <= time.time() and line["run"] == callback.run for line in found)
    names = [line["event"] for line in found]
    assert names[0] == "TrainingStart" and names[-1] == "TrainingEnd" and "TensorOp" not in names
    assert {"EpochStart", "Evaluated", "CheckpointSaved"} <= set(names)
    losses = [e["loss"] for e in trainer.metrics.read() if e["event"] == "step"]
    assert [line["loss"] for line in found if line["event"] == "StepEnd"] == losses
    mine = next(line for line in found if line["event"] == "Mine")
    assert mine["data"] == {"value": "nan", "note": "ü\n"}
    assert {"temperature": 40.5} in [line["data"] for line in found if line["event"] == "Telemetry"]
    assert not event_bus.subscriptions()


def test_usual_are_all_of_spirals_own_events_of_a_run():
    own = {n for n in vars(PluginEvent) if n[0].isupper()}
    assert set(USUAL) == own - {"TensorOp", "SystemInit", "SystemShutdown"}


def test_what_shall_be_recorded_can_be_named(tmp_path):
    path = tmp_path / "new" / "folder" / "a.jsonl"
    trained(tiny_config(tmp_path), callbacks=(JsonLines(str(path), ["TrainingEnd"]),))
    assert [line["event"] for line in lines(path)] == ["TrainingEnd"]


def test_everything_can_be_recorded(tmp_path):
    trained(tiny_config(tmp_path, run={"steps": 1}), callbacks=(JsonLines(events=["*"]),))
    ops = [line for line in lines(tmp_path / "run" / "events.jsonl") if line["event"] == "TensorOp"]
    assert {"embedding", "attention"} & {op["op_name"] for op in ops}


@pytest.mark.parametrize("by", ["error", "kill"])
def test_a_resumed_run_keeps_its_id_and_every_line_is_whole(tmp_path, by):
    config = tiny_config(tmp_path)
    if by == "kill":
        killed(config, 8, JsonLines())
    else:
        with pytest.raises(RuntimeError):
            trained(config, callbacks=(JsonLines(), Fails(8)))
    path = tmp_path / "run" / "events.jsonl"
    with path.open("a") as file:
        file.write('{"time": 1, "ev')  # cut short
    trained(config, resume=True, callbacks=(JsonLines(),))
    texts = path.read_text().splitlines()
    broken = [text for text in texts if not text.endswith("}")]
    found = [json.loads(text) for text in texts if text not in broken]
    assert broken == ['{"time": 1, "ev'] and len({line["run"] for line in found}) == 1
    steps = [line["step"] for line in found if line["event"] == "StepEnd"]
    assert steps[-7:] == list(range(6, 13)) and set(steps) == set(range(1, 13))
    assert not event_bus.subscriptions()


class FullDisk:
    """A file whose disk has room for a part of some writes only."""

    def __init__(self, file):
        self.file, self.writes = file, 0

    def write(self, data):
        self.writes += 1
        return self.file.write(data[:10] if self.writes in (4, 5, 6) else data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path, caplog):
    class Full(JsonLines):
        def on_start(self, trainer):
            super().on_start(trainer)
            self.sink._file = FullDisk(self.sink._file)

    trainer = trained(tiny_config(tmp_path), callbacks=(Full(events=["StepEnd"]),)).trainer
    assert trainer.step == 12
    assert [line["step"] for line in lines(tmp_path / "run" / "events.jsonl")] == [1, 2, 3, *range(7, 13)]
    (warning,) = [r.getMessage() for r in caplog.records if "JsonlSink" in r.getMessage()]
    assert "No space left" in warning


def test_what_cannot_work_is_an_error_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="jsonl: .*file: cannot be made"):
        trained(tiny_config(tmp_path), callbacks=(JsonLines(str(tmp_path / "file" / "a.jsonl")),))
    with pytest.raises(RegistryError, match="the built-in one is 'StepEnd'"):
        trained(tiny_config(tmp_path), callbacks=(JsonLines(events=["TrainingEnd", "step_end"]),))
    assert not event_bus.subscriptions()
    with pytest.raises(ArgumentError, match="jsonl: events must be a list of names; received 'StepEnd'"):
        JsonLines(events="StepEnd")


def test_weights_are_the_same_bits(tmp_path):
    require_same_weights(tmp_path, JsonLines)

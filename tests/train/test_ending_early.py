"""Early stopping, callbacks that stop or fail, and the NaN guard: what is written and what the command says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import tiny_config, trained, weights

import spiral as sp
from spiral.cli.main import main
from spiral.errors import ArgumentError, ConfigError, TrainingError
from spiral.io import load_safetensors
from spiral.train import Callback, EarlyStopping, StepRecord, TrainConfig, Trainer, prepare, run_training
from spiral.train.checkpoint import list_checkpoints, load_checkpoint
from spiral.train.evaluate import Evaluation
from spiral.train.metrics import MetricsFile, draw_loss


def test_run_stops_after_its_patience_and_keeps_the_best_weights(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        run={"steps": 200, "eval_every": 2, "patience": 3},
        optim={"lr": 0.1, "clip": 0.0, "schedule": "constant"},
    )
    prepared = prepare(config)
    result = run_training(prepared, name="m")
    trainer = prepared.trainer
    evaluations = [e for e in trainer.metrics.read() if e["event"] == "evaluation"]
    bits = {e["step"]: e["bits_per_byte"] for e in evaluations}
    best = min(bits, key=lambda step: bits[step])
    assert trainer.step == best + 6 < 200 and result["bits_per_byte"] == bits[best]
    assert f"(step {best}) for 3" in result["notes"][0]
    assert load_checkpoint(trainer.checkpoints).step == trainer.step
    saved = load_safetensors(trainer.folder / "model.safetensors").arrays
    for name, array in weights(prepared).items():
        np.testing.assert_array_equal(array, saved[name])
    trainer.evaluate()
    assert trainer.last_evaluation.bits_per_byte == bits[best]
    resumed = trained(config, resume=True)  # it has stopped, and stays so
    assert resumed.trainer.step == trainer.step


def test_more_patience_lets_a_stopped_run_go_on(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, run={"steps": 60, "eval_every": 1, "patience": 1}, optim={"lr": 0.3, "schedule": "constant"}
    )
    stopped = trained(config).trainer
    assert stopped.step < 60 and stopped.stopped
    assert trained(config.updated({"run": {"patience": 50}}), resume=True).trainer.step == 60


def test_patience_needs_evaluations(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"it needs held-out text and run.eval_every of at least 1; .*eval_every=0"):
        prepare(config.updated({"run": {"patience": 1}}))
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ArgumentError, match="patience must be a positive integer"):
            EarlyStopping(wrong)  # type: ignore[arg-type]


class Recorder(Callback):
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_start(self, trainer: Trainer) -> None:
        self.events.append("start")

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        self.events.append(f"step {record.step}")

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        self.events.append("evaluation")

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        self.events.append(f"checkpoint {path.name[-2:]}")

    def on_end(self, trainer: Trainer) -> None:
        self.events.append("end")

    def state_dict(self) -> dict[str, Any]:
        return {"events": self.events}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.events = list(state["events"])


def test_callbacks_are_called_in_order_and_their_state_is_resumed(config: TrainConfig) -> None:
    recorder = Recorder()
    trained(config.updated({"run": {"steps": 5, "eval_every": 3}}), callbacks=(recorder,))
    expected = ["start", "step 1", "step 2", "step 3", "evaluation", "step 4", "step 5", "evaluation"]
    assert recorder.events == [*expected, "checkpoint 05", "end"]
    again = Recorder()
    trained(config.updated({"run": {"steps": 6, "eval_every": 0}}), resume=True, callbacks=(again,))
    assert again.events == [*expected, "start", "step 6", "evaluation", "checkpoint 06", "end"]


def test_callback_can_end_a_run_and_its_exception_ends_it_at_once(config: TrainConfig) -> None:
    class Stop(Callback):
        def on_step(self, trainer: Trainer, record: StepRecord) -> None:
            if record.step == 3:
                trainer.stop("enough")

    trainer = trained(config, callbacks=(Stop(),)).trainer
    assert trainer.step == 3 and load_checkpoint(trainer.checkpoints).step == 3

    class Fail(Callback):
        def on_step(self, trainer: Trainer, record: StepRecord) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trained(config.updated({"run": {"out": config.run.out + "2"}}), callbacks=(Fail(),))


class Poison(Callback):
    """Makes a weight NaN after a step, as a diverging run does."""

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step == 7:
            weight = trainer.parameters[-1]
            with sp.no_grad():
                weight.detach().copy_(sp.full(weight.shape, math.nan))


def test_nan_ends_the_run_with_a_record_and_the_checkpoint_before_it(config: TrainConfig) -> None:
    with pytest.raises(TrainingError, match=r"step 8: loss nan .* resume from the last checkpoint"):
        trained(config, callbacks=(Poison(),))
    run = Path(config.run.out)
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["step-00000005"]
    lines = (run / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1], parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert last["event"] == "failure" and last["step"] == 8 and "learning rate" in last["message"]
    for checkpoint in (load_checkpoint(run / "checkpoints").weights.values(),):
        assert all(np.isfinite(array).all() for array in checkpoint)
    resumed = trained(config.updated({"optim": {"lr": 1e-3}}), resume=True)
    assert resumed.trainer.step == 12
    assert all(event["event"] != "failure" for event in resumed.trainer.metrics.read())


def test_command_says_what_to_do_about_a_diverging_run(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"{s}.{k}={v}" for s, values in config.to_dict().items() for k, v in values.items()]
    assert main(["train", *settings, "optim.lr=1e5", "optim.clip=0", "run.steps=200", "optim.schedule=constant"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "must be finite at learning rate" in error and "Traceback" not in error


def test_record_is_json_also_where_a_number_is_not_finite(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "m.jsonl")
    metrics.add("step", {"step": 1, "loss": math.inf, "grad_norm": math.nan})
    metrics.add("step", {"step": 2, "loss": 1.0, "grad_norm": 2.0})
    assert [event["loss"] for event in metrics.read()] == [None, 1.0]
    draw_loss(metrics, tmp_path / "m.png", title="t", references={})
    assert (tmp_path / "m.png").stat().st_size > 1000
    for damage in (b"[1]\n", b"\xff\n", b"{\n"):
        metrics.path.write_bytes(b'{"event": "step", "step": 1}\n' + damage + b'{"event": "step", "step": 2}\n')
        assert [event["step"] for event in metrics.read()] == [1]

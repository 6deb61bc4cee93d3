"""The bundled plugin early_stopping: any figure, either direction, its count in checkpoints, its absence."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spiral.errors import ConfigError
from spiral.plugin import init_plugin_system
from spiral.train import Callback, Evaluation, StepRecord, TrainConfig, create_callback, prepare, run_training

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from tiny_run import tiny_config, trained  # noqa: E402

RECORD = StepRecord(step=1, loss=1.0, lr=0.1, grad_norm=1.0, seconds=0.1, tokens=8)


@pytest.fixture(autouse=True)
def _plugins() -> None:
    init_plugin_system()


class Run:
    """What the callback sees of a trainer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.step, self.stopped, self.saved = folder, 0, "", []

    def stop(self, reason: str) -> None:
        self.stopped = reason

    def save_weights(self, path: Path) -> None:
        self.saved.append((self.step, path.name))


def fed(callback: Any, figures: list[float], folder: Path) -> Run:
    """A run in which a callback saw figures until it stopped."""
    run = Run(folder)
    for value in figures:
        run.step += 1
        callback.on_step(run, replace(RECORD, loss=value, grad_norm=value))
        callback.on_evaluation(run, Evaluation(value * math.log(2.0), 1, 1))
        if run.stopped:
            break
    return run


@pytest.mark.parametrize(
    ("options", "figures", "stopped_at", "best_step"),
    [
        ({"patience": 2}, [3.0, 2.0, 2.5, 2.0, 1.0], 4, 2),  # equal is not better
        ({"patience": 2, "min_delta": 0.5}, [3.0, 2.6, 2.4, 2.3, 2.2], 5, 3),
        ({"patience": 2, "mode": "max"}, [1.0, 3.0, 2.0, 3.0], 4, 2),
        ({"patience": 3, "metric": "step.loss"}, [1.0, 2.0, 3.0, 4.0], 4, 1),
        ({"patience": 1, "metric": "step.grad_norm", "mode": "max", "min_delta": 0.1}, [1.0, 1.05], 2, 1),
        ({"patience": 2}, [2.0, math.nan, math.nan], 3, 1),
        ({"patience": 2}, [math.nan, math.nan], 2, 0),
    ],
)
def test_a_figure_that_gets_no_better_ends_the_run(
    options: dict[str, Any], figures: list[float], stopped_at: int, best_step: int, tmp_path: Path
) -> None:
    callback: Any = create_callback("early_stopping", **options)
    run = fed(callback, figures, tmp_path)
    assert (run.step, callback.best_step) == (stopped_at, best_step) and f"(step {best_step})" in run.stopped
    kept = callback.result_weights(run)
    if callback.event == "evaluation" and best_step:
        assert kept == tmp_path / "best.safetensors" and run.saved[-1] == (best_step, kept.name)
    else:
        assert kept is None and run.saved == []


def test_the_last_evaluation_needs_no_file_if_it_is_the_best(tmp_path: Path) -> None:
    callback = create_callback("early_stopping", patience=2)
    assert callback.result_weights(fed(callback, [2.0, 1.0], tmp_path)) is None  # type: ignore[arg-type]


def test_count_is_resumed_for_the_same_figure_only(tmp_path: Path) -> None:
    first: Any = create_callback("early_stopping", metric="step.loss", patience=9)
    fed(first, [1.0, 2.0, 3.0], tmp_path)
    same: Any = create_callback("early_stopping", metric="step.loss")
    same.load_state_dict(first.state_dict())
    assert (same.best, same.best_step, same.waited) == (1.0, 1, 2)
    other: Any = create_callback("early_stopping", metric="step.loss", mode="max")
    other.load_state_dict(first.state_dict())
    assert (other.best, other.waited) == (-math.inf, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "loss"}, "metric must be one of evaluation.nats, .*step.grad_norm.*received 'loss'"),
        ({"metric": "step.step"}, "metric must be one of"),
        ({"mode": "lowest"}, "mode"),
        ({"patience": 0}, "patience must be"),
        ({"patience": 2, "min_delta": math.nan}, "min_delta"),
    ],
)
def test_wrong_options_say_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_callback("early_stopping", **options)


def test_the_best_weights_of_another_figure_become_the_result(tmp_path: Path) -> None:
    stopping = {"early_stopping": {"patience": 2, "metric": "evaluation.loss"}}
    config = tiny_config(
        tmp_path,
        run={"steps": 100, "eval_every": 2, "callbacks": [stopping]},
        optim={"lr": 0.1, "clip": 0.0, "schedule": "constant"},
    )
    prepared = prepare(config)
    result = run_training(prepared, name="m")
    bits = {e["step"]: e["bits_per_byte"] for e in prepared.trainer.metrics.read() if e["event"] == "evaluation"}
    assert prepared.trainer.step == min(bits, key=bits.__getitem__) + 4 < 100
    assert result["bits_per_byte"] == min(bits.values()) and "nats per token" in result["notes"][0]
    assert (prepared.trainer.folder / "best-loss.safetensors").exists()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"callbacks": ["early_stopping"], "eval_every": 0}, "early_stopping counts evaluations for .*eval_every=0"),
        ({"callbacks": ["early_stopping"], "eval_every": 2, "patience": 2}, "2 callbacks wait for evaluation"),
    ],
)
def test_a_run_in_which_it_cannot_work_is_refused(run: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        trained(tiny_config(tmp_path, run=run))


def test_patience_in_a_script_loads_the_bundled_plugins_alone(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text("raise SystemExit('a plugin of the user was loaded')\n")
    config = tiny_config(tmp_path, run={"patience": 2, "eval_every": 2}).to_dict()
    code = (
        "import sys\nfrom spiral.train import TrainConfig, prepare\n"
        f"prepare(TrainConfig.from_dict({config!r}))\nprint('spiral.plugins.early_stopping' in sys.modules)\n"
    )
    environment = {**os.environ, "SPIRAL_PLUGIN_PATH": str(tmp_path / "user.py")}

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=False)

    assert run().stdout == "True\n"
    assert "run.patience: needs the bundled plugin early_stopping" in run(SPIRAL_PLUGINS="-early_stopping").stderr


def test_the_class_is_found_where_it_was_before() -> None:
    from spiral.train import CALLBACKS, EarlyStopping

    assert EarlyStopping is CALLBACKS["early_stopping"] and issubclass(EarlyStopping, Callback)
    assert TrainConfig().run.patience == 0

"""A run that SIGKILL ends at any step resumes to the bits of an uninterrupted one, whatever its settings."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_run import files_of_last_checkpoint, killed, tiny_config, trained

import spiral as sp
from spiral.train.checkpoint import list_checkpoints, load_checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "accumulated": {"run": {"accumulate": 3}},
    "over several epochs": {"run": {"batch_size": 64, "steps": 24}},
    "averaged, wsd": {"optim": {"ema": 0.9, "schedule": "wsd"}},
    "bfloat16, linear": {"run": {"precision": "bfloat16"}, "optim": {"schedule": "linear"}},
    "float16, averaged": {"run": {"precision": "float16"}, "optim": {"ema": 0.5}},
    "stopping early": {
        "run": {"eval_every": 2, "patience": 3, "steps": 60},
        "optim": {"lr": 0.1, "clip": 0.0, "schedule": "constant"},
    },
}


@pytest.fixture(autouse=True)
def _own_thread_count() -> Iterator[None]:
    before = sp.get_num_threads()
    yield
    sp.set_num_threads(before)


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_twice_and_resumed_with_other_thread_counts(name: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **SETTINGS[name])
    sp.set_num_threads(1)
    whole = config.updated({"run": {"out": str(tmp_path / "whole")}})
    uninterrupted = trained(whole)
    sp.set_num_threads(2)
    killed(config, 3)  # before the first checkpoint: the run starts again
    assert list_checkpoints(Path(config.run.out) / "checkpoints") == []
    killed(config, 7)
    sp.set_num_threads(1)
    killed(config, 11, resume=True)
    sp.set_num_threads(2)
    resumed = trained(config, resume=True)
    assert resumed.trainer.step == uninterrupted.trainer.step
    assert resumed.trainer.stopped == uninterrupted.trainer.stopped
    assert files_of_last_checkpoint(config) == files_of_last_checkpoint(whole)


def test_checkpoint_says_where_the_run_stands_and_what_its_bits_depend_on(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    trained(config)
    state = load_checkpoint(Path(config.run.out) / "checkpoints").state
    assert state["step"] == 12 and {"epoch", "position", "seed"} <= set(state["loader"])
    assert set(state["random"]) == {"seed", "stream"} and state["random"]["stream"] > 0
    assert {"spiral", "numpy", "ml_dtypes", "python", "kernels", "machine"} <= set(state["versions"])
    assert "tuning_table" in state and state["tuning_table"] is None  # no measured choices exist
    assert state["config"] == config.to_dict() and set(state["sha256"]) == {
        "model.safetensors",
        "optimizer.safetensors",
    }


@pytest.mark.slow
def test_killed_at_random_moments_of_writing_checkpoints(tmp_path: Path) -> None:
    """Every step writes a checkpoint; the process is killed 40 times wherever it happens to be."""
    config = tiny_config(tmp_path, run={"steps": 400, "checkpoint_every": 1, "keep": 1})
    script = (
        "import json, sys\n"
        "from spiral.train import TrainConfig, prepare\n"
        "prepare(TrainConfig.from_dict(json.loads(sys.argv[1])), resume=sys.argv[2] == '1').trainer.fit()\n"
    )
    draw = random.Random(5)
    folder = Path(config.run.out) / "checkpoints"
    reached = 0
    for _ in range(40):
        arguments = [sys.executable, "-c", script, json.dumps(config.to_dict()), str(int(bool(reached)))]
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        newest = reached
        while newest == reached and process.poll() is None and time.monotonic() < deadline:
            found = list_checkpoints(folder)
            newest = int(found[-1].name[5:]) if found else 0
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate(timeout=60)
        assert error == "" and process.returncode in (-signal.SIGKILL, 0), error
        now = load_checkpoint(folder).step
        assert now >= reached
        reached = now
    trained(config, resume=True)
    whole = config.updated({"run": {"out": str(tmp_path / "whole"), "checkpoint_every": 0}})
    trained(whole)
    assert files_of_last_checkpoint(config) == files_of_last_checkpoint(whole)
    assert not list(folder.glob(".*"))

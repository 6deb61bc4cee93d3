"""A training run small enough to be killed and resumed many times."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from spiral.models.files import weight_arrays
from spiral.train import Callback, StepRecord, TrainConfig, Trainer, prepare
from spiral.train.run import Prepared

TEXT = "".join(f"line {i}: the cat number {i % 7} sat on mat {i % 5}.\n\n" for i in range(300))


def tiny_config(folder: Path, **sections: dict[str, Any]) -> TrainConfig:
    """The run's configuration with its text in a folder."""
    (folder / "text.txt").write_text(TEXT)
    base = TrainConfig.from_dict(
        {
            "model": {"context_length": 16, "n_layer": 1, "n_head": 2, "n_kv_head": 1, "dim": 16, "ffn_dim": 32,
                      "dropout": 0.1},
            "data": {"path": str(folder / "text.txt"), "vocab_size": 270},
            "optim": {"warmup_steps": 5, "lr": 1e-2},
            "run": {
                "out": str(folder / "run"), "steps": 12, "batch_size": 4,
                "eval_every": 0, "checkpoint_every": 5, "keep": 3,
            },
        }
    )  # fmt: skip
    return base.updated(sections)


def weights(prepared: Prepared) -> dict[str, np.ndarray]:
    """Copies of the model's weights."""
    return {name: a.copy() for name, a in weight_arrays(prepared.trainer.model).items()}


def trained(config: TrainConfig, *, resume: bool = False, callbacks: tuple[Callback, ...] = ()) -> Prepared:
    """The run after its last step."""
    prepared = prepare(config, resume=resume, callbacks=callbacks)
    prepared.trainer.fit()
    return prepared


def files_of_last_checkpoint(config: TrainConfig) -> dict[str, bytes]:
    """What a run ended with: weights, optimizer, averages."""
    newest = max((Path(config.run.out) / "checkpoints").glob("step-*"))
    return {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}


class Signal(Callback):
    """Sends signals to this process after a step."""

    def __init__(self, step: int, number: int, times: int = 1) -> None:
        self.step, self.number, self.times = step, number, times

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def killed(config: TrainConfig, step: int, *callbacks: Callback, resume: bool = False) -> None:
    """Train in a forked child that SIGKILL ends after a step."""
    child = os.fork()
    if child == 0:
        try:
            trained(config, resume=resume, callbacks=(*callbacks, Signal(step, signal.SIGKILL)))
        finally:
            os._exit(77)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"child ended with {status}"

"""Training: configuration, the loop, checkpoints that resume bit for bit, records of a run."""

from __future__ import annotations

from typing import Any

from spiral.train.budget import TimeBudget
from spiral.train.callback_catalog import CALLBACKS, create_callback, early_stopping
from spiral.train.callbacks import Callback
from spiral.train.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig, load_config
from spiral.train.evaluate import Evaluation, evaluate
from spiral.train.metrics import MetricsFile, draw_loss, sparkline
from spiral.train.precision import MixedPrecision
from spiral.train.run import prepare, run_training
from spiral.train.schedule import learning_rate, warmup_cosine
from spiral.train.trainer import Interrupted, StepRecord, Trainer

__all__ = [
    "CALLBACKS",
    "Callback",
    "DataConfig",
    "Evaluation",
    "Interrupted",
    "MetricsFile",
    "MixedPrecision",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "StepRecord",
    "TimeBudget",
    "TrainConfig",
    "Trainer",
    "create_callback",
    "draw_loss",
    "evaluate",
    "learning_rate",
    "load_config",
    "prepare",
    "run_training",
    "sparkline",
    "warmup_cosine",
]


def __getattr__(name: str) -> Any:
    if name == "EarlyStopping":  # where it was before it became a bundled plugin
        return early_stopping("spiral.train.EarlyStopping")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

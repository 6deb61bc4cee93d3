"""Early stopping: ends a run when a figure no longer gets better, and makes the best weights its result.

    run:
      callbacks:
        - early_stopping: {patience: 3, metric: evaluation.loss}

``run.patience: 3`` is short for ``early_stopping: {patience: 3}``.
"""

from __future__ import annotations

import math
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from spiral.errors import ArgumentError, ConfigError
from spiral.plugin import Plugin, PluginCapability, PluginContext, PluginMetadata
from spiral.train import Callback, Evaluation, StepRecord, Trainer

BITS = "evaluation.bits_per_byte"
_EVENTS: dict[str, type] = {"evaluation": Evaluation, "step": StepRecord}
_UNITS = {BITS: "bits per byte", "evaluation.loss": "nats per token", "step.loss": "nats per token"}


class EarlyStopping(Callback):
    """Stops a run after evaluations, or steps, that were not better than the best.

    Of a figure of evaluations it keeps the best weights in a file, which become the run's result. Its count goes
    into checkpoints, so a resumed run stops where the uninterrupted one does.

    Args:
        patience: Evaluations, or steps, without a better one.
        min_delta: Difference that counts as better.
        metric: Which figure: ``evaluation.bits_per_byte``, ``evaluation.loss``, ``step.loss``, ``step.grad_norm``, ….
        mode: Whether the smallest or the largest is the best.
    """

    def __init__(
        self, patience: int = 3, min_delta: float = 0.0, *, metric: str = BITS, mode: Literal["min", "max"] = "min"
    ) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1 or not min_delta >= 0:
            raise ArgumentError(
                "EarlyStopping: patience must be a positive integer and min_delta at least 0; "
                f"received {patience!r} and {min_delta!r}."
            )
        known = [f"{event}.{name}" for event, kind in _EVENTS.items() for name in _figures(kind)]
        if metric not in known or mode not in ("min", "max"):
            raise ArgumentError(
                f"EarlyStopping: metric must be one of {', '.join(known)}, and mode min or max; "
                f"received {metric!r} and {mode!r}."
            )
        self.patience, self.min_delta, self.metric, self.mode = patience, min_delta, metric, mode
        self.event, _, self._name = metric.partition(".")
        self._figure = attrgetter(self._name)
        self.best = math.inf if mode == "min" else -math.inf
        self.best_step = 0
        self.waited = 0

    @property
    def file(self) -> str:
        """The name of the best weights' file in the run's folder."""
        return "best.safetensors" if self.metric == BITS else f"best-{self._name}.safetensors"

    def on_start(self, trainer: Trainer) -> None:
        if self.event != "evaluation":
            return
        if trainer.held_out is None or not trainer.config.run.eval_every:
            raise ConfigError(
                f"early_stopping counts evaluations for {self.metric}: it needs held-out text and run.eval_every of "
                f"at least 1; received eval_every={trainer.config.run.eval_every}."
            )
        same = [c for c in trainer.callbacks if isinstance(c, EarlyStopping) and c.metric == self.metric]
        if len(same) > 1:
            raise ConfigError(
                f"early_stopping: {len(same)} callbacks wait for {self.metric}; keep one (run.patience makes one)."
            )

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if self.event == "step":
            self._look(trainer, self._figure(record))

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        if self.event == "evaluation" and self._look(trainer, self._figure(evaluation)):
            trainer.save_weights(trainer.folder / self.file)

    def _look(self, trainer: Trainer, value: float) -> bool:
        """Whether a figure is the best; stops the run when there was none for too long."""
        down = self.mode == "min"
        if value < self.best - self.min_delta if down else value > self.best + self.min_delta:
            self.best, self.best_step, self.waited = value, trainer.step, 0
            return True
        self.waited += 1
        if self.waited >= self.patience:
            unit = _UNITS.get(self.metric, self._name)
            trainer.stop(
                f"no {self.event} was better than {self.best:.4f} {unit} (step {self.best_step}) for {self.waited}"
            )
        return False

    def result_weights(self, trainer: Trainer) -> Path | None:
        return trainer.folder / self.file if self.waited and self.event == "evaluation" and self.best_step else None

    def state_dict(self) -> dict[str, Any]:
        best = self.best if math.isfinite(self.best) else None
        of = {} if (self.metric, self.mode) == (BITS, "min") else {"metric": self.metric, "mode": self.mode}
        return {"best": best, "best_step": self.best_step, "waited": self.waited, **of}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (state.get("metric", BITS), state.get("mode", "min")) != (self.metric, self.mode):
            return  # it counted another figure
        if state["best"] is not None:
            self.best = float(state["best"])
        self.best_step, self.waited = int(state["best_step"]), int(state["waited"])


def _figures(kind: type) -> list[str]:
    """The numbers of a record: its fields and properties but for what counts."""
    names = [*getattr(kind, "__annotations__", {}), *(n for n, v in vars(kind).items() if isinstance(v, property))]
    return [name for name in names if name not in ("step", "tokens", "n_bytes", "skipped")]


class EarlyStoppingPlugin(Plugin):
    """Brings the callback ``early_stopping``."""

    def metadata(self) -> PluginMetadata:
        return (
            PluginMetadata("early_stopping", "0.1.0")
            .with_name("Early stopping")
            .with_description("Ends a run when a figure no longer gets better, and keeps the best weights.")
            .with_capability(PluginCapability.Custom("Callback"))
        )

    def on_load(self, ctx: PluginContext) -> None:
        ctx.register_callback("early_stopping", EarlyStopping)

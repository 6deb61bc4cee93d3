"""Stop when the held-out text stops improving."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiral.errors import ArgumentError
from spiral.train.callbacks import Callback

if TYPE_CHECKING:
    from spiral.train.evaluate import Evaluation
    from spiral.train.trainer import Trainer

BEST = "best.safetensors"


class EarlyStopping(Callback):
    """Stops a run after evaluations that were not better than the best, whose weights it keeps in a file.

    Its count goes into checkpoints, so a resumed run stops where the uninterrupted one does.

    Args:
        patience: Evaluations without a better one.
        min_delta: Bits per byte that count as better.
    """

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1 or not min_delta >= 0:
            raise ArgumentError(
                "EarlyStopping: patience must be a positive integer and min_delta at least 0; "
                f"received {patience!r} and {min_delta!r}."
            )
        self.patience = patience
        self.min_delta = min_delta
        self.best = math.inf
        self.best_step = 0
        self.waited = 0

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        bits = evaluation.bits_per_byte
        if bits < self.best - self.min_delta:
            self.best, self.best_step, self.waited = bits, trainer.step, 0
            trainer.save_weights(trainer.folder / BEST)
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.stop(
                f"no evaluation was better than {self.best:.4f} bits per byte (step {self.best_step}) for {self.waited}"
            )

    def result_weights(self, trainer: Trainer) -> Path | None:
        return trainer.folder / BEST if self.waited else None

    def state_dict(self) -> dict[str, Any]:
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.best_step, self.waited = int(state["best_step"]), int(state["waited"])

"""A record of how large weights are, and how much training changes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spiral.errors import ArgumentError
from spiral.plugin import Telemetry, event_bus
from spiral.train import Callback, StepRecord, Trainer


class WeightNorms(Callback):
    """Records each weight's norm, and its step's length as a share of it; about 1e-3 is usual.

    Both go into the run's ``metrics.jsonl`` as events ``weights``, and onto the event bus as `Telemetry` under
    ``norm/<weight>`` and ``update/<weight>``.

    Args:
        every: Look every so many steps.
    """

    def __init__(self, every: int = 100) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ArgumentError(f"weight_norms: every must be a positive integer; received {every!r}.")
        self.every = every
        self.before: dict[str, NDArray[np.float64]] = {}

    def on_start(self, trainer: Trainer) -> None:
        self.remember(trainer)

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step % self.every == 0:
            figures = {}
            for name, now in arrays(trainer).items():
                figures[f"norm/{name}"] = norm = float(np.linalg.norm(now))
                if norm > 0.0:
                    figures[f"update/{name}"] = float(np.linalg.norm(now - self.before[name])) / norm
            trainer.metrics.add("weights", {"step": record.step, **figures})
            event_bus.publish(Telemetry(figures))
        self.remember(trainer)

    def remember(self, trainer: Trainer) -> None:
        """Copies the weights where the next step is looked at."""
        self.before = arrays(trainer) if (trainer.step + 1) % self.every == 0 else {}


def arrays(trainer: Trainer) -> dict[str, NDArray[np.float64]]:
    """Copies of the weights by name."""
    return {name: np.array(weight.detach().numpy(), np.float64) for name, weight in trainer.masters.items()}

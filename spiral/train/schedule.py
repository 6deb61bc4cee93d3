"""The learning rate over a run."""

from __future__ import annotations

import math

from spiral.errors import ArgumentError

SCHEDULES = ("cosine", "linear", "wsd", "constant")


def learning_rate(
    step: int,
    *,
    schedule: str,
    peak: float,
    total_steps: int,
    warmup_steps: int,
    final_ratio: float,
    decay: float = 0.2,
) -> float:
    """Linear warm-up, then the schedule down to the last step.

    Args:
        step: Counted from 0; the rate of the step that is about to be taken.
        schedule: ``cosine`` (Loshchilov & Hutter 2017, without restarts), ``linear``, ``wsd`` (stays, then
            falls along a line; Hu et al. 2024, MiniCPM) or ``constant``.
        peak: Rate after the warm-up.
        total_steps: Steps of the run; unless constant, the last has the rate ``final_ratio * peak``.
        warmup_steps: Steps of the warm-up; at most the run's.
        final_ratio: Last rate over peak.
        decay: The share of the steps in which ``wsd`` falls.

    Example:
        >>> rate = lambda s: learning_rate(s, schedule="wsd", peak=1.0, total_steps=8, warmup_steps=2,
        ...                                final_ratio=0.0, decay=0.25)
        >>> [round(rate(s), 2) for s in range(8)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    if schedule not in SCHEDULES:
        raise ArgumentError(f"learning_rate: schedule must be one of {', '.join(SCHEDULES)}; received {schedule!r}.")
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    start = warmup_steps
    if schedule == "wsd":
        start = max(warmup_steps, total_steps - round(decay * total_steps))
    progress = min(1.0, max(0.0, (step - start + 1) / max(1, total_steps - start)))
    if schedule == "cosine":
        left = 0.5 * (1.0 + math.cos(math.pi * progress))
    else:
        left = 1.0 if schedule == "constant" else 1.0 - progress
    return peak * (final_ratio + (1.0 - final_ratio) * left)


def warmup_cosine(step: int, *, peak: float, total_steps: int, warmup_steps: int, final_ratio: float) -> float:
    """`learning_rate` with the cosine.

    Example:
        >>> [round(warmup_cosine(s, peak=1.0, total_steps=5, warmup_steps=2, final_ratio=0.1), 2) for s in range(5)]
        [0.5, 1.0, 0.78, 0.33, 0.1]
    """
    return learning_rate(
        step,
        schedule="cosine",
        peak=peak,
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        final_ratio=final_ratio,
    )

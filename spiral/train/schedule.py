"""The learning rate over a run."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, peak: float, total_steps: int, warmup_steps: int, final_ratio: float) -> float:
    """Linear warm-up, then half a cosine down (Loshchilov & Hutter 2017, without restarts).

    Args:
        step: Counted from 0; the rate of the step that is about to be taken.
        peak: Rate after the warm-up.
        total_steps: Steps of the run; the last has the rate ``final_ratio * peak``.
        warmup_steps: Steps of the warm-up; at most the run's.
        final_ratio: Last rate over peak.

    Example:
        >>> [round(warmup_cosine(s, peak=1.0, total_steps=5, warmup_steps=2, final_ratio=0.1), 2) for s in range(5)]
        [0.5, 1.0, 0.78, 0.33, 0.1]
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps + 1) / max(1, total_steps - warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return peak * (final_ratio + (1.0 - final_ratio) * cosine)

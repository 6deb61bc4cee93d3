"""The maker of sample inputs that op declarations receive: float64 NumPy arrays from a fixed seed."""

from __future__ import annotations

from typing import Any

import numpy as np


class SampleMaker:
    """Draws arrays; `Op.samples` yields tuples of them followed by the op's attributes."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Any:
        return np.asarray(self.rng.standard_normal(shape) * scale + shift)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Any:
        return np.asarray(self.rng.uniform(low, high, shape))

    def integers(self, low: int, high: int, *shape: int) -> Any:
        return np.asarray(self.rng.integers(low, high, shape))

    def booleans(self, *shape: int) -> Any:
        return self.rng.random(shape) < 0.5

    def array(self, values: Any) -> Any:
        return np.asarray(values, np.float64)

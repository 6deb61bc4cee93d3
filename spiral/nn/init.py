"""Filling parameters with first values. Every function overwrites its tensor and returns it."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from spiral import random
from spiral.creation import asarray, full
from spiral.errors import ArgumentError, ShapeError
from spiral.tensor import Tensor

T = TypeVar("T", bound=Tensor)
_GAINS = {"linear": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}


def calculate_gain(nonlinearity: str, slope: float = 0.01) -> float:
    """Factor that keeps the variance through a nonlinearity (PyTorch's table).

    Args:
        nonlinearity: ``linear``, ``conv2d``, ``sigmoid``, ``tanh``, ``relu``, ``selu`` or ``leaky_relu``.
        slope: Negative slope of ``leaky_relu``.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + slope**2))
    if nonlinearity not in _GAINS:
        names = ", ".join((*_GAINS, "leaky_relu"))
        raise ArgumentError(f"calculate_gain: nonlinearity must be one of {names}; received {nonlinearity!r}.")
    return _GAINS[nonlinearity]


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    """Inputs and outputs of a unit: weight (out, in, *window)."""
    if tensor.ndim < 2:
        raise ShapeError(f"{name}: expected at least 2 axes (out, in); received shape {tensor.shape}.")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def uniform_(tensor: T, low: float = 0.0, high: float = 1.0) -> T:
    """Uniform numbers in [low, high)."""
    tensor.copy_(random.uniform(tensor.shape, low=low, high=high, dtype=tensor.dtype))
    return tensor


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """Normal numbers."""
    tensor.copy_(random.normal(tensor.shape, mean=mean, std=std, dtype=tensor.dtype))
    return tensor


def constant_(tensor: T, value: float) -> T:
    """One value."""
    tensor.copy_(full(tensor.shape, value, dtype=tensor.dtype))
    return tensor


def zeros_(tensor: T) -> T:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: T) -> T:
    """Ones."""
    return constant_(tensor, 1.0)


def xavier_uniform_(tensor: T, gain: float = 1.0) -> T:
    """Uniform numbers whose variance is 2 gain^2 / (fan_in + fan_out) (Glorot & Bengio 2010)."""
    fan_in, fan_out = _fans("xavier_uniform_", tensor)
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """Normal numbers whose variance is 2 gain^2 / (fan_in + fan_out) (Glorot & Bengio 2010)."""
    fan_in, fan_out = _fans("xavier_normal_", tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)))


def _kaiming_std(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"{name}: mode must be 'fan_in' or 'fan_out'; received {mode!r}.")
    fan = _fans(name, tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """Uniform numbers whose variance is gain^2 / fan (He et al. 2015); ``a`` is leaky_relu's slope."""
    bound = math.sqrt(3.0) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """Normal numbers whose variance is gain^2 / fan (He et al. 2015); ``a`` is leaky_relu's slope."""
    return normal_(tensor, 0.0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity))


def trunc_normal_(tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> T:
    """Normal numbers, those outside [a, b] drawn again.

    Raises:
        ArgumentError: less than 1 % of the normal distribution lies in [a, b], so drawing again would not end.
    """
    root = std * math.sqrt(2.0)
    inside = 0.5 * (math.erf((b - mean) / root) - math.erf((a - mean) / root))
    if not inside >= 0.01:
        raise ArgumentError(f"trunc_normal_: [{a}, {b}] holds less than 1 % of a normal of mean {mean} and std {std}.")
    values = np.array(random.normal(tensor.shape, mean=mean, std=std).numpy())
    while (outside := (values < a) | (values > b)).any():
        values[outside] = random.normal(int(outside.sum()), mean=mean, std=std).numpy()
    tensor.copy_(asarray(values, dtype=tensor.dtype))
    return tensor


def orthogonal_(tensor: T, gain: float = 1.0) -> T:
    """A matrix with orthonormal rows or columns, axes after the first merged (Saxe et al. 2014)."""
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_: expected at least 2 axes (out, in); received shape {tensor.shape}.")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    normal = random.normal((max(rows, columns), min(rows, columns))).numpy().astype(np.float64)
    q, r = np.linalg.qr(normal)
    q = q * np.sign(np.diag(r))  # makes the distribution uniform (Mezzadri 2007)
    q = (q.T if rows < columns else q) * gain
    tensor.copy_(asarray(q.reshape(tensor.shape).astype(np.float32), dtype=tensor.dtype))
    return tensor

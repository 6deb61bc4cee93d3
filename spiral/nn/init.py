"""Filling parameters with first values. Every function overwrites its tensor and returns it."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from spiral import random
from spiral.creation import asarray, full
from spiral.dispatch import shapes_only
from spiral.errors import ArgumentError, DTypeError, ShapeError
from spiral.nn.arguments import choice, real, tensors
from spiral.tensor import Tensor

T = TypeVar("T", bound=Tensor)
_GAINS = {"linear": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}


def calculate_gain(nonlinearity: str, slope: float = 0.01) -> float:
    """Factor that keeps the variance through a nonlinearity (PyTorch's table).

    Args:
        nonlinearity: ``linear``, ``conv2d``, ``sigmoid``, ``tanh``, ``relu``, ``selu`` or ``leaky_relu``.
        slope: Negative slope of ``leaky_relu``.
    """
    nonlinearity = choice("calculate_gain", "nonlinearity", nonlinearity, (*_GAINS, "leaky_relu"))
    if nonlinearity == "leaky_relu":
        slope = real("calculate_gain", "slope", slope)
        return math.sqrt(2.0 / (1.0 + slope**2))
    return _GAINS[nonlinearity]


def _floating(name: str, tensor: Tensor) -> None:
    tensors(name, tensor=tensor)
    if tensor.dtype.kind != "float":
        raise DTypeError(f"{name}: tensor must be floating; received {tensor.dtype.name}.")


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    """Inputs and outputs of a unit: weight (out, in, *window)."""
    tensors(name, tensor=tensor)
    if tensor.ndim < 2:
        raise ShapeError(f"{name}: expected at least 2 axes (out, in); received shape {tensor.shape}.")
    if not tensor.size:
        raise ShapeError(f"{name}: a tensor without elements has no fan; received shape {tensor.shape}.")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def uniform_(tensor: T, low: float = 0.0, high: float = 1.0) -> T:
    """Uniform numbers in [low, high)."""
    _floating("uniform_", tensor)
    low = real("uniform_", "low", low)
    high = real("uniform_", "high", high, low)
    tensor.copy_(random.uniform(tensor.shape, low=low, high=high, dtype=tensor.dtype, device=tensor.device))
    return tensor


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """Normal numbers."""
    _floating("normal_", tensor)
    mean, std = real("normal_", "mean", mean), real("normal_", "std", std, 0.0)
    tensor.copy_(random.normal(tensor.shape, mean=mean, std=std, dtype=tensor.dtype, device=tensor.device))
    return tensor


def constant_(tensor: T, value: float) -> T:
    """One value."""
    tensors("constant_", tensor=tensor)
    if not isinstance(value, (bool, np.bool_)) and value == value:  # NaN is a value, too
        value = real("constant_", "value", value, infinite=True)
    tensor.copy_(full(tensor.shape, value, dtype=tensor.dtype, device=tensor.device))
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
    gain = real("xavier_uniform_", "gain", gain, 0.0)
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """Normal numbers whose variance is 2 gain^2 / (fan_in + fan_out) (Glorot & Bengio 2010)."""
    fan_in, fan_out = _fans("xavier_normal_", tensor)
    gain = real("xavier_normal_", "gain", gain, 0.0)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)))


def _kaiming_std(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    choice(name, "mode", mode, ("fan_in", "fan_out"))
    fan = _fans(name, tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, real(name, "a", a)) / math.sqrt(fan)


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
    name = "trunc_normal_"
    _floating(name, tensor)
    mean, std = real(name, "mean", mean), real(name, "std", std, 0.0, above=True)
    a, b = real(name, "a", a, infinite=True), real(name, "b", b, infinite=True)
    root = std * math.sqrt(2.0)
    inside = 0.5 * (math.erf((b - mean) / root) - math.erf((a - mean) / root))
    if not inside >= 0.01:
        raise ArgumentError(f"trunc_normal_: [{a}, {b}] holds less than 1 % of a normal of mean {mean} and std {std}.")
    if shapes_only():
        return tensor
    values = np.array(random.normal(tensor.shape, mean=mean, std=std).numpy())
    while (outside := (values < a) | (values > b)).any():
        values[outside] = random.normal(int(outside.sum()), mean=mean, std=std).numpy()
    tensor.copy_(asarray(values, dtype=tensor.dtype, device=tensor.device))
    return tensor


def orthogonal_(tensor: T, gain: float = 1.0) -> T:
    """A matrix with orthonormal rows or columns, axes after the first merged (Saxe et al. 2014)."""
    _floating("orthogonal_", tensor)
    _fans("orthogonal_", tensor)
    gain = real("orthogonal_", "gain", gain)
    if shapes_only():
        return tensor
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    normal = random.normal((max(rows, columns), min(rows, columns))).numpy().astype(np.float64)
    q, r = np.linalg.qr(normal)
    q = q * np.sign(np.diag(r))  # makes the distribution uniform (Mezzadri 2007)
    q = (q.T if rows < columns else q) * gain
    tensor.copy_(asarray(q.reshape(tensor.shape).astype(np.float32), dtype=tensor.dtype, device=tensor.device))
    return tensor

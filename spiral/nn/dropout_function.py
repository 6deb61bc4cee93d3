"""Dropout as a function; `spiral.nn.functional` exports it."""

from __future__ import annotations

from spiral import ops, random
from spiral.creation import zeros
from spiral.dtype import bool_
from spiral.nn.arguments import flag, real, tensors
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zeroes elements with probability p and scales the rest by 1 / (1 - p), when training.

    Raises:
        ArgumentError: p is not in [0, 1].
    """
    if p.__class__ is not float or not 0.0 <= p <= 1.0:
        p = real("dropout", "p", p, 0.0, 1.0)
    if training.__class__ is not bool:
        training = flag("dropout", "training", training)
    if not isinstance(x, TensorCore):
        tensors("dropout", x=x)
    if not training or p == 0.0:
        return x
    if p == 1.0:
        return ops.where(zeros(x.shape, dtype=bool_, device=x.device), x, 0.0)
    seed, stream = random.next_stream()
    return ops.dropout(x, p=p, seed=seed, stream=stream)
